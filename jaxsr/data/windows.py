"""Where crops lie: a pure function of the seed and the number of the sample.

Samples are numbered through all epochs; each epoch shows every film once, in an order of its own.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from jaxsr.data.film import BLOCK


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
