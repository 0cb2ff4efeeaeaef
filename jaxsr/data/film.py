"""A film that is trained on: an image, its low resolution, and where bicubic errs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import degradation

BLOCK = 4  # side, in pixels of the low resolution, of the blocks that the error is summed over


class Film(NamedTuple):
  """An image, its low resolution, and where bicubic errs.

  `error` is the running sum, scaled to end at 1, of bicubic's squared error over blocks of
  `BLOCK` low-resolution pixels, row by row. `teacher` is a teacher's image, where there is one.
  """

  hr: UInt[np.ndarray, 'sh sw c']
  lr: UInt[np.ndarray, 'h w c']
  error: Float[np.ndarray, ' blocks']
  teacher: UInt[np.ndarray, 'sh sw c'] | None = None


def make(image: UInt[np.ndarray, 'h w c'], scale: int) -> Film:
  """Cut and degrade an image, and map bicubic's error."""
  hr = degradation.cut(image, scale)
  lr = degradation.downscale(hr, scale)
  return Film(hr, lr, accumulate(map_error(hr, lr)))


def map_error(
  hr: UInt[np.ndarray, 'sh sw c'], lr: UInt[np.ndarray, 'h w c']
) -> Float[np.ndarray, ' blocks']:
  """Add bicubic's squared error up in blocks of `BLOCK` low-resolution pixels, row by row."""
  scale = hr.shape[0] // lr.shape[0]
  difference, square = (np.int16, np.int32) if hr.dtype == np.uint8 else (np.int32, np.float64)
  errors = np.subtract(hr, degradation.upscale(lr, scale), dtype=difference)
  squares = np.square(errors, dtype=square)
  columns = np.arange(0, hr.shape[1], BLOCK * scale)
  rows = np.arange(0, hr.shape[0], BLOCK * scale)
  plane = squares[..., 0] if squares.shape[2] == 1 else squares.sum(axis=2)
  blocks = np.add.reduceat(np.add.reduceat(plane, columns, axis=1), rows, axis=0)
  return blocks.ravel().astype(np.float32)


def accumulate(blocks: Float[np.ndarray, ' blocks']) -> Float[np.ndarray, ' blocks']:
  """Turn sums over blocks into a running sum that ends at 1."""
  total = np.cumsum(blocks.astype(np.float64))
  uniform = np.arange(1, total.size + 1) / total.size  # where bicubic is exact everywhere
  return total / total[-1] if total[-1] > 0 else uniform
