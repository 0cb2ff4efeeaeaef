"""Pillow's bicubic filter for 8-bit gray images and its error, bit-exact in a quarter of the time.

The preparation of records spends most of its time here and in decoding. All other code resizes with
Pillow (`jaxsr.data.degradation`), which needs no compiler.
"""

import functools
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int32, UInt8

from jaxsr.data import degradation
from jaxsr.data.crops import BLOCK
from jaxsr.data.fast.transpose import transpose

_BITS = 22  # fractional bits of Pillow's weights for 8-bit images


class Weights(NamedTuple):
  """Weights of each output row: the first input row, and fixed-point weights of the taps."""

  starts: Int32[np.ndarray, ' target']
  weights: Int32[np.ndarray, 'target taps']


def downscale(image: UInt8[np.ndarray, 'h w'], scale: int) -> UInt8[np.ndarray, 'oh ow']:
  """Returns the same as `degradation.downscale`; sides are multiples of the scale."""
  height, width = image.shape
  return _resize(
    image, _axis_weights(height, height // scale), _axis_weights(width, width // scale)
  )


def map_error(
  hr: UInt8[np.ndarray, 'sh sw'], lr: UInt8[np.ndarray, 'h w']
) -> Float[np.ndarray, ' blocks']:
  """Returns the same as `crops.map_error`, the squared error of bicubic per block."""
  scale = hr.shape[0] // lr.shape[0]
  wide = transpose(_apply(transpose(lr), *_axis_weights(lr.shape[1], hr.shape[1])))
  return _block_errors(hr, wide, *_axis_weights(lr.shape[0], hr.shape[0]), BLOCK * scale).ravel()


def _resize(
  image: UInt8[np.ndarray, 'h w'], rows: Weights, columns: Weights
) -> UInt8[np.ndarray, 'oh ow']:
  """Resize columns, round to 8 bits, then resize rows, in the order of Pillow."""
  return _apply(transpose(_apply(transpose(image), *columns)), *rows)


@functools.lru_cache(maxsize=16)
def _axis_weights(size: int, target: int) -> Weights:
  """Returns the weights of one axis as in Pillow, normalized after the cut at the boundary."""
  ratio = size / target
  stretch = max(ratio, 1.0)  # antialiasing
  center = (np.arange(target) + 0.5) * ratio
  first = np.maximum((center - 2 * stretch + 0.5).astype(int), 0)
  last = np.minimum((center + 2 * stretch + 0.5).astype(int), size)
  taps = int((last - first).max())
  index = first[:, None] + np.arange(taps)
  distance = (index - center[:, None] + 0.5) * (1 / stretch)
  weights = np.where(index < last[:, None], degradation.cubic(distance), 0.0)
  weights /= np.cumsum(weights, axis=1)[:, -1:]  # in the order in which Pillow adds
  fixed = np.trunc(weights * 2**_BITS + np.copysign(0.5, weights)).astype(np.int32)
  starts = np.minimum(first, size - taps)  # the same number of taps for each row
  for row, shift in enumerate(first - starts):
    fixed[row] = np.roll(fixed[row], shift)
  return Weights(starts.astype(np.int32), fixed)


@numba.njit(nogil=True)
@no_type_check  # types are checked by numba, here and below
def _sum(image, start, weights, row):
  """Compute one output row, rounded and clipped to 8 bits."""
  row[:] = 1 << (_BITS - 1)
  for k in range(weights.size):
    for x in range(row.size):
      row[x] += np.int32(image[start + k, x]) * weights[k]
  for x in range(row.size):
    row[x] = min(max(row[x] >> _BITS, 0), 255)


@numba.njit(nogil=True)
@no_type_check
def _apply(image, starts, weights):
  """Resize the rows of an image: [size, w] -> [target, w]."""
  resized = np.empty((starts.size, image.shape[1]), np.uint8)
  row = np.empty(image.shape[1], np.int32)
  for y in range(starts.size):
    _sum(image, starts[y], weights[y], row)
    for x in range(row.size):
      resized[y, x] = row[x]
  return resized


@numba.njit(nogil=True)
@no_type_check
def _block_errors(hr, wide, starts, weights, side):
  """Sum the squared error of the resized rows in blocks."""
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
