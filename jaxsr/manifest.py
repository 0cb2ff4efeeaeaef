"""SHA256SUMS: what a folder's files held when they were written (`sha256sum -c` reads it too).

Files whose names start with a dot are not a folder's own and do not count.
"""

import hashlib
from pathlib import Path

from jaxsr.files import write_text

NAME = 'SHA256SUMS'


def write(folder: Path) -> None:
  """List every file below a folder."""
  write_text(folder / NAME, _render(folder))


def verify(folder: Path) -> None:
  """Raise ValueError that names the first file which is missing, differs or came later."""
  path = folder / NAME
  if not path.is_file():
    raise ValueError(f'{NAME} is missing')
  written, found = path.read_bytes(), _render(folder).encode()
  if written == found:
    return
  changed = set(written.split(b'\n')) ^ set(found.split(b'\n'))
  names = sorted(line.partition(b'  ')[2].decode(errors='replace') for line in changed)
  raise ValueError(f'{names[-1] if names else NAME} is not what was written')


def _render(folder: Path) -> str:
  files = [path for path in sorted(folder.rglob('*')) if path.is_file() and path.name != NAME]
  own = [path for path in files if not path.name.startswith('.')]
  return ''.join(f'{digest(path)}  {path.relative_to(folder)}\n' for path in own)


def digest(path: Path) -> str:
  """Compute the SHA-256 of a file, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
