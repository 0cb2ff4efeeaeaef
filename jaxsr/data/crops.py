"""Films that crops are cut from, and where crops lie.

Where a crop lies is a pure function of the seed and the number of the sample. Samples are numbered
through all epochs; each epoch shows every film once, in an order of its own.
"""

import dataclasses
import functools
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


def make_film(image: UInt[np.ndarray, 'h w c'], scale: int) -> Film:
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


@dataclasses.dataclass(frozen=True)
class Windows:
  """Windows of `patch` low-resolution pixels with a margin around them.

  With probability `by_error` one lies around a pixel drawn by bicubic's squared error, else
  anywhere. One of the eight flips and quarter turns is applied.
  """

  seed: int
  patch: int
  margin: int
  by_error: float

  @property
  def side(self) -> int:
    """Give the side of a window, in pixels of the low resolution."""
    return self.patch + 2 * self.margin

  def film(self, number: int, count: int) -> int:
    """Choose the film, of `count`, that a sample is cut from."""
    epoch, place = divmod(number, count)
    return int(_order(self.seed, epoch, count)[place])

  def draw(
    self, lengths: tuple[int, ...], error: Float[np.ndarray, ' blocks'], rng: np.random.Generator
  ) -> tuple[list[int], int]:
    """Draw a window's corner, row and column, and its turn, 0 to 7.

    `lengths` are the sides of the low resolution, `error` is a film's.
    """
    wanted = self._by_error(lengths, error, rng) if rng.random() < self.by_error else None
    corner = [
      _place(None if wanted is None else wanted[axis], lengths[axis], self.side, self.margin, rng)
      for axis in (0, 1)
    ]
    return corner, int(rng.integers(8))

  def _by_error(
    self, lengths: tuple[int, ...], error: Float[np.ndarray, ' blocks'], rng: np.random.Generator
  ) -> list[int]:
    """Draw a block by error, then a patch that holds a pixel of it; return the window's corner."""
    columns = -(-lengths[1] // BLOCK)
    block = int(np.searchsorted(error, rng.random(), side='right'))
    block = min(block, error.size - 1)
    pixel = np.array(divmod(block, columns)) * BLOCK + rng.integers(BLOCK, size=2)
    return (pixel - rng.integers(self.patch, size=2) - self.margin).tolist()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Shuffle the films of an epoch; grain's own shuffle takes milliseconds where they are few."""
  return np.random.default_rng((seed, epoch)).permutation(count)


def _place(
  wanted: int | None, length: int, side: int, margin: int, rng: np.random.Generator
) -> int:
  """Choose where a window starts along one axis.

  The range reaches beyond the image by the margin before it is cut off, or the image's edges
  would hardly ever be learnt from.
  """
  if wanted is None:
    wanted = int(rng.integers(-margin, length - side + margin + 1))
  return min(max(int(wanted), 0), length - side)
