"""Find, read and write image files: PNG, TIFF, JPEG, BMP, WebP and DICOM; PNG, TIFF, JPEG out.

This is the one reader of every command. An image in memory is uint8 or uint16 [h, w, c] with c = 1
(gray) or 3 (RGB), upright, with black at 0. RGB that holds only gray becomes gray; depth is never
reduced. A file that cannot be read without loss or doubt raises ImageError with the reason, and
what a user should know of one that can (values of 12 bits in a 16-bit file without a tag that says
so) is printed to stderr once per file.

Example:
  >>> from jaxsr.data import image_files
  >>> image, info = image_files.load('film.tif', bits=12)  # white is 65535
  >>> image_files.write('copy.tif', image, info=info)  # white is 4095 again
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxsr.data import (
  bit_depth,
  decoded,
  dicom,
  dicom_out,
  image_formats,
  raster,
  raster_out,
  remarks,
  rows,
  seal,
  tiff,
  tiff_out,
)
from jaxsr.data.decoded import MAX_PIXELS, Decoded, ImageInfo
from jaxsr.data.dicom import File
from jaxsr.data.image_folders import find
from jaxsr.errors import ImageError, TooLargeError
from jaxsr.files import atomic

__all__ = ['MAX_PIXELS', 'ImageInfo', 'check', 'decode', 'find', 'load', 'read', 'write']

_MOST_DPI = {'JPEG': 2**16 - 1, 'PNG': 50_000_000, 'TIFF': 2**31 - 1}

NO_MEMORY = 'does not fit into memory'

Raw = UInt[np.ndarray, 'h w c']


def check(path: Path, channels: int = 1) -> tuple[int, int, int]:
  """Check a file, without decoding it if its header tells enough.

  Color where gray is due is found by decoding, and only files that may be color are decoded.

  Returns:
    Height and width of the upright image, and the bits of the array's type, 8 or 16.
  """
  with open_file(path) as file, _reading(path):
    kind = image_formats.recognize(file, path)
    if kind == 'DICOM':
      found = dicom.check(file, path)
      _check_size(path, *found[:2])
      return found
    header = (tiff if kind == 'TIFF' else raster).check(file, path)
  if header.may_be_color and channels == 1:
    read(path, channels)
  return header.height, header.width, header.bits


def read(path: str | Path, channels: int = 1, bits: int = 0) -> Raw:
  """Read a file over the whole range of its type, as `load` does."""
  return load(path, channels, bits)[0]


def load(path: str | Path, channels: int = 1, bits: int = 0) -> tuple[Raw, ImageInfo]:
  """Read a file, and what is needed to write another one like it.

  Args:
    path: The file.
    channels: 1 for gray, which color is refused for, or 3 for RGB.
    bits: The number of bits that 16-bit files hold, if they do not say it, or DICOM says too many;
      0 trusts the files.

  Returns:
    uint8 or uint16 [h, w, channels] with white at 255 or 65535, and the file's range and metadata.

  Raises:
    ImageError: The file is damaged, too large or not supported, or in color although gray is
      required.
  """
  path = Path(path)
  with open_file(path) as file:
    return _load(file, path, channels, bits)


def read_stored(path: str | Path, bits: int = 0) -> UInt[np.ndarray, 'h w'] | Raw:
  """Read the values that a file stores: 0 to 4095 if it holds 12 bits.

  DICOM, whose values have an origin of their own, is read over the whole range of its type.

  Returns:
    uint8 or uint16, [h, w] if the image is gray and [h, w, 3] if it is color.

  Raises:
    ImageError: As `load` does.
  """
  path = Path(path)
  with open_file(path) as file, _reading(path):
    pixels, _ = bit_depth.stored(_decode(file, path, bits), path, bits)
    pixels = bit_depth.as_gray(pixels, lossy=False) if pixels.shape[2] == 3 else pixels
  return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def read_bytes(path: Path, *, most: int) -> bytes:
  """Read a whole file; raises ImageError if it has more than `most` bytes or cannot be read."""
  with open_file(path) as file, _reading(path):
    content = file.read(most + 1)
  if len(content) > most:
    raise ImageError(path, f'is larger than {most >> 20} MiB')
  return content


def patient(path: Path) -> str | None:
  """Returns a hash that tells whose film a DICOM file is; None for other files."""
  with open_file(path) as file, _reading(path):
    return dicom.patient(path) if image_formats.recognize(file, path) == 'DICOM' else None


def decode(file: File, path: Path, channels: int = 1) -> Raw:
  """Decode an open file, whose name is `path`, as `read` does."""
  return _load(file, path, channels, 0)[0]


def _load(file: File, path: Path, channels: int, bits: int) -> tuple[Raw, ImageInfo]:
  with _reading(path):
    found = _decode(file, path, bits)
    array, used = bit_depth.stored(found, path, bits)
  if array.shape[2] == 3 and channels == 1:
    array = bit_depth.as_gray(array, lossy=found.lossy)
    if array.shape[2] == 3:
      text = 'is in color although gray is required; convert it, or use a model with 3 channels'
      raise ImageError(path, text)
  array = decoded.to_full_range(array, used)
  array = np.repeat(array, channels, axis=2) if array.shape[2] < channels else array
  return array, ImageInfo(max(used, 8), found.dpi, found.icc)


def _decode(file: File, path: Path, bits: int) -> Decoded:
  kind = image_formats.recognize(file, path)
  if kind == 'DICOM':
    _check_size(path, *dicom.check(file, path)[:2])
    file.seek(0)
    found = dicom.read(file, path, bits)
  else:
    found = (tiff if kind == 'TIFF' else raster).read(file, path)
  for remark in found.remarks:
    remarks.add(path, remark, remark)
  return found


def open_file(path: Path) -> File:
  """Open a file; raises ImageError, and never waits for a pipe."""
  try:
    if path.is_symlink() and not path.exists():
      raise ImageError(path, 'is a link to a file that does not exist; fetch it first')
    if not path.is_file():
      raise ImageError(path, _what_else(path))
    return path.open('rb')
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error


def _what_else(path: Path) -> str:
  if not path.exists():
    return 'is missing'
  if not path.is_dir():
    return 'is not a regular file'
  try:
    os.scandir(path).close()
  except OSError as error:
    return f'is a folder that cannot be read ({error.strerror})'
  return 'is a folder, not an image'


class _reading:  # a context manager
  """Turn errors of the disk, and a lack of memory, into ImageError."""

  def __init__(self, path: Path):
    self.path = path

  def __enter__(self) -> None:
    return None

  def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
    if isinstance(error, OSError):
      raise ImageError(self.path, f'cannot be read ({error.strerror or error})') from error
    if isinstance(error, MemoryError):
      raise ImageError(self.path, NO_MEMORY) from error


def _check_size(path: Path, height: int, width: int) -> None:
  if width * height > MAX_PIXELS:
    raise TooLargeError(path, f'has {width}x{height} pixels, more than {MAX_PIXELS}; crop it first')


def check_target(path: Path, array: Raw) -> None:
  """Raise ImageError if a file of this name cannot hold the array at its depth."""
  kind = image_formats.KINDS[path.suffix.lower()]
  if array.dtype != np.uint8 and kind == 'JPEG':
    text = 'JPEG holds 8 bit, the image has 16; name it .png or .tif (--format png)'
    raise ImageError(path, text)
  if array.dtype != np.uint8 and array.shape[2] != 1 and kind == 'PNG':
    raise ImageError(path, '16-bit color cannot be written as PNG; name it .tif')


def write(
  path: str | Path,
  array: Raw,
  note: str = '',
  *,
  info: ImageInfo | None = None,
  scale: int | float = 1,
) -> None:
  """Write an image completely or not at all; the suffix chooses the format.

  Args:
    path: The file, whose name ends in one of `image_formats.SUFFIXES`.
    array: uint8 or uint16 [h, w, c] over the whole range of its type.
    note: Written into the file as its comment.
    info: The range and metadata of the file that the image was made from: values are written in
      that range, and the resolution is multiplied by `scale`.
    scale: How many times more pixels along each side the image has than that file.

  Raises:
    ImageError: As `check_target` does.
  """
  path = Path(path)
  check_target(path, array)
  kind = image_formats.KINDS[path.suffix.lower()]
  kept = _kept(array.shape[2], array.dtype, info, scale, kind)
  stored = decoded.to_stored_range(array, kept.bits)
  note = seal.opened(note)
  with atomic(path) as temporary:
    if kind == 'TIFF':
      tiff_out.write(temporary, stored, note, kept)
    else:
      raster_out.write(temporary, stored, kind, note, kept)
    seal.close(temporary)


def writing(
  path: Path,
  shape: tuple[int, int, int],
  kind: np.dtype,
  note: str,
  *,
  info: ImageInfo,
  scale: int | float,
) -> AbstractContextManager[rows.Rows]:
  """Returns a context with a writer of PNG or TIFF that takes rows; the rest is as for `write`."""
  kept = _kept(shape[2], kind, info, scale, image_formats.KINDS[path.suffix.lower()])
  return rows.writing(path, shape, kind, note, kept)


def _kept(
  channels: int, kind: np.dtype, info: ImageInfo | None, scale: int | float, form: str
) -> ImageInfo:
  """Returns the part of a file's range and metadata that is true of an array made from it.

  A resolution that the format `form` cannot hold is dropped.
  """
  container = 8 * kind.itemsize
  if info is None:
    return ImageInfo(container)
  dpi = info.dpi and (scale * info.dpi[0], scale * info.dpi[1])
  dpi = dpi if dpi and max(dpi) <= _MOST_DPI[form] else None
  space = b'GRAY' if channels == 1 else b'RGB '
  icc = info.icc if info.icc and info.icc[16:20] == space else None
  return ImageInfo(min(info.bits, container), dpi, icc)


def is_intact(path: Path) -> bool:
  """Whether a file that was written here is undamaged; too large ones are not decoded for that."""
  try:
    read(path, channels=3)
  except TooLargeError:
    check_parts = dicom_out.is_complete if dicom.is_dicom(path) else rows.is_complete
    return check_parts(path)
  except ImageError:
    return False
  return True


def read_note(path: Path) -> str:
  """Read the comment that `write` or `dicom_out.write` put into a file.

  Returns '' if there is none, or if the pixels of a file that is not DICOM were changed since.
  """
  try:
    with open_file(path) as file:
      head = file.read(image_formats.HEAD)
      file.seek(0)
      if dicom.recognize(file):
        return dicom_out.read_note(path)
      found = (tiff_out if tiff.recognize(head) else raster_out).read_note(file)
      return seal.note(found, file)
  except Exception:  # a file that is not an image has none
    return ''
