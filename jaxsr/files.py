"""Write files whole or not at all, and verify them.

`SHA256SUMS` lists the files that a folder held when they were written (`sha256sum -c` reads it,
too). Files whose names start with a dot are not listed.
"""

import csv
import fcntl
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
  """Make a folder; raises UserError where nothing can be written to it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f'{folder}: cannot be written ({error.strerror})') from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
  """Give a temporary name beside a file, and rename it to the file if all went well."""
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
  """Have a file safe on the disk, and out of the system's memory where the system can do that.

  The next large file then gets that memory, and what else is kept there stays.
  """
  with path.open('rb') as file:
    os.fsync(file.fileno())
    if hasattr(os, 'posix_fadvise'):
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
  """Give a temporary folder beside a new one, and rename it to that if all went well.

  Raises UserError where something is there already, or nothing can be written.
  """
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise UserError(f'{path}: is there already; choose a new folder')
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
  """Hold the folder for one trainer; the system lets go of it even if the trainer is killed.

  Raises UserError that names the holder. Advisory, and as good as the file system's `flock`.
  """
  with (workdir / 'lock').open('a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      text = f'workdir {workdir}: {holder} trains here; stop it, or choose another --workdir'
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
  """Write a JSON file; NaN and infinity, which JSON has not, are refused."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
  """Write rows as a CSV with a header."""
  text = io.StringIO()
  names = dict.fromkeys(name for row in rows for name in row)
  writer = csv.DictWriter(text, list(names), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def write_manifest(folder: Path) -> None:
  """List every file below a folder."""
  write_text(folder / MANIFEST, _render(folder))


def verify_manifest(folder: Path) -> None:
  """Raise ValueError that names the first file which is missing, differs or came later."""
  path = folder / MANIFEST
  if not path.is_file():
    raise ValueError(f'{MANIFEST} is missing')
  written, found = path.read_bytes(), _render(folder).encode()
  if written == found:
    return
  changed = set(written.split(b'\n')) ^ set(found.split(b'\n'))
  names = sorted(line.partition(b'  ')[2].decode(errors='replace') for line in changed)
  raise ValueError(f'{names[-1] if names else MANIFEST} is not what was written')


def _render(folder: Path) -> str:
  files = [path for path in sorted(folder.rglob('*')) if path.is_file() and path.name != MANIFEST]
  own = [path for path in files if not path.name.startswith('.')]
  return ''.join(f'{sha256(path)}  {path.relative_to(folder)}\n' for path in own)


def sha256(path: Path) -> str:
  """Compute the SHA-256 of a file, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def digest_arrays(tensors: Sequence[dict[str, np.ndarray]], described: Any) -> str:
  """Compute a short digest of named arrays, and of the `repr` of what describes them."""
  found = hashlib.sha256(repr(described).encode())
  for each in tensors:
    for name in sorted(each):
      found.update(name.encode())
      found.update(each[name].tobytes())
  return found.hexdigest()[:16]
