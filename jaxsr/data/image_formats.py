"""Formats of image files: their names, and the bytes that they begin with."""

import io
from pathlib import Path

from jaxsr.data import dicom, jpeg, raster, tiff
from jaxsr.data.dicom import File
from jaxsr.errors import ImageError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')  # of files that are written
KINDS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.tif': 'TIFF', '.tiff': 'TIFF'}
_ONLY_READ = (
  '.jfif',
  '.jpe',
  '.mpo',
  '.jls',
  '.bmp',
  '.dib',
  '.webp',
  '.btf',
  '.tf8',
  *dicom.SUFFIXES,
)
READABLE = 'PNG, TIFF, JPEG, BMP, WebP and DICOM'
_OTHERS = {  # first bytes of formats that are not read here
  b'GIF8': 'GIF',
  b'\0\0\0\x0cjP  ': 'JPEG 2000',
  b'\xff\x4f\xff\x51': 'JPEG 2000',
  b'\xff\x0a': 'JPEG XL',
  b'\0\0\0\x0cJXL ': 'JPEG XL',
  b'%PDF': 'PDF',
  b'\x1f\x8b': 'gzip',
  b'PK\x03\x04': 'ZIP',
  b'\x89HDF': 'HDF5',
  b'\x93NUMPY': 'a NumPy array',
  b'8BPS': 'Photoshop',
  b'v/1\x01': 'OpenEXR',
  b'P2': 'PGM',
  b'P5': 'PGM',
  b'P6': 'PPM',
  b'<': 'a web page or XML',
  b'version https://git-lfs': 'a pointer of Git LFS',
}
HEAD = 132  # bytes that tell a format


def is_image(path: Path) -> bool:
  """Whether a file is an image by its suffix, or else by its first bytes.

  DICOM of a kind without an image, such as a report, is none by either. A file whose content would
  decide and cannot be read may be an image.
  """
  suffix = path.suffix.lower()
  if suffix in (*SUFFIXES, *_ONLY_READ):
    return suffix not in dicom.SUFFIXES or not dicom.is_document(path)
  try:
    if not path.is_file():
      return path.is_symlink() and not path.exists()
    with path.open('rb') as file:
      head = file.read(HEAD)
      file.seek(0)
      return (
        tiff.recognize(head)
        or raster.recognize(head)
        or (dicom.recognize(file) and not dicom.is_document(path))
      )
  except OSError:
    return True


def recognize(file: File, path: Path) -> str:
  """Returns DICOM, TIFF or PNG (for all that `raster` reads); raises ImageError for others."""
  head = file.read(HEAD)
  file.seek(0)
  if head[128:132] == b'DICM':  # the bytes before it may be anything
    return 'DICOM'
  if tiff.recognize(head):
    return 'TIFF'
  if raster.recognize(head):
    return 'PNG'
  if dicom.recognize(file):
    return 'DICOM'
  if not head:
    raise ImageError(path, 'is empty (0 bytes)')
  for magic, name in _OTHERS.items():
    if head.startswith(magic):
      raise ImageError(path, f'is {name}, which is not supported ({READABLE} are); convert it')
  if head[4:8] == b'ftyp':
    raise ImageError(path, f'is HEIF or a video, not supported ({READABLE} are); convert it')
  raise ImageError(path, f'is not an image of a kind that is read here ({READABLE})')


def has_suffix(path: Path) -> bool:
  """Whether a name has a suffix; numbers at its end belong to an identifier of DICOM."""
  return bool(path.suffix) and not path.suffix[1:].isdigit()


def is_raster_name(path: Path) -> bool:
  """Whether a name has the suffix of an image that is not DICOM."""
  suffix = path.suffix.lower()
  return suffix in (*SUFFIXES, *_ONLY_READ) and suffix not in dicom.SUFFIXES


def kind(path: Path) -> str:
  """Returns the format that an image's result has: 'PNG', 'JPEG', 'TIFF' or 'DICOM'.

  It is that of the content; PNG replaces what is only read, such as BMP, WebP and lossless JPEG.
  The suffix decides for files that cannot be read.
  """
  suffix = path.suffix.lower()
  try:
    with path.open('rb') if path.is_file() else io.BytesIO() as file:
      found, head = recognize(file, path), file.read(len(jpeg.MAGIC))
      file.seek(0)
      if head == jpeg.MAGIC and (frame := jpeg.frame(file)):
        return 'PNG' if frame.is_special else 'JPEG'
      return found
  except (ImageError, OSError):
    return 'DICOM' if suffix in dicom.SUFFIXES else KINDS.get(suffix, 'PNG')


def written_as(name: Path, kind: str) -> Path:
  """Returns the name of a file for an image called `name`: with a suffix of `kind`, not DICOM.

  The suffix of another format is replaced; others are part of the name.
  """
  if KINDS.get(name.suffix.lower()) == kind:
    return name
  suffix = {'JPEG': '.jpg', 'TIFF': '.tif'}.get(kind, '.png')
  if name.suffix.lower() in (*SUFFIXES, *_ONLY_READ):
    return name.with_suffix(suffix)
  return name.with_name(f'{name.name}{suffix}')
