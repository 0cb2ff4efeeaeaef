"""Atomic writes, locks, CSV, JSON, and SHA-256 sums of files.

`SHA256SUMS` lists the files of a folder at the time of writing, in the format of `sha256sum -c`.
Files whose names start with a dot are not listed.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxsr.errors import UserError

MANIFEST = 'SHA256SUMS'

_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


def make_folder(folder: Path) -> None:
  """Create a folder; raises UserError if it cannot be written to."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f'{folder}: cannot be written ({error.strerror})') from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
  """Yield a temporary path in the same folder; rename it to `path` if no error is raised."""
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:64]}.')
  os.close(handle)
  temporary = Path(name)
  try:
    yield temporary
    temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes private files
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def release(path: Path) -> None:
  """Write a file to the disk, and drop it from the page cache if the system supports that.

  A large file that is written once then does not displace files that are read again.
  """
  with path.open('rb') as file:
    os.fsync(file.fileno())
    if hasattr(os, 'posix_fadvise'):
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
  """Yield a temporary folder beside `path`; rename it to `path` if no error is raised.

  Raises UserError if `path` exists already or cannot be written.
  """
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise UserError(f'{path}: exists already; choose a new folder')
  make_folder(path.parent)
  temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name[:64]}.'))
  try:
    yield temporary
    temporary.chmod(0o777 & ~_UMASK)  # mkdtemp makes private folders
    temporary.replace(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
  """Hold an exclusive lock on a folder; the system releases it even if the process is killed.

  The lock is advisory and as reliable as the `flock` of the file system. Raises UserError if
  another process holds it, or if the system has no `flock`.
  """
  try:
    import fcntl
  except ImportError as error:
    raise UserError('training and preparing data need Linux or macOS') from error
  with (workdir / 'lock').open('a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      text = f'{workdir}: is in use by {holder}; stop it, or choose another folder'
      raise UserError(text) from error
    file.truncate(0)
    since = time.strftime('%Y-%m-%d %H:%M:%S %z')
    file.write(f'process {os.getpid()} on {socket.gethostname()} since {since}')
    file.flush()
    yield
    file.truncate(0)


def write_text(path: Path, text: str) -> None:
  """Write a text file."""
  with atomic(path) as temporary:
    temporary.write_text(text, encoding='utf-8', errors='surrogateescape')


def write_json(path: Path, value: Any) -> None:
  """Write a JSON file; raises ValueError for NaN and infinity, which JSON does not have."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
  """Returns rows as the text of a CSV file with a header."""
  text = io.StringIO()
  names = dict.fromkeys(name for row in rows for name in row)
  writer = csv.DictWriter(text, list(names), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def write_manifest(folder: Path) -> None:
  """Write `SHA256SUMS` of every file below a folder."""
  write_text(folder / MANIFEST, _render(folder))


def verify_manifest(folder: Path) -> None:
  """Raise ValueError with the name of a file that is missing, differs or was added."""
  path = folder / MANIFEST
  if not path.is_file():
    raise ValueError(f'{MANIFEST} is missing')
  written, found = path.read_bytes(), _render(folder).encode()
  if written == found:
    return
  changed = set(written.split(b'\n')) ^ set(found.split(b'\n'))
  names = sorted(line.partition(b'  ')[2].decode(errors='replace') for line in changed)
  raise ValueError(f'{names[-1] if names else MANIFEST} differs from what was written')


def _render(folder: Path) -> str:
  files = [path for path in sorted(folder.rglob('*')) if path.is_file() and path.name != MANIFEST]
  own = [path for path in files if not path.name.startswith('.')]
  return ''.join(f'{sha256(path)}  {path.relative_to(folder)}\n' for path in own)


def sha256(path: Path) -> str:
  """Compute the SHA-256 of a file, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def digest_arrays(tensors: Sequence[dict[str, np.ndarray]], described: Any) -> str:
  """Compute a short digest of named arrays and of the `repr` of their description."""
  found = hashlib.sha256(repr(described).encode())
  for each in tensors:
    for name in sorted(each):
      found.update(name.encode())
      found.update(each[name].tobytes())
  return found.hexdigest()[:16]
