"""Fetch the archives: resumed, side by side, and believed only by the publisher's MD5.

A file gets its name when its sum is right; until then it is `NAME.part`, which a later call goes
on with. One whose sum is wrong twice is kept as `NAME.bad` for inspection. MD5 tells damage, not
malice; nothing in an archive is believed later either.
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

TRIES = 8  # without a new byte in between
_CHUNK = 1 << 20
_LARGEST_TABLE = 64 << 20
_GONE = (401, 403, 404, 410)
_GZIP = b'\x1f\x8b'


class RetryPolicy(NamedTuple):
  """How long to wait, in seconds: for a byte, and before a second try (doubled each time)."""

  timeout: float = 60.0
  first_wait: float = 1.0
  longest_wait: float = 60.0


class _Cancelled(Exception):
  """Says that another thread was told to stop."""


class Fetcher:
  """Fetches archives into a folder; `on_bytes` is called with each number of bytes that came."""

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
    """Fetch side by side; return for each archive that failed what to do about it."""
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
    """Fetch one archive, if it is not there; raises UserError where it cannot be had."""
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
          f'{archive.name}: has MD5 {found}, the publisher says {archive.md5}; it is kept as '
          f'{path.name}.bad; try again, or {constants.manual_download(archive.name)}'
        )
      self._on_bytes(-partial_file(path).stat().st_size)
      partial_file(path).unlink()

  def _receive(self, archive: Archive, path: Path) -> str:
    """Go on until a file is whole; return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    self._on_bytes(_hash_existing(digest, path))
    tries, restarts, wait = 0, 0, self._retries.first_wait
    while True:
      before = path.stat().st_size if path.exists() else 0
      try:
        if self._request_rest(archive, path, digest):
          return digest.hexdigest()
        reason = 'the connection was cut'
      except _Restart:
        digest = hashlib.md5(usedforsecurity=False)
        restarts += 1
        reason, before = 'the server begins again each time', 0
      except (OSError, http.client.HTTPException) as error:
        reason = _reason(error, archive)
      came = (path.stat().st_size if path.exists() else 0) > before
      tries, wait = (1, self._retries.first_wait) if came else (tries + 1, wait)
      if max(tries, restarts) >= TRIES:
        raise UserError(
          f'{archive.name}: {reason}, {TRIES} times; the same command goes on from '
          f'{before // 10**6} MB; or {constants.manual_download(archive.name)}'
        )
      if self._stop.wait(wait):
        raise _Cancelled
      wait = min(2 * wait, self._retries.longest_wait)

  def _request_rest(self, archive: Archive, path: Path, digest: 'hashlib._Hash') -> bool:
    """Ask for what is missing and append it; tell whether all of it came."""
    have = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(archive.url, headers={'Accept-Encoding': 'identity'})
    if have:
      request.add_header('Range', f'bytes={have}-')
    try:
      response = urllib.request.urlopen(request, timeout=self._retries.timeout)
    except urllib.error.HTTPError as error:
      if error.code == 416 and have:  # nothing is missing, or what is here is not of this file
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
            f'{archive.name}: {archive.url} gives no archive but {kind}; the link may have '
            f'moved: {constants.manual_download(archive.name)}'
          )
        if self._stop.is_set():
          raise _Cancelled
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
  """Says that a server does not go on where a file ends."""


def _total_size(response: http.client.HTTPResponse, have: int) -> int | None:
  """Tell how long a file is that a response gives the rest of."""
  if response.status == 206:
    total = response.headers.get('Content-Range', '').rpartition('/')[2]
    return int(total) if total.isdigit() else None
  length = response.headers.get('Content-Length', '')
  return have + int(length) if length.isdigit() else None


def _reason(error: Exception, archive: Archive) -> str:
  """Describe what went wrong; raises UserError where trying again is of no use."""
  if isinstance(error, urllib.error.HTTPError):
    if error.code in _GONE:
      raise UserError(
        f'{archive.name}: {archive.url} is not to be had any more ({error.code} {error.reason}): '
        f'{constants.manual_download(archive.name)}'
      ) from error
    return f'the server says {error.code} {error.reason}'
  if isinstance(error, TimeoutError):
    return 'nothing came in time'
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    raise error
  return str(getattr(error, 'reason', error)) or type(error).__name__


def _hash_existing(digest: 'hashlib._Hash', path: Path) -> int:
  """Hash what is there already; return how much it is."""
  if not path.exists():
    return 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      digest.update(chunk)
  return path.stat().st_size


def partial_file(path: Path) -> Path:
  """Name the file that an archive is while it comes."""
  return path.with_name(path.name + '.part')


def rejected_file(path: Path) -> Path:
  """Name the file that an archive with a wrong sum is kept as."""
  return path.with_name(path.name + '.bad')


def md5(path: Path) -> str:
  """Compute the MD5 of a file, in hexadecimal."""
  with path.open('rb') as file:
    found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
  return found.hexdigest()


def archive_size(archive: Archive, retries: RetryPolicy) -> int | None:
  """Ask how large an archive is; None where the server does not say."""
  request = urllib.request.Request(archive.url, method='HEAD')
  try:
    with urllib.request.urlopen(request, timeout=retries.timeout) as response:
      length = response.headers.get('Content-Length', '')
  except (OSError, http.client.HTTPException):
    return None
  return int(length) if length.isdigit() else None


def check_space(output: Path, archives: Sequence[Archive], sizes: Sequence[int | None]) -> int:
  """Return how many bytes there will be; raises UserError where the disk has no room for them."""
  usual = constants.TOTAL_GIGABYTES * 10**9 // len(constants.ARCHIVES)
  whole = [usual if known is None else known for known in sizes]
  names = [output / archive.name for archive in archives]
  here = [path for name in names for path in (name, partial_file(name)) if path.is_file()]
  missing = sum(whole) - sum(path.stat().st_size for path in here)
  free = shutil.disk_usage(output).free
  if missing > free:
    raise UserError(
      f'{output}: {missing / 1e9:.1f} GB are missing and {free / 1e9:.1f} GB are free; make room, '
      'or choose another place'
    )
  return sum(whole)


def fetch_table(url: str, path: Path, retries: RetryPolicy) -> None:
  """Fetch a table, which is small and has no sum; raises UserError where it is none."""
  try:
    with urllib.request.urlopen(url, timeout=retries.timeout) as response:
      content = response.read(_LARGEST_TABLE)
  except (OSError, http.client.HTTPException) as error:
    raise UserError(f'{path.name}: cannot be fetched ({flat(error)})') from error
  save_table(content, path)


def save_table(content: bytes, path: Path) -> None:
  """Write a table if it can be read as one; raises UserError otherwise."""
  with atomic(path) as temporary:
    temporary.write_bytes(content)
    metadata.check(temporary, path.name)


def copy_archive(source: Path, archive: Archive, output: Path) -> None:
  """Copy an archive that lies on disk, if it is not there; raises UserError where it is damaged."""
  target = output / archive.name
  if target.is_file() and md5(target) == archive.md5:
    return
  if not source.is_file():
    raise UserError(f'{source}: no such file; {constants.manual_download(archive.name)}')
  found, size, free = md5(source), source.stat().st_size, shutil.disk_usage(output).free
  if found != archive.md5:
    raise UserError(f'{source}: has MD5 {found}, the publisher says {archive.md5}: fetch it again')
  if size > free:
    raise UserError(f'{output}: {source.name} has {size / 1e9:.1f} GB, {free / 1e9:.1f} are free')
  with atomic(target) as temporary:
    shutil.copyfile(source, temporary)
