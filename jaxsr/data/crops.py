"""Images that crops are cut from, and where crops lie.

The position of a crop is a pure function of the seed and the number of the sample. Samples are
numbered through all epochs; each epoch shows every image once, in an order of its own.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import degradation

BLOCK = 4  # side of the blocks that the error is summed over, in low-resolution pixels


class Film(NamedTuple):
  """A training image.

  Attributes:
    hr: The image.
    lr: The downscaled image.
    error: The running sum of bicubic's squared error over blocks of `BLOCK` x `BLOCK`
      low-resolution pixels, row by row, divided by the total.
    teacher: The teacher's image, or None.
  """

  hr: UInt[np.ndarray, 'sh sw c']
  lr: UInt[np.ndarray, 'h w c']
  error: Float[np.ndarray, ' blocks']
  teacher: UInt[np.ndarray, 'sh sw c'] | None = None


def make_film(
  image: UInt[np.ndarray, '_ _ c'], scale: int, lr: UInt[np.ndarray, 'h w c'] | None = None
) -> Film:
  """Crop an image to a multiple of the scale, downscale it, and map bicubic's error.

  Args:
    image: The image.
    scale: The factor of the reduction.
    lr: The low resolution; None computes it.
  """
  hr = degradation.cut(image, scale)
  lr = degradation.downscale(hr, scale) if lr is None else lr
  return Film(hr, lr, accumulate(map_error(hr, lr)))


def map_error(
  hr: UInt[np.ndarray, 'sh sw c'], lr: UInt[np.ndarray, 'h w c']
) -> Float[np.ndarray, ' blocks']:
  """Sum bicubic's squared error over blocks of `BLOCK` low-resolution pixels, row by row."""
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
  """Convert sums over blocks to a running sum that ends at 1."""
  total = np.cumsum(blocks.astype(np.float64))
  uniform = np.arange(1, total.size + 1) / total.size  # if bicubic is exact everywhere
  return total / total[-1] if total[-1] > 0 else uniform


@dataclasses.dataclass(frozen=True)
class Windows:
  """The distribution of crops.

  Attributes:
    seed: Seed of the order of the images.
    patch: Side of the part that the loss sees, in low-resolution pixels.
    margin: Low-resolution pixels around it.
    by_error: Probability that a crop lies around a pixel drawn in proportion to bicubic's squared
      error; other crops lie anywhere.
  """

  seed: int
  patch: int
  margin: int
  by_error: float

  @property
  def side(self) -> int:
    """The side of a crop with its margin, in low-resolution pixels."""
    return self.patch + 2 * self.margin

  def film(self, number: int, count: int) -> int:
    """Returns the number of the image, of `count`, that a sample is cut from."""
    epoch, place = divmod(number, count)
    return int(_order(self.seed, epoch, count)[place])

  def draw(
    self, lengths: tuple[int, ...], error: Float[np.ndarray, ' blocks'], rng: np.random.Generator
  ) -> tuple[list[int], int]:
    """Draw the position of a crop.

    Args:
      lengths: Height and width of the low resolution.
      error: `Film.error` of the image.
      rng: The generator of the sample.

    Returns:
      The corner (row, column) in low-resolution pixels, and which of the eight flips and quarter
      turns is applied, 0 to 7.
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
    """Draw a block by its error, then a crop whose patch has a pixel of it; returns its corner."""
    columns = -(-lengths[1] // BLOCK)
    block = int(np.searchsorted(error, rng.random(), side='right'))
    block = min(block, error.size - 1)
    pixel = np.array(divmod(block, columns)) * BLOCK + rng.integers(BLOCK, size=2)
    return (pixel - rng.integers(self.patch, size=2) - self.margin).tolist()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Shuffle the images of an epoch; grain's own shuffle takes milliseconds for few images."""
  return np.random.default_rng((seed, epoch)).permutation(count)


def _place(
  wanted: int | None, length: int, side: int, margin: int, rng: np.random.Generator
) -> int:
  """Returns where a crop starts along one axis.

  The position is drawn from a range that extends beyond the image by the margin and is clipped
  afterward; otherwise crops at the edges of the image would be rare.
  """
  if wanted is None:
    wanted = int(rng.integers(-margin, length - side + margin + 1))
  return min(max(int(wanted), 0), length - side)
