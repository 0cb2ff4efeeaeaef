"""Read and write image files: 8- and 16-bit PNG and TIFF, 8-bit JPEG; read DICOM.

An image in memory is uint8 or uint16 [h, w, c] with c = 1 (gray) or 3 (RGB). RGB that holds only
gray is gray; an alpha channel is dropped. Nothing is ever converted to another depth in silence.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from jaxsr.data import dicom
from jaxsr.data.dicom import File
from jaxsr.errors import ImageError, UserError, one_line
from jaxsr.files import atomic

Raw = UInt[np.ndarray, 'h w c']

FORMATS = ('PNG', 'JPEG', 'TIFF')
SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')
MAX_PIXELS = 64 * 2**20  # a bomb decodes to gigabytes; the largest detectors have 16 million
Image.MAX_IMAGE_PIXELS = None  # ours is checked instead, before anything is decoded
_JPEG = ('.jpg', '.jpeg')
_TIFF_DESCRIPTION = 270
_PACKED = 4  # of 9: 26 ms for a film of 1024x1024 where the usual 6 takes 71, for 4 % more bytes
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_COLOUR = ('RGB', 'RGBA', 'RGBX', 'P')
_GRAY = ('L', 'LA', 'I', *_SIXTEEN_BIT)


def find(root: str | Path) -> list[Path]:
  """List the image files below a folder, sorted; a file stands for itself.

  Links are followed, each folder once. Raises UserError where there is nothing to read.
  """
  root = Path(root)
  if not root.exists():
    raise UserError(f'{root}: no such file or folder')
  if root.is_file():
    return [root]
  paths = sorted(_walk(root))
  if not paths:
    raise UserError(f'{root}: holds no image ({", ".join(SUFFIXES)})')
  return paths


def _walk(root: Path) -> Iterator[Path]:
  seen = set()
  for folder, folders, files in os.walk(root, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    for name in files:
      if not name.startswith('.') and _is_image(path := Path(folder, name)):
        yield path


def _is_image(path: Path) -> bool:
  """Tell by a file's suffix; DICOM files often have none, or a number of their identifier."""
  if _has_suffix(path) or not path.is_file():
    return path.suffix.lower() in (*SUFFIXES, *dicom.SUFFIXES)
  try:
    with path.open('rb') as file:
      return dicom.recognise(file)
  except OSError:
    return False


def _has_suffix(path: Path) -> bool:
  return bool(path.suffix) and not path.suffix[1:].isdigit()


def check(path: Path, channels: int = 1) -> tuple[int, int, int]:
  """Check a file without decoding it; return its height, width and bits a channel.

  Finds what headers and the last bytes tell: another format, a truncated file, a bomb. Colour
  where gray is due is found by decoding, and only files that may be colour are decoded.
  """
  with _file(path) as file:
    if dicom.recognise(file):
      found = dicom.check(file, path)
      _check_size(path, *found[:2])
      return found
    with _open(file, path) as image:
      width, height = image.size
      bits = 16 if image.mode in ('I', *_SIXTEEN_BIT) else 8
      may_be_colour = image.mode in _COLOUR
  if may_be_colour and channels == 1:
    read(path, channels)
  return height, width, bits


def read(path: Path, channels: int = 1) -> Raw:
  """Decode a file to `channels` channels.

  Raises ImageError for a file that is damaged, too large, in colour where gray is due, or of a
  kind that would lose depth (16-bit colour, floats).
  """
  with _file(path) as file:
    return decode(file, path, channels)


def decode(file: File, path: Path, channels: int = 1) -> Raw:
  """Decode an open file, which `path` is the name of, as `read` does."""
  if dicom.recognise(file):
    _check_size(path, *dicom.check(file, path)[:2])
    file.seek(0)
    return np.repeat(dicom.read(file, path), channels, axis=2)
  with _open(file, path) as image:
    try:
      array = _pixels(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, zlib.error, struct.error, ...
      raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
    lossy = image.format == 'JPEG'
  if array.shape[2] == 3 and channels == 1:
    spread = int((array.max(axis=2) - array.min(axis=2)).max())
    if spread > (2 if lossy else 0):  # JPEG's own colour transform rounds
      raise ImageError(path, 'is in colour where gray is due; convert it, or use config.channels=3')
    array = np.ascontiguousarray(array[..., 1:2])  # a view would keep all three in memory
  return np.repeat(array, channels, axis=2) if array.shape[2] < channels else array


def _file(path: Path) -> File:
  if not path.is_file():
    raise ImageError(path, 'is no regular file')
  try:
    return path.open('rb')
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error


def _open(file: File, path: Path) -> Image.Image:
  _check_bytes(file, path)
  try:
    image = Image.open(file, formats=FORMATS)
  except Exception as error:
    kinds = ', '.join((*FORMATS, 'DICOM'))
    raise ImageError(path, f'is no image of a kind that is read here ({kinds})') from error
  try:
    _check_header(path, image)
  except ImageError:
    image.close()
    raise
  return image


def _check_bytes(file: File, path: Path) -> None:
  """Refuse an empty or truncated file and 16-bit colour, which Pillow would cut to 8 bit."""
  try:
    head = file.read(26)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 12, 0))
    tail = file.read()
    file.seek(0)
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error
  if size == 0:
    raise ImageError(path, 'is empty (0 bytes)')
  if not head.startswith(b'\x89PNG'):
    return
  if b'IEND' not in tail:
    raise ImageError(path, 'is truncated (its last bytes are no PNG end); fetch it again')
  if len(head) == 26 and head[24] == 16 and head[25] != 0:
    raise ImageError(path, 'is 16-bit with colour or alpha; save it as 16-bit gray')


def _check_size(path: Path, height: int, width: int) -> None:
  if width * height > MAX_PIXELS:
    raise ImageError(path, f'has {width}x{height} pixels, more than {MAX_PIXELS}; cut it first')


def _check_header(path: Path, image: Image.Image) -> None:
  _check_size(path, *image.size[::-1])
  if getattr(image, 'n_frames', 1) > 1:
    raise ImageError(path, f'holds {getattr(image, "n_frames", 0)} frames; split it first')
  if image.mode not in (*_GRAY, *_COLOUR, '1'):
    raise ImageError(path, f'has pixels of kind {image.mode!r}; save it as 8- or 16-bit gray')


def _pixels(image: Image.Image) -> Raw:
  if image.mode in _SIXTEEN_BIT:
    array = np.asarray(image).astype(np.uint16)
  elif image.mode == 'I':  # how some Pillow versions open 16-bit files
    array = np.asarray(image)
    if array.min() < 0 or array.max() > 65535:
      raise ValueError(f'values {array.min()} to {array.max()} do not fit 16 bit')
    array = array.astype(np.uint16)
  elif image.mode in _COLOUR:
    array = np.asarray(image.convert('RGB'))
  else:
    array = np.asarray(image.convert('L'))
  return array[..., None] if array.ndim == 2 else array


def written_as(path: Path) -> Path:
  """Name the file that an image is written to which was read from one of this name.

  DICOM, which is only read, becomes PNG. Raises UserError for a suffix of no image.
  """
  if path.suffix.lower() in SUFFIXES:
    return path
  if not _has_suffix(path):
    return path.with_name(f'{path.name}.png')
  if path.suffix.lower() in dicom.SUFFIXES:
    return path.with_suffix('.png')
  raise UserError(f'{path}: ends in none of {", ".join((*SUFFIXES, *dicom.SUFFIXES))}')


def check_target(path: Path, array: Raw) -> None:
  """Raise ImageError where a file of this name cannot hold the array at its depth."""
  if array.dtype != np.uint8 and path.suffix.lower() in _JPEG:
    raise ImageError(path, 'JPEG holds 8 bit, the image has 16; name it .png or .tif')
  if array.dtype != np.uint8 and array.shape[2] != 1:
    raise ImageError(path, '16-bit colour cannot be written; use a network of 1 channel')


def write(path: Path, array: Raw, note: str = '') -> None:
  """Write an image whole or not at all; the suffix chooses the format.

  `note` is written into the file as its comment. Raises ImageError as `check_target` does.
  """
  check_target(path, array)
  image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
  kind = Image.registered_extensions()[path.suffix.lower()]
  with atomic(path) as temporary:
    image.save(temporary, format=kind, **_options(kind, note))


def _options(kind: str, note: str) -> dict[str, Any]:
  """Give Pillow's options for a format with a comment."""
  if kind == 'JPEG':
    return {'quality': 95} | ({'comment': note} if note else {})
  if kind == 'TIFF':
    return {'tiffinfo': {_TIFF_DESCRIPTION: note}} if note else {}
  text = PngInfo()
  if note:
    text.add_text('Comment', note)
  return {'compress_level': _PACKED, 'pnginfo': text}


def read_note(path: Path) -> str:
  """Read the comment that `write` put into a file; '' where there is none."""
  try:
    with Image.open(path, formats=FORMATS) as image:
      found = image.info.get('Comment') or image.info.get('comment') or b''
      if isinstance(image, TiffImageFile):
        found = image.tag_v2.get(_TIFF_DESCRIPTION, '')
  except Exception:  # a file that is no image has none
    return ''
  return found.decode(errors='replace') if isinstance(found, bytes) else str(found)
