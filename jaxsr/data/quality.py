"""Estimates of an image's own noise and of JPEG's 8x8 blocks in it, without a reference."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

DARKEST, BRIGHTEST = 8 / 255, 247 / 255  # burnt-in letters and frames beyond have no noise
_SIDE = 2048  # of the part in the middle that is looked at
_BLOCK = 8
_MOST = 4.0  # levels that the step at one pixel counts for, so that edges do not decide


class Quality(NamedTuple):
  """The noise and compression of an image, in gray levels of 255.

  Attributes:
    noise: standard deviation of the noise, by the median of the diagonal second difference.
    blockiness: how much larger steps are on one grid of 8x8 pixels than beside it; around 0 for
      images that were never compressed by JPEG, 0.7 at quality 75.
  """

  noise: float
  blockiness: float


def measure(image: UInt[np.ndarray, 'h w c'], white: int) -> Quality:
  """Estimate noise and blockiness of an image.

  Args:
    image: the image; the mean of its channels is looked at, in the middle 2048x2048 pixels. Below
      24 pixels per side, both estimates are 0.
    white: the largest level, such as 255.
  """
  v = _middle(image).mean(axis=2) / white
  if min(v.shape) < 3 * _BLOCK:
    return Quality(0.0, 0.0)
  return Quality(255 * noise(v), 255 * max(0.0, (_blockiness(v) + _blockiness(v.T)) / 2))


def noise(v: Float[np.ndarray, 'h w']) -> float:
  """Estimate the standard deviation of the noise of an image in [0, 1], in the same unit.

  The kernel [1 -2 1; -2 4 -2; 1 -2 1] / 6 keeps the variance of white noise and removes edges
  along rows and columns. The median is that of grouped values, since stored levels repeat.
  """
  rows = v[:-2] - 2 * v[1:-1] + v[2:]
  found = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]) / 6
  middle = v[1:-1, 1:-1]
  found = found[(middle >= DARKEST) & (middle <= BRIGHTEST)]
  if not found.size:
    return 0.0
  values, counts = np.unique(np.round(found, 7), return_counts=True)
  below = np.cumsum(counts) - counts / 2
  return float(np.interp(found.size / 2, below, values)) / 0.6745  # of a normal distribution


def _blockiness(v: Float[np.ndarray, 'h w']) -> float:
  """Compare the steps between columns on the grid of 8 where they are largest with the others.

  Two standard errors of a grid's mean are subtracted, so that small images, whose grids differ by
  chance, give no larger values than large ones.
  """
  step = np.abs(np.diff(v, axis=1))
  beyond = step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2
  seen = (v[:, 1:-2] >= DARKEST) & (v[:, 1:-2] <= BRIGHTEST)
  limited = np.where(seen, np.clip(beyond, -_MOST / 255, _MOST / 255), 0)
  columns = limited.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
  grids = [columns[start::_BLOCK] for start in range(_BLOCK)]
  largest = max(range(_BLOCK), key=lambda start: grids[start].mean())
  others = np.concatenate([grid for start, grid in enumerate(grids) if start != largest])
  error = others.std() / np.sqrt(grids[largest].size)
  return float(grids[largest].mean() - others.mean() - 2 * error)


def _middle(image: UInt[np.ndarray, '_ _ c']) -> UInt[np.ndarray, '_ _ c']:
  top, left = ((side - min(side, _SIDE)) // 2 for side in image.shape[:2])
  return image[top : top + _SIDE, left : left + _SIDE]
