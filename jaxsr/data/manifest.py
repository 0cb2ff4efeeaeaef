"""The SHA-256 of every file of a folder of images, checked when an image is read.

JPEG and TIFF hold no checksum, so a flipped bit is read as other pixels. `jaxsr data hash DIR`
writes the sums to `SHA256SUMS` in the folder, in the format of `sha256sum -c`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxsr import files
from jaxsr.data import image_files, remarks
from jaxsr.errors import ImageError, UserError, brief, count
from jaxsr.files import MANIFEST

_MOST = 256 * 2**20  # bytes; the sums of NIH ChestX-ray14 take 10 million


def write(root: Path) -> int:
  """Write the sums of the images below a folder; returns how many there are."""
  if not root.is_dir():
    raise UserError(f'{root}: is not a folder')
  found = image_files.find(root)
  if other := [str(path.relative_to(root)) for path in found if not path.is_file()]:
    raise UserError(f'{root}: {brief(other)}: no regular file, so without a sum; remove it')
  lines = [f'{files.sha256(path)}  {path.relative_to(root)}\n' for path in found]
  files.write_text(root / MANIFEST, ''.join(lines))
  return len(found)


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
  for number, line in enumerate(
    path.read_text(encoding='utf-8', errors='surrogateescape').splitlines(), start=1
  ):
    value, _, name = line.partition(' ')
    if len(value) != 64 or name[:1] not in (' ', '*'):
      raise UserError(f'{path}: line {number} is not a SHA-256 and a name; delete the file')
    sums[name[1:].removeprefix('./')] = value.lower()
  return sums


def missing(root: Path, sums: Mapping[str, str]) -> list[ImageError]:
  """Returns an error for each file that has a sum and does not exist."""
  lost = [root / name for name in sums if not (root / name).exists()]
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
  try:
    if expected and files.sha256(path) != expected:
      raise ImageError(path, f'differs from its SHA-256 in {MANIFEST}')
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error


def compare(root: Path) -> list[str]:
  """Describe how the images below a folder differ from its sums, one line per image."""
  sums, found = read(root), image_files.find(root)
  lines = [str(error) for error in missing(root, sums)]
  for path in found:
    name = str(path.relative_to(root))
    if name not in sums:
      lines.append(f'{path}: is not in {MANIFEST}')
    elif not path.is_file():
      lines.append(f'{path}: differs from its SHA-256')
    else:
      try:
        check(root, sums, path)
      except ImageError as error:
        lines.append(str(error))
  return lines
