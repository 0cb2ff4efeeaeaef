"""Bicubic resizing: the low-resolution images of the protocol, and bicubic upscaling.

Images are NumPy arrays [h, w, c]: uint8 or uint16 for Pillow, float64 for `imresize`.
sh = scale * h and sw = scale * w.
"""

import numpy as np
from jaxtyping import Float, UInt
from PIL import Image


def cut(image: UInt[np.ndarray, '_ _ *c'], scale: int) -> UInt[np.ndarray, '_ _ *c']:
  """Returns the image without the last rows and columns beyond a multiple of the scale."""
  height, width = (side - side % scale for side in image.shape[:2])
  return np.ascontiguousarray(image[:height, :width])


def downscale(image: UInt[np.ndarray, 'sh sw c'], scale: int) -> UInt[np.ndarray, 'h w c']:
  """Downscale with Pillow's bicubic filter, the degradation of the chest X-ray protocol."""
  height, width = image.shape[:2]
  return resize(image, height // scale, width // scale)


def upscale(image: UInt[np.ndarray, 'h w c'], scale: int) -> UInt[np.ndarray, 'sh sw c']:
  """Upscale with Pillow's bicubic filter."""
  height, width = image.shape[:2]
  return resize(image, height * scale, width * scale)


def resize(
  image: UInt[np.ndarray, 'h w c'], height: int, width: int
) -> UInt[np.ndarray, '{height} {width} c']:
  """Resize with Pillow's bicubic filter, which rounds to 8 bits after each of its two passes.

  16-bit images are resized as floats and rounded once, because Pillow has no 16-bit passes.

  Args:
    image: uint8 or uint16.
    height: Height of the result.
    width: Width of the result.
  """
  planes = [_resize_plane(image[..., c], height, width) for c in range(image.shape[2])]
  return np.stack(planes, axis=-1)


def _resize_plane(
  plane: UInt[np.ndarray, 'h w'], height: int, width: int
) -> UInt[np.ndarray, 'oh ow']:
  if plane.dtype == np.uint8:
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
  floats = Image.fromarray(plane.astype(np.float32))
  resized = np.asarray(floats.resize((width, height), Image.Resampling.BICUBIC))
  return np.clip(np.rint(resized), 0, np.iinfo(plane.dtype).max).astype(plane.dtype)


def imresize(
  image: Float[np.ndarray, 'h w c'], height: int, width: int
) -> Float[np.ndarray, 'oh ow c']:
  """Resize like MATLAB's `imresize`: bicubic (a = -0.5), antialiased, symmetric boundary."""
  rows = imresize_matrix(image.shape[0], height)
  columns = imresize_matrix(image.shape[1], width)
  return np.einsum('oh,hwc,pw->opc', rows, image.astype(np.float64), columns, optimize=True)


def imresize_matrix(size: int, target: int) -> Float[np.ndarray, 'target size']:
  """Returns the matrix of `imresize` along one axis."""
  ratio = target / size
  stretch = min(ratio, 1.0)  # antialiasing widens the kernel when shrinking
  center = (np.arange(target) + 0.5) / ratio - 0.5
  taps = int(np.ceil(4 / stretch)) + 2
  index = np.floor(center - 2 / stretch).astype(int)[:, None] + np.arange(taps)
  weight = cubic((center[:, None] - index) * stretch)
  weight /= weight.sum(axis=1, keepdims=True)
  mirrored = np.concatenate([np.arange(size), np.arange(size)[::-1]])[index % (2 * size)]
  matrix = np.zeros((target, size))
  np.add.at(matrix, (np.arange(target)[:, None], mirrored), weight)
  return matrix


def cubic(x: Float[np.ndarray, '*n']) -> Float[np.ndarray, '*n']:
  """Returns Keys' kernel with a = -0.5 (Cubic Convolution Interpolation, 1981), as in Pillow."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = (((x - 5) * x + 8) * x - 4) * -0.5
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))
