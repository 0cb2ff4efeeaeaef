"""Read and write single images as arrays without a batch axis."""

import hashlib
import os
from pathlib import Path

import numpy as np

from jaxsr import __version__
from jaxsr.data import bit_depth, dicom, dicom_out, image_files, image_formats
from jaxsr.data.decoded import Method, to_full_range
from jaxsr.data.image_files import ImageInfo
from jaxsr.errors import ImageError, UserError
from jaxsr.inference import arguments, provenance


def read(path: str | os.PathLike[str], *, bits: int = 0, full_range: bool = False) -> np.ndarray:
  """Read an image file: PNG, TIFF, JPEG, BMP, WebP or DICOM.

  Args:
    path: the file.
    bits: the number of bits that a 16-bit file holds, if it does not say so; 0 trusts the file.
    full_range: stretch the values of a file with 12 bits, for example, from 0 to 4095 to the range
      of the dtype. DICOM is always stretched, since its values have an origin of their own.

  Returns:
    The image, upright, with the values that the file stores and 0 for black. uint8 or uint16:
    [h, w] if it is gray (as is RGB with three equal channels), else RGB [h, w, 3]. The array is
    the caller's, who may change it.

  Raises:
    UserError: the file is damaged, or of a kind that cannot be read without loss.

  Example:
    >>> import jaxsr
    >>> import numpy as np
    >>> jaxsr.write('gray.png', np.full((16, 24), 40_000, np.uint16))
    >>> image = jaxsr.read('gray.png')
    >>> image.shape, image.dtype
    ((16, 24), dtype('uint16'))
  """
  arguments.check_whole(bits=bits)
  bit_depth.check(bits)
  path = Path(os.fsdecode(path)).expanduser()
  image = _load(path, bits)[0] if full_range else image_files.read_stored(path, bits)
  return np.require(image, requirements='W')  # decoders may return views of what they read


def _load(path: Path, bits: int = 0) -> tuple[np.ndarray, ImageInfo]:
  """Read an image [h, w] or [h, w, 3], with the metadata to write another one like it."""
  try:
    image, info = image_files.load(path, 1, bits)
    return image[..., 0], info
  except ImageError:  # in color, or not readable at all, which the next call reports
    return image_files.load(path, 3, bits)


def write(
  path: str | os.PathLike[str],
  image: np.ndarray,
  *,
  like: str | os.PathLike[str] | None = None,
) -> None:
  """Write an image file: PNG, TIFF, JPEG or DICOM, by the suffix of its name.

  The file appears complete or not at all, and replaces one of the same name. Its comment says that
  it was made by jaxsr.

  Args:
    path: the file.
    image: uint8 or uint16, [h, w], [h, w, 1] or RGB [h, w, 3]. JPEG holds uint8 only.
    like: the file that the image was made from. The new file gets its number of bits (12 of 16, for
      example), which the image must keep to, its resolution times the scale, and its color profile;
      the start of its SHA-256 becomes part of the comment. DICOM needs the DICOM file that the
      image was made from: the result is a copy of it with other pixels, in the same study and a
      series of its own.

  Raises:
    UserError: the image has another dtype or shape, more bits than `like`, the format cannot hold
      it, or the file cannot be written.

  Example:
    >>> import jaxsr
    >>> import numpy as np
    >>> jaxsr.write('film.png', np.full((16, 24), 128, np.uint8))
    >>> sr = jaxsr.load('edsr_x4_tiny').upscale(jaxsr.read('film.png'))
    >>> jaxsr.write('film_x4.png', sr, like='film.png')
    >>> jaxsr.read('film_x4.png').shape
    (64, 96)
  """
  path, image = Path(os.fsdecode(path)).expanduser(), arguments.as_array(image)
  if image.dtype not in (np.uint8, np.uint16):
    raise UserError(f'image is {image.dtype}: write takes uint8 or uint16')
  image = image[..., None] if image.ndim == 2 else image
  if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
    raise UserError(f'image has the shape {list(image.shape)}: write takes [h, w] or [h, w, 3]')
  as_dicom = path.suffix.lower() in dicom.SUFFIXES
  if path.suffix.lower() not in image_formats.SUFFIXES and not as_dicom:
    known = ', '.join((*image_formats.SUFFIXES, *dicom.SUFFIXES))
    raise UserError(f'{path}: ends in none of {known}')
  if as_dicom and like is None:
    raise UserError(
      f'{path}: DICOM needs a patient and a study; pass like= the source, or name it .png'
    )
  if not path.parent.is_dir():
    raise UserError(f'{path}: its folder does not exist; create it first')
  try:
    _write(path, image, like)
  except OSError as error:
    raise UserError(f'{path}: cannot be written ({error.strerror or error})') from error


def _write(path: Path, image: np.ndarray, like: str | os.PathLike[str] | None) -> None:
  """Write an image that the format can hold."""
  source, info, scale = '', None, 1
  if like is not None:
    like = Path(os.fsdecode(like)).expanduser()
    original, info = _load(like)
    if path.suffix.lower() in dicom.SUFFIXES:
      _write_dicom(path, image, like, original.shape)
      return
    scale = max(1, round(image.shape[0] / original.shape[0]))
    image = _check_bits(image, info.bits, like)
    source = f'source {provenance.digest(like)}; '
  note = f'jaxsr {__version__}; {source}for research, not for diagnosis'
  image_files.write(path, image, note, info=info, scale=scale)


def _write_dicom(path: Path, image: np.ndarray, like: Path, original: tuple[int, ...]) -> None:
  """Write an image as DICOM derived from a file of the shape `original`."""
  (tall, wide), (h, w) = image.shape[:2], original[:2]
  if abs(tall * w - wide * h) > max(h, w):
    raise UserError(f'image has {wide}x{tall} pixels and {like} {w}x{h}: not the same view')
  # Two images made from one file need two identifiers, so their content is part of the note.
  pixels = hashlib.sha256(image.tobytes()).hexdigest()[:16]
  source = f'source {provenance.digest(like)}; pixels {pixels}'
  note = f'jaxsr {__version__}; {source}; for research, not for diagnosis'
  dicom_out.write(path, image, like, Method('by jaxsr', note, __version__))


def _check_bits(image: np.ndarray, bits: int, like: Path) -> np.ndarray:
  """Returns an image with stored values of `bits` bits over the range of its dtype."""
  if bits >= 8 * image.itemsize or dicom.is_dicom(like):
    return image
  if image.max() >= 2**bits:
    raise UserError(
      f'image has values up to {image.max()}, but {like} has {bits} bits: upscale it with '
      f'bits={bits}, or write it without like='
    )
  return to_full_range(image, bits)
