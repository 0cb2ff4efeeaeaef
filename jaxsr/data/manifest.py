"""The SHA-256 of every file of a folder of images, checked when an image is read.

JPEG and TIFF hold no checksum, so a flipped bit is read as other pixels. `jaxsr data hash DIR`
writes the sums to `SHA256SUMS` in the folder, in the format of `sha256sum -c`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxsr import files
from jaxsr.data import image_files, remarks
from jaxsr.errors import ImageError, UserError, brief, count
from jaxsr.files import MANIFEST

_MOST = 256 * 2**20  # bytes; the sums of NIH ChestX-ray14 take 10 million


def write(root: Path) -> tuple[int, list[ImageError]]:
  """Write the sums of the images below a folder, unless it has none that can be read.

  Returns how many sums there are, and an error for each file that is left out.
  """
  if not root.is_dir():
    raise UserError(f'{root}: is not a folder')
  lines, left_out = [], []
  for path in image_files.find(root):
    try:
      lines.append(f'{_sum(path)}  {_name(path, root)}\n')
    except ImageError as error:
      left_out.append(error)
  if lines:
    files.write_text(root / MANIFEST, ''.join(lines))
  return len(lines), left_out


def _sum(path: Path) -> str:
  """Returns the SHA-256 of a file; raises ImageError if it is no regular file or not readable."""
  image_files.open_file(path).close()
  try:
    return files.sha256(path)
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error


def _name(path: Path, root: Path) -> str:
  """Returns the name of a file in the list; raises ImageError for one that takes several lines."""
  name = str(path.relative_to(root))
  if '\n' in name or '\r' in name:
    raise ImageError(path, f'has a line break in its name, which {MANIFEST} cannot hold; rename it')
  return name


def read(root: Path) -> dict[str, str]:
  """Read the sums of a folder by file name; empty if it has none."""
  path = root / MANIFEST
  if not path.exists():
    return {}
  if not path.is_file():
    raise UserError(f'{path}: is not a regular file; remove it')
  if path.stat().st_size > _MOST:
    raise UserError(f'{path}: has more than {_MOST >> 20} MiB, so is no list of sums; delete it')
  sums = {}
  text = path.read_bytes().decode(errors='surrogateescape').replace('\r\n', '\n')
  for number, line in enumerate(text.removesuffix('\n').split('\n') if text else (), start=1):
    value, _, name = line.partition(' ')
    if len(value) != 64 or name[:1] not in (' ', '*'):
      raise UserError(f'{path}: line {number} is not a SHA-256 and a name; delete the file')
    sums[name[1:].removeprefix('./')] = value.lower()
  return sums


def missing(root: Path, sums: Mapping[str, str]) -> list[ImageError]:
  """Returns an error for each file that has a sum and does not exist."""
  lost = [root / name for name in sums if not os.path.exists(root / name)]
  return [ImageError(path, f'is missing, but {MANIFEST} lists it') for path in lost]


def remark_unlisted(root: Path, sums: Mapping[str, str], paths: Sequence[Path]) -> None:
  """Print how many images have no sum, so are not checked, if the folder has sums at all."""
  if not (root / MANIFEST).exists():
    return
  unlisted = [name for path in paths if (name := str(path.relative_to(root))) not in sums]
  if unlisted:
    text = (
      f'{count(len(unlisted), "image")} not in {MANIFEST}, not checked: {brief(unlisted, most=3)}'
    )
    remarks.add(root, 'unlisted', text)


def check(root: Path, sums: Mapping[str, str], path: Path) -> None:
  """Raise ImageError if a file is not the one that was hashed; files without a sum pass."""
  if not sums:
    return
  expected = sums.get(str(path.relative_to(root)))
  if expected and _sum(path) != expected:
    raise ImageError(path, f'differs from its SHA-256 in {MANIFEST}')


def compare(root: Path) -> list[str]:
  """Describe how the images below a folder differ from its sums, one line per image."""
  sums, found = read(root), image_files.find(root)
  errors = missing(root, sums)
  lost = {error.path for error in errors}
  for path in found:
    try:
      if _name(path, root) not in sums:
        raise ImageError(path, f'is not in {MANIFEST}')
      if path not in lost:
        check(root, sums, path)
    except ImageError as error:
      errors.append(error)
  return [str(error) for error in errors]
