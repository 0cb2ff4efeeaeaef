"""Download the archives in parallel, with resume, and verify the publisher's MD5 of each.

An archive is written to `NAME.part`, which a later call resumes, and renamed once its MD5 is right.
A file whose MD5 is wrong twice is kept as `NAME.bad` for inspection. MD5 detects damage, not
tampering, so the content of an archive is never trusted either.
"""

import errno
import hashlib
import http.client
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from jaxsr.data.nih import constants, metadata
from jaxsr.data.nih.constants import Archive
from jaxsr.errors import UserError, flat
from jaxsr.files import atomic

TRIES = 8  # in a row without a new byte
_CHUNK = 1 << 20
_LARGEST_TABLE = 64 << 20
_GONE = (401, 403, 404, 410)
_GZIP = b'\x1f\x8b'


class RetryPolicy(NamedTuple):
  """Seconds without data before a timeout, and the wait between tries, doubled each time."""

  timeout: float = 60.0
  first_wait: float = 1.0
  longest_wait: float = 60.0


class _Canceled(Exception):
  """Raised in a download thread after the others have been told to stop."""


class Fetcher:
  """Downloads archives into a folder.

  `on_bytes` is called with the number of bytes received, which is negative if a file is discarded.
  """

  def __init__(
    self,
    output: Path,
    *,
    on_bytes: Callable[[int], object] = lambda count: None,
    retries: RetryPolicy | None = None,
  ):
    self.output, self._on_bytes, self._retries = output, on_bytes, retries or RetryPolicy()
    self._stop = threading.Event()

  def fetch_all(self, archives: Sequence[Archive], *, jobs: int) -> dict[str, str]:
    """Download `jobs` archives at a time; returns an error message for each one that failed."""
    failed = {}
    with ThreadPoolExecutor(jobs) as pool:
      running = {pool.submit(self.fetch, archive): archive for archive in archives}
      try:
        for future in as_completed(running):
          if error := future.exception():
            if not isinstance(error, UserError | OSError):
              raise error
            failed[running[future].name] = str(error)
      except BaseException:
        self._stop.set()
        pool.shutdown(cancel_futures=True)
        raise
    return failed

  def fetch(self, archive: Archive) -> None:
    """Download one archive unless it exists; raises UserError if it is not available."""
    path = self.output / archive.name
    if path.is_file():
      if md5(path) == archive.md5:
        self._on_bytes(path.stat().st_size)
        return
      path.replace(rejected_file(path))
    for attempt in (1, 2):
      found = self._receive(archive, partial_file(path))
      if found == archive.md5:
        partial_file(path).replace(path)
        return
      if attempt == 2:
        partial_file(path).replace(rejected_file(path))
        raise UserError(
          f'{archive.name}: has MD5 {found}, but the publisher lists {archive.md5}; it is kept as '
          f'{path.name}.bad; try again, or {constants.manual_download(archive.name)}'
        )
      self._on_bytes(-partial_file(path).stat().st_size)
      partial_file(path).unlink()

  def _receive(self, archive: Archive, path: Path) -> str:
    """Download until a file is complete; returns its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    self._on_bytes(_hash_existing(digest, path))
    tries, restarts, wait = 0, 0, self._retries.first_wait
    while True:
      before = path.stat().st_size if path.exists() else 0
      try:
        if self._request_rest(archive, path, digest):
          return digest.hexdigest()
        reason = 'the connection was closed'
      except _Restart:
        digest = hashlib.md5(usedforsecurity=False)
        restarts += 1
        reason, before = 'the server restarts the file each time', 0
      except (OSError, http.client.HTTPException) as error:
        reason = _reason(error, archive)
      came = (path.stat().st_size if path.exists() else 0) > before
      tries, wait = (1, self._retries.first_wait) if came else (tries + 1, wait)
      if max(tries, restarts) >= TRIES:
        raise UserError(
          f'{archive.name}: {reason}, {TRIES} times; run the same command again to resume from '
          f'{before // 10**6} MB, or {constants.manual_download(archive.name)}'
        )
      if self._stop.wait(wait):
        raise _Canceled
      wait = min(2 * wait, self._retries.longest_wait)

  def _request_rest(self, archive: Archive, path: Path, digest: 'hashlib._Hash') -> bool:
    """Request the missing bytes and append them; returns whether the file is complete."""
    have = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(archive.url, headers={'Accept-Encoding': 'identity'})
    if have:
      request.add_header('Range', f'bytes={have}-')
    try:
      response = urllib.request.urlopen(request, timeout=self._retries.timeout)
    except urllib.error.HTTPError as error:
      if error.code == 416 and have:  # complete already, or another file
        if error.headers.get('Content-Range') == f'bytes */{have}':
          return True
        self._restart(path)
      raise
    with response:
      if have and response.status != 206:
        self._restart(path)
      return self._append(archive, response, path, digest, have)

  def _append(
    self,
    archive: Archive,
    response: http.client.HTTPResponse,
    path: Path,
    digest: 'hashlib._Hash',
    have: int,
  ) -> bool:
    expected = _total_size(response, have)
    came = have
    with path.open('ab') as file:
      while chunk := response.read1(_CHUNK):
        if came == 0 and not chunk.startswith(_GZIP[: len(chunk)]):
          kind = response.headers.get_content_type()
          raise UserError(
            f'{archive.name}: {archive.url} returns {kind} instead of an archive; the link may '
            f'have moved: {constants.manual_download(archive.name)}'
          )
        if self._stop.is_set():
          raise _Canceled
        file.write(chunk)
        digest.update(chunk)
        came += len(chunk)
        self._on_bytes(len(chunk))
    return came > 0 and expected in (None, came)

  def _restart(self, path: Path) -> None:
    self._on_bytes(-path.stat().st_size)
    path.unlink()
    raise _Restart


class _Restart(Exception):
  """Raised if a server cannot resume a file where it ends."""


def _total_size(response: http.client.HTTPResponse, have: int) -> int | None:
  """Returns the size of the complete file, or None if the response does not tell."""
  if response.status == 206:
    total = response.headers.get('Content-Range', '').rpartition('/')[2]
    return int(total) if total.isdigit() else None
  length = response.headers.get('Content-Length', '')
  return have + int(length) if length.isdigit() else None


def _reason(error: Exception, archive: Archive) -> str:
  """Returns a description of an error; raises UserError if another try cannot help."""
  if isinstance(error, urllib.error.HTTPError):
    if error.code in _GONE:
      raise UserError(
        f'{archive.name}: {archive.url} is no longer available ({error.code} {error.reason}): '
        f'{constants.manual_download(archive.name)}'
      ) from error
    return f'the server answers {error.code} {error.reason}'
  if isinstance(error, TimeoutError):
    return 'no data arrived in time'
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    raise error
  return str(getattr(error, 'reason', error)) or type(error).__name__


def _hash_existing(digest: 'hashlib._Hash', path: Path) -> int:
  """Update the digest with the existing part of a file; returns its size in bytes."""
  if not path.exists():
    return 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
  return path.stat().st_size


def partial_file(path: Path) -> Path:
  """Returns the path of an archive during its download."""
  return path.with_name(path.name + '.part')


def rejected_file(path: Path) -> Path:
  """Returns the path at which an archive with a wrong MD5 is kept."""
  return path.with_name(path.name + '.bad')


def md5(path: Path) -> str:
  """Returns the MD5 of a file in hexadecimal."""
  with path.open('rb') as file:
    found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
  return found.hexdigest()


def archive_size(archive: Archive, retries: RetryPolicy) -> int | None:
  """Returns the size of an archive in bytes, or None if the server does not tell."""
  request = urllib.request.Request(archive.url, method='HEAD')
  try:
    with urllib.request.urlopen(request, timeout=retries.timeout) as response:
      length = response.headers.get('Content-Length', '')
  except (OSError, http.client.HTTPException):
    return None
  return int(length) if length.isdigit() else None


def check_space(output: Path, archives: Sequence[Archive], sizes: Sequence[int | None]) -> int:
  """Returns the total size in bytes; raises UserError if the disk has too little space for it."""
  usual = constants.TOTAL_GIGABYTES * 10**9 // len(constants.ARCHIVES)
  whole = [usual if known is None else known for known in sizes]
  names = [output / archive.name for archive in archives]
  here = [path for name in names for path in (name, partial_file(name)) if path.is_file()]
  missing = sum(whole) - sum(path.stat().st_size for path in here)
  free = shutil.disk_usage(output).free
  if missing > free:
    raise UserError(
      f'{output}: the download needs {missing / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; '
      'free some space, or choose another folder'
    )
  return sum(whole)


def fetch_table(url: str, path: Path, retries: RetryPolicy) -> None:
  """Download a table, for which no MD5 is published; raises UserError if it is not valid."""
  try:
    with urllib.request.urlopen(url, timeout=retries.timeout) as response:
      content = response.read(_LARGEST_TABLE)
  except (OSError, http.client.HTTPException) as error:
    raise UserError(f'{path.name}: cannot be downloaded ({flat(error)})') from error
  save_table(content, path)


def save_table(content: bytes, path: Path) -> None:
  """Write a table to `path` if it is valid; raises UserError otherwise."""
  with atomic(path) as temporary:
    temporary.write_bytes(content)
    metadata.check(temporary, path.name)


def copy_archive(source: Path, archive: Archive, output: Path) -> None:
  """Copy an archive from disk unless it exists; raises UserError if it is damaged."""
  target = output / archive.name
  if target.is_file() and md5(target) == archive.md5:
    return
  if not source.is_file():
    raise UserError(f'{source}: no such file; {constants.manual_download(archive.name)}')
  found, size, free = md5(source), source.stat().st_size, shutil.disk_usage(output).free
  if found != archive.md5:
    raise UserError(
      f'{source}: has MD5 {found}, but the publisher lists {archive.md5}; download it again'
    )
  if size > free:
    raise UserError(
      f'{output}: {source.name} has {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; '
      'free some space, or choose another folder'
    )
  with atomic(target) as temporary:
    shutil.copyfile(source, temporary)
