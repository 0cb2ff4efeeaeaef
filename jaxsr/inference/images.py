"""Read and write single images as arrays without a batch axis."""

import os
from pathlib import Path

import numpy as np

from jaxsr import __version__
from jaxsr.data import image_files
from jaxsr.errors import UserError
from jaxsr.inference import provenance


def read(path: str | os.PathLike[str]) -> np.ndarray:
  """Read an image file: PNG, TIFF, JPEG or DICOM.

  Args:
    path: the file.

  Returns:
    The image, uint8 or uint16: [h, w] if it is gray (as is RGB with three equal channels), else
    RGB [h, w, 3]. 0 is black; DICOM's MONOCHROME1 is inverted.

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
  image = image_files.read(Path(path).expanduser(), channels=3)
  is_gray = (image[..., :1] == image).all()
  return np.ascontiguousarray(image[..., 0]) if is_gray else image


def write(
  path: str | os.PathLike[str],
  image: np.ndarray,
  *,
  like: str | os.PathLike[str] | None = None,
) -> None:
  """Write an image file: PNG, TIFF or JPEG, by the suffix of its name.

  The file appears complete or not at all, and replaces one of the same name. Its comment says that
  it was made by jaxsr.

  Args:
    path: the file.
    image: uint8 or uint16, [h, w], [h, w, 1] or RGB [h, w, 3]. JPEG holds uint8 only.
    like: the file that the image was made from; the start of its SHA-256 becomes part of the
      comment.

  Raises:
    UserError: the image has another dtype or shape, or the format cannot hold it.

  Example:
    >>> import jaxsr
    >>> import numpy as np
    >>> jaxsr.write('film.png', np.full((16, 24), 128, np.uint8))
    >>> sr = jaxsr.load('edsr_x4_tiny').upscale(jaxsr.read('film.png'))
    >>> jaxsr.write('film_x4.png', sr, like='film.png')
    >>> jaxsr.read('film_x4.png').shape
    (64, 96)
  """
  path, image = Path(path).expanduser(), np.asarray(image)
  if image.dtype not in (np.uint8, np.uint16):
    raise UserError(f'image is {image.dtype}: write takes uint8 or uint16')
  image = image[..., None] if image.ndim == 2 else image
  if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
    raise UserError(f'image has the shape {list(image.shape)}: write takes [h, w] or [h, w, 3]')
  if path.suffix.lower() not in image_files.SUFFIXES:
    raise UserError(f'{path}: ends in none of {", ".join(image_files.SUFFIXES)}')
  source = '' if like is None else f'source {provenance.digest(Path(like).expanduser())}; '
  note = f'jaxsr {__version__}; {source}for research, not for diagnosis'
  image_files.write(path, image, note)
