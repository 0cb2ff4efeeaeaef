"""Atomic writes, locks, CSV, JSON, and SHA-256 sums of files.

`SHA256SUMS` lists the files of a folder at the time of writing, in the format of `sha256sum -c`.
Files whose names start with a dot, and files that file managers add, are not listed.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

try:
  import fcntl
except ImportError:  # on Windows
  fcntl: Any = None

from jaxsr import runtime
from jaxsr.errors import UserError, WriteError, warn

MANIFEST = 'SHA256SUMS'

_STRAYS = ('thumbs.db', 'ehthumbs.db', 'desktop.ini')  # files that file managers add to a folder
_HOLDER = re.compile(r'process \d+ on .+ since .+')  # the content of a lock
_swept: set[Path] = set()  # once per process and folder
_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


def make_folder(folder: Path) -> None:
  """Create a folder; raises UserError if it cannot be written to.

  Temporary files that a killed process of this machine left there are deleted.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(f'{folder}: cannot be written ({error.strerror})') from error
  if folder not in _swept:
    _swept.add(folder)
    _sweep(folder)


def _temporary_prefix() -> str:
  """Returns how the names of temporary files begin: they say which process they belong to."""
  return f'.jaxsr-{runtime.machine()}-{os.getpid()}-'


def _sweep(folder: Path) -> None:
  """Delete the temporary files and folders of processes of this machine that have ended."""
  prefix = f'.jaxsr-{runtime.machine()}-'
  for path in folder.glob(f'{prefix}*'):
    number = path.name.removeprefix(prefix).partition('-')[0]
    if number.isdecimal() and not runtime.is_running(int(number)):
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic(path: Path, *, replace: bool = True) -> Iterator[Path]:
  """Yield a temporary path in the same folder; rename it to `path` if no error is raised.

  Raises FileExistsError if there is a file by then, and `replace` is False.
  """
  try:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_temporary_prefix())
  except OSError as error:  # of the folder, with the temporary name
    error.filename = str(path)
    raise
  os.close(handle)
  temporary = Path(name)
  try:
    yield temporary
    temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes private files
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    if replace:
      temporary.replace(path)
    else:
      _rename_to_new(temporary, path)
  except OSError as error:
    _rename_in(error, temporary, path)
    raise
  finally:
    temporary.unlink(missing_ok=True)


def _rename_to_new(temporary: Path, path: Path) -> None:
  """Rename a file unless the name is taken, which `rename` does not notice and `link` does."""
  try:
    os.link(temporary, path)
  except FileExistsError:
    raise
  except OSError:  # of file systems without hard links
    if os.path.lexists(path):
      raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    temporary.replace(path)


def _rename_in(error: OSError, temporary: Path, path: Path) -> None:
  """Put the final path into an error: of a full disk, the system says none or a temporary one."""
  if error.errno is not None and Path(str(error.filename or temporary)).is_relative_to(temporary):
    error.filename = str(path)


def release(path: Path) -> None:
  """Write a file to the disk, and drop it from the page cache if the system supports that.

  A large file that is written once then does not displace files that are read again.
  """
  with path.open('rb') as file:
    os.fsync(file.fileno())
    if hasattr(os, 'posix_fadvise'):
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync(folder: Path) -> None:
  """Write all files below a folder to the disk, and the names in its folders."""
  for place, _, names in os.walk(folder):
    for name in (*names, ''):
      sync_one(Path(place, name))


def sync_one(path: Path) -> None:
  """Write a file, or the names in a folder, to the disk, which takes up to half a minute else."""
  number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
  try:
    os.fsync(number)
  except OSError as error:
    if error.errno != errno.EINVAL:  # of file systems without `fsync` of folders
      raise
  finally:
    os.close(number)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
  """Yield a temporary folder beside `path`; rename it to `path` if no error is raised.

  Raises UserError if `path` exists already or cannot be written.
  """
  if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
    raise UserError(f'{path}: exists already; choose a new folder')
  make_folder(path.parent)
  temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_temporary_prefix()))
  try:
    yield temporary
    temporary.chmod(0o777 & ~_UMASK)  # mkdtemp makes private folders
    temporary.replace(path)
  except OSError as error:
    _rename_in(error, temporary, path)
    raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
  """Add the name of a file to each OSError inside the block; errors of writing have none."""
  try:
    yield
  except OSError as error:
    error.filename = error.filename or str(path)
    raise


def absolute(path: Path) -> Path:
  """Returns a path that stays the same if a folder above the current one is renamed."""
  try:
    return path.absolute()
  except OSError as error:
    raise UserError(f'{path}: the current folder was removed; change to another') from error


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[Callable[[], None]]:
  """Hold an exclusive lock on a folder; the system releases it even if the process is killed.

  The lock is advisory and as reliable as the `flock` of the file system. The folder itself is
  locked as well if the file system supports that, so that deleting the file `lock` changes nothing.
  Raises UserError if another process holds it, if the system has no `flock`, or if jaxsr did not
  write the file `lock`.

  Yields:
    A function that raises UserError if the lock no longer protects the folder.
  """
  if fcntl is None:
    raise UserError('training and preparing data need Linux or macOS')
  path, alone = workdir / 'lock', fcntl.LOCK_EX | fcntl.LOCK_NB
  with _open_lock(path) as file, _opened(workdir) as folder:
    try:
      file_locked = _try_lock(file.fileno(), alone)
      folder_locked = _try_lock(folder, alone)
    except BlockingIOError as error:
      holder = _holder(file)
      holder = holder if _HOLDER.fullmatch(holder) else 'another process'
      text = f'{workdir}: is in use by {holder}; stop it, or choose another folder'
      raise UserError(text) from error

    if (content := _holder(file)) and not _HOLDER.fullmatch(content):
      raise UserError(f'{path}: was not written by jaxsr; move it away, or choose another folder')
    if not (file_locked or folder_locked):
      warn(f'warning: the file system of {workdir} has no locks: start no other process there')

    def check() -> None:
      if not _is_open_as(folder, workdir):
        raise WriteError(f'{workdir}: was moved or deleted while it was in use; run again there')
      if file_locked and not folder_locked and not _is_open_as(file.fileno(), path):
        raise UserError(f'{path}: was deleted, so another process may use the folder; run again')

    file.seek(0)
    file.truncate()
    since = time.strftime('%Y-%m-%d %H:%M:%S %z')
    file.write(f'process {os.getpid()} on {socket.gethostname()} since {since}')
    file.flush()
    yield check
    file.truncate(0)


def _open_lock(path: Path) -> TextIO:
  """Open or create a lock; raises UserError for a link, pipe or folder, which is no lock."""
  flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
  error = UserError(f'{path}: is not a regular file; move it away, or choose another folder')
  try:
    number = os.open(path, flags, 0o666)
  except OSError as refusal:
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
      raise error from refusal
    raise
  if not stat.S_ISREG(os.fstat(number).st_mode):
    os.close(number)
    raise error
  return os.fdopen(number, 'r+', encoding='utf-8', errors='replace')


def _holder(lock: TextIO) -> str:
  """Returns the beginning of a lock, without the zeros that a power failure leaves."""
  lock.seek(0)
  return lock.read(1000).strip('\0 \n')


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
  """Lock a folder while its files are written together; the folder is created.

  If it is still empty at the end, a folder that did not exist is removed again. Nothing is locked
  if the file system does not support it. Raises UserError if another process holds the lock.
  """
  existed = folder.exists()
  make_folder(folder)
  with _opened(folder) as number:
    try:
      if fcntl is not None:
        _try_lock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      text = f'{folder}: another process writes there; wait for it, or choose another folder'
      raise UserError(text) from error
    try:
      yield
    finally:
      if not existed:
        with contextlib.suppress(OSError):  # files lie in it
          folder.rmdir()


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
  """Yield a descriptor of a folder."""
  number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
  try:
    yield number
  finally:
    os.close(number)


def _try_lock(opened: int, mode: int) -> bool:
  """Lock an open file or folder; returns whether its file system supports that."""
  try:
    fcntl.flock(opened, mode)
  except BlockingIOError:
    raise
  except OSError:
    return False
  return True


def _is_open_as(number: int, path: Path) -> bool:
  """Whether a path still is the file or folder of a descriptor."""
  try:
    return os.path.samestat(os.fstat(number), path.stat())
  except OSError:
    return False


def real(path: Path) -> Path:
  """Returns a path without links; unlike `Path.resolve`, links in a circle are no error."""
  return Path(os.path.realpath(path))


def check_regular(path: Path) -> None:
  """Raise ValueError if a path is a pipe or a device, which reading would wait for forever."""
  if path.exists() and not (path.is_file() or path.is_dir()):
    raise ValueError(f'{path}: is not a regular file')


def write_text(path: Path, text: str) -> None:
  """Write a text file."""
  with atomic(path) as temporary:
    temporary.write_text(text, encoding='utf-8', errors='surrogateescape')


def write_json(path: Path, value: Any) -> None:
  """Write a JSON file; raises ValueError for NaN and infinity, which JSON does not have."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
  """Read a JSON file, with or without a byte order mark; raises ValueError if it is none."""
  check_regular(path)
  try:
    return json.loads(path.read_text(encoding='utf-8-sig'))
  except RecursionError as error:  # brackets in brackets
    raise ValueError(f'{path}: is nested too deeply') from error


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
  """Raise ValueError with the name of a file that is missing or differs.

  Files that were added are ignored: file managers, file servers and synchronization leave theirs.
  """
  path = folder / MANIFEST
  if not path.is_file():
    raise ValueError(f'{MANIFEST} is missing')
  *lines, rest = path.read_bytes().decode(errors='surrogateescape').split('\n')
  if rest or not lines:
    raise ValueError(f'{MANIFEST} differs from what was written')
  for line in lines:
    expected, _, name = line.partition('  ')
    file = folder / name
    if not (name and file.is_file() and sha256(file) == expected):
      shown = name.encode(errors='replace').decode() or MANIFEST
      raise ValueError(f'{shown} differs from what was written')


def _render(folder: Path) -> str:
  found = (
    Path(place, name) for place, _, names in os.walk(folder, onerror=_fail) for name in names
  )
  files = [path for path in sorted(found) if path.is_file() and path.name != MANIFEST]
  own = [p for p in files if not p.name.startswith('.') and p.name.lower() not in _STRAYS]
  return ''.join(f'{sha256(path)}  {path.relative_to(folder)}\n' for path in own)


def _fail(error: OSError) -> NoReturn:
  """Raise the error of a folder that cannot be listed, which would look like an empty one."""
  raise error


def sha256(path: Path) -> str:
  """Compute the SHA-256 of a file, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def digest_json(value: Any) -> str:
  """Compute a short digest of a value as JSON, which is the same after it was written and read."""
  text = json.dumps(value, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_arrays(tensors: Sequence[dict[str, np.ndarray]], described: Any) -> str:
  """Compute a short digest of named arrays and of the `repr` of their description."""
  found = hashlib.sha256(repr(described).encode())
  for each in tensors:
    for name in sorted(each):
      found.update(name.encode())
      found.update(each[name].tobytes())
  return found.hexdigest()[:16]
