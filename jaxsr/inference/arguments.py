"""Check the images that are given to `Model.upscale` and the functions beside it."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jaxsr.data import bit_depth
from jaxsr.errors import UserError

if TYPE_CHECKING:
  from jaxsr.inference.model import Model


_LEVELS = ('L', 'RGB', 'I;16', 'I;16L', 'I;16B', 'I;16N')  # modes of PIL


def prepare(image: Any, model: 'Model', bits: Any, tile: Any) -> tuple[np.ndarray, int]:
  """Check the arguments of `Model.upscale`; returns the image as an array, and its white."""
  check_whole(bits=bits, tile=tile)
  bit_depth.check(bits)
  if tile < 1:
    raise UserError(f'tile {tile} is less than 1')
  image = as_array(image)
  _check_image(image, model)
  return image, _white(image, bits)


def as_array(image: Any) -> np.ndarray:
  """Returns an image as an array in the byte order of this machine.

  Raises UserError if its values are no gray levels: indices into a palette, or masked ones.
  """
  if isinstance(image, Image.Image) and image.mode not in _LEVELS:
    kind = f'is a PIL image of mode {image.mode}, whose values are not gray levels or RGB'
    raise UserError(f"image {kind}: pass image.convert('L') or image.convert('RGB')")
  if np.ma.is_masked(image):
    raise UserError('image is a masked array with masked pixels: pass image.filled(0), for example')
  array = np.asarray(image)
  return array.astype(array.dtype.newbyteorder('='), copy=False)


def check_whole(**options: object) -> None:
  """Raise UserError for an option that is not a whole number."""
  for name, value in options.items():
    if not isinstance(value, int | np.integer):
      raise UserError(f'{name} {value!r}: is not a whole number')


def _white(image: np.ndarray, bits: int) -> int:
  """Returns the largest value that an image of this number of bits can have."""
  container, peak = 8 * image.itemsize, int(image.max(initial=0))
  if not bits:
    if image.dtype == np.uint16 and (likely := bit_depth.likely_bits(peak)):
      text = f'the values end at {peak} of 65535: pass bits={likely} if the image has {likely} bits'
      warnings.warn(text, stacklevel=4)
    bits = container
  if not 1 <= bits <= container or peak >= 2**bits:
    raise UserError(f'bits {bits}: the image is {image.dtype} and has values up to {peak}')
  return 2**bits - 1


def _check_image(image: np.ndarray, model: 'Model') -> None:
  """Raise UserError unless `Model.upscale` can take the image."""
  if np.issubdtype(image.dtype, np.floating) or image.dtype.name == 'bfloat16':
    raise UserError(
      f'image is {image.dtype}: upscale takes uint8 or uint16; for floats in [0, 1] call model(x)'
    )
  if image.dtype.newbyteorder('=') not in (np.uint8, np.uint16):
    raise UserError(
      f'image is {image.dtype}: upscale takes uint8 (0 to 255) or uint16 (0 to 65535); convert it, '
      'so that 0 is black and the largest value white'
    )
  c = model.channels
  shapes = f'[h, w, {c}] or [b, h, w, {c}]'
  shapes = f'[h, w], {shapes}' if c == 1 else shapes
  if image.ndim not in (2, 3, 4) or 0 in image.shape:
    raise UserError(f'image has the shape {list(image.shape)}: upscale takes {shapes}')
  found = 1 if image.ndim == 2 else image.shape[-1]
  if found != c:
    kind = {1: 'gray', 3: 'RGB'}[c]
    raise UserError(
      f'image has the shape {list(image.shape)}, so {found} channels: {model.name} is for {kind} '
      f'images, {shapes}'
    )
