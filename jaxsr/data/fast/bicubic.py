"""Pillow's bicubic for gray of 8 bit, and its error, in a quarter of the time and equal to the bit.

Preparing records spends most of its time here and in decoding. Everything else resizes by Pillow
itself (`jaxsr.data.degradation`), which needs no compiler.
"""

import functools
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int32, UInt8

from jaxsr.data import degradation
from jaxsr.data.crops import BLOCK
from jaxsr.data.fast.transpose import transpose

_BITS = 22  # after the point in Pillow's weights of 8-bit images


class Weights(NamedTuple):
  """How rows are resized: each new one a sum of old ones, in fixed point with `_BITS` bits."""

  starts: Int32[np.ndarray, ' target']
  weights: Int32[np.ndarray, 'target taps']


def downscale(image: UInt8[np.ndarray, 'h w'], scale: int) -> UInt8[np.ndarray, 'oh ow']:
  """Shrink as `degradation.downscale` does; sides are multiples of the scale."""
  height, width = image.shape
  return _resize(image, _weigh(height, height // scale), _weigh(width, width // scale))


def map_error(
  hr: UInt8[np.ndarray, 'sh sw'], lr: UInt8[np.ndarray, 'h w']
) -> Float[np.ndarray, ' blocks']:
  """Add bicubic's squared error up as `film.map_error` does."""
  scale = hr.shape[0] // lr.shape[0]
  wide = transpose(_apply(transpose(lr), *_weigh(lr.shape[1], hr.shape[1])))
  return _square(hr, wide, *_weigh(lr.shape[0], hr.shape[0]), BLOCK * scale).ravel()


def _resize(
  image: UInt8[np.ndarray, 'h w'], rows: Weights, columns: Weights
) -> UInt8[np.ndarray, 'oh ow']:
  """Resize columns, round to 8 bit, and resize rows: Pillow's order."""
  return _apply(transpose(_apply(transpose(image), *columns)), *rows)


@functools.lru_cache(maxsize=16)
def _weigh(size: int, target: int) -> Weights:
  """Weigh one axis as Pillow does, whose kernel is cut off at edges and then adds up to one."""
  ratio = size / target
  stretch = max(ratio, 1.0)  # antialiasing
  centre = (np.arange(target) + 0.5) * ratio
  first = np.maximum((centre - 2 * stretch + 0.5).astype(int), 0)
  last = np.minimum((centre + 2 * stretch + 0.5).astype(int), size)
  taps = int((last - first).max())
  index = first[:, None] + np.arange(taps)
  distance = (index - centre[:, None] + 0.5) * (1 / stretch)
  weights = np.where(index < last[:, None], degradation.cubic(distance), 0.0)
  weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, as Pillow adds
  fixed = np.trunc(weights * 2**_BITS + np.copysign(0.5, weights)).astype(np.int32)
  starts = np.minimum(first, size - taps)  # the same number of taps everywhere
  for row, shift in enumerate(first - starts):
    fixed[row] = np.roll(fixed[row], shift)
  return Weights(starts.astype(np.int32), fixed)


@numba.njit(nogil=True)
@no_type_check  # numba's to check, here and below
def _sum(image, start, weights, row):
  """Weigh rows of an image into one of 8 bit."""
  row[:] = 1 << (_BITS - 1)
  for k in range(weights.size):
    for x in range(row.size):
      row[x] += np.int32(image[start + k, x]) * weights[k]
  for x in range(row.size):
    row[x] = min(max(row[x] >> _BITS, 0), 255)


@numba.njit(nogil=True)
@no_type_check
def _apply(image, starts, weights):
  """Resize an image's rows: [size, w] -> [target, w]."""
  resized = np.empty((starts.size, image.shape[1]), np.uint8)
  row = np.empty(image.shape[1], np.int32)
  for y in range(starts.size):
    _sum(image, starts[y], weights[y], row)
    for x in range(row.size):
      resized[y, x] = row[x]
  return resized


@numba.njit(nogil=True)
@no_type_check
def _square(hr, wide, starts, weights, side):
  """Add the squares of what resized rows err by up in blocks."""
  height, width = hr.shape
  sums = np.zeros((-(-height // side), -(-width // side)), np.float32)
  row, squares = np.empty(width, np.int32), np.zeros(width, np.int32)
  for y in range(height):
    _sum(wide, starts[y], weights[y], row)
    for x in range(width):
      squares[x] += (hr[y, x] - row[x]) ** 2
    if (y + 1) % side == 0 or y + 1 == height:
      for column in range(sums.shape[1]):
        sums[y // side, column] = squares[column * side : (column + 1) * side].sum()
      squares[:] = 0
  return sums
