"""The exact step: change single pixels until an image's reduction equals its low resolution.

Sums of both passes of the reduction are kept, in Pillow's fixed-point arithmetic for 8 bits, so
that the effect of a change of one pixel on the few low-resolution pixels that it reaches is known
without another reduction.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt

from jaxsr.inference.agreement.projection import project
from jaxsr.inference.agreement.reduction import Reduction, matrix

_BITS = 22  # after the binary point of Pillow's weights for 8-bit images
_SAFE = 0.48  # of a gray level: half a level, less what float32 passes may be off
_WIDE_STEPS = (1, 3, 9, 27)
_FEW_STEPS = (1, -1, 2, -2, 4, -4, 8, -8, 16, -16, 32, -32)
_FEW = 8  # low-resolution pixels that more changes are tried for
_OFF = 0.5  # gray levels that a low-resolution pixel that is off counts more than it is off by
_ROUNDING = 0.1  # the weight of a squared rounding error beside what low-resolution pixels are off
_CHOICES = 2  # changes that are considered for each low-resolution pixel in a round
_WIDE_MOST = 64  # low-resolution pixels that wide steps are tried for in a round
_PATIENCE = 300  # rounds without a better image
_TRIED, _TRIED_PER_PIXEL = 1_500_000, 23  # changes; up to 0.5 s for 256x256 to 1024x1024
_PERIODIC = 8  # low-resolution pixels from an end from which on all rows of a matrix are equal


class Agreement(NamedTuple):
  """The number of pixels in which the reduction of an image equals its low resolution.

  Attributes:
    equal: the number of equal low-resolution pixels, of all channels.
    pixels: the number of all of them.
    most: the largest difference, in gray levels.
    within: the difference up to which pixels count as equal, in gray levels.
  """

  equal: int
  pixels: int
  most: int
  within: int = 0


def agreement(
  image: UInt[np.ndarray, 'sh sw c'],
  lr: UInt[np.ndarray, 'h w c'],
  reduction: Reduction,
  *,
  white: int,
  within: int = 0,
) -> Agreement:
  """Count the pixels of a low resolution that the reduction of an image equals.

  `white` is the largest gray level, 255 for 8 bit; pixels that differ by at most `within` levels
  count as equal.
  """
  off = np.abs(np.minimum(reduction(image), white).astype(np.int64) - lr)
  equal = int(np.count_nonzero(off <= within))
  return Agreement(equal, off.size, int(off.max(initial=0)), within)


def settle(
  sr: Float[np.ndarray, 'sh sw c'],
  lr: UInt[np.ndarray, 'h w c'],
  reduction: Reduction,
  *,
  white: int,
) -> tuple[UInt[np.ndarray, 'sh sw c'], Agreement]:
  """Round an image, and change single pixels until its reduction equals the low resolution.

  Args:
    sr: the projected image, in [0, 1], not rounded.
    lr: its low resolution, in gray levels.
    reduction: how `lr` was made.
    white: the largest gray level, 255 for 8 bit.

  Returns:
    The image, of the dtype of `lr`, and its agreement. If no image was found whose reduction equals
    all pixels of `lr`, it is one with few pixels off, by one level if possible.
  """
  levels = sr * np.float32(white)
  if lr.dtype == np.uint16:
    image = np.rint(levels).astype(lr.dtype)
    if agreement(image, lr, reduction, white=white).most:
      low = lr[None] / np.float32(white)
      sr = _project(image[None] / np.float32(white), low, np.float32(white), reduction)
      levels = np.asarray(sr[0]) * np.float32(white)
  channels = lr.shape[2]
  most = max(_TRIED, _TRIED_PER_PIXEL * lr[..., 0].size) // channels
  planes = [_settle(levels[..., c], lr[..., c], reduction, white, most) for c in range(channels)]
  image = np.stack(planes, axis=-1)
  return image, agreement(image, lr, reduction, white=white)


# Rounding to 16 bits hardly moves a reduction: pixels are off where the projection did not reach.
_project = jax.jit(partial(project, steps=30), static_argnames='reduction')


def _settle(
  levels: np.ndarray, lr: np.ndarray, reduction: Reduction, white: int, most: int
) -> np.ndarray:
  """Returns a settled channel; it is tried again without `_OFF` if few stay off, one by levels."""
  found = []
  for extra in (_OFF, 0.0):
    plane = _Plane(levels, lr, reduction, white, extra)
    found.append(plane.solve(most))
    if not found[-1][0].by_levels or found[-1][0].pixels > _WIDE_MOST:
      break
  return min(found, key=lambda one: one[0])[1]


class _Distance(NamedTuple):
  """How far a channel is from agreement; the first attribute counts most."""

  by_levels: bool  # whether a low-resolution pixel is off by more than one gray level
  pixels: int  # that are off
  worst: float  # by how much, in units


class _Axis(NamedTuple):
  """A reduction along one axis: its matrix, and the weights of each high-resolution pixel."""

  matrix: Any  # scipy.sparse, [low, high]
  first: np.ndarray  # [high] the first low-resolution pixel
  weights: np.ndarray  # [high, reach] of that and the next ones


def _axis(reduction: Reduction, size: int, *, fixed: bool) -> _Axis:
  """Returns a reduction along an axis of `size` pixels, with integer weights if `fixed`."""
  from scipy import sparse  # here, since it takes long to import and not every image needs it

  scale, low = reduction.scale, size // reduction.scale
  short = min(low, 2 * _PERIODIC)
  small = matrix(reduction, short * scale)
  if fixed:
    small = np.trunc(small * 2**_BITS + np.copysign(0.5, small)).astype(np.int64)
  i = np.arange(low)
  shift = np.clip(i - _PERIODIC, 0, low - short)
  values = small[i - shift]
  row, column = np.nonzero(values)
  position = (row, column + scale * shift[row])
  full = sparse.csr_array((values[row, column], position), shape=(low, size))
  reach = np.asarray([np.ptp(np.flatnonzero(one)) + 1 for one in small.T]).max()
  transposed = full.T.tocsr()
  transposed.sort_indices()
  first = np.minimum(transposed.indices[transposed.indptr[:-1]], low - reach)
  high = np.repeat(np.arange(size), np.diff(transposed.indptr))
  weights = np.zeros((size, reach), small.dtype)
  weights[high, transposed.indices - first[high]] = transposed.data
  return _Axis(full, first, weights)


class _Plane:
  """One channel, with the sums of both passes over it."""

  def __init__(
    self, levels: np.ndarray, lr: np.ndarray, reduction: Reduction, white: int, extra: float
  ):
    fixed = lr.dtype == np.uint8 and reduction.kind == 'bicubic'
    self.dtype, self.white, self.scale = lr.dtype, white, reduction.scale
    self.rows, self.columns = (_axis(reduction, n, fixed=fixed) for n in levels.shape)
    self.exact, self.x = levels, np.rint(levels).astype(np.int64)
    self.unit = 2**_BITS if fixed else 1
    half = self.unit // 2 if fixed else 0.0
    self.extra = int(self.unit * extra) if fixed else extra
    self.round: Callable[[np.ndarray], np.ndarray] = (
      (lambda sums: np.clip(sums >> _BITS, 0, 255)) if fixed else np.copy
    )
    sums = (self.columns.matrix @ self.x.T).T + half  # of the pass along rows of pixels
    self.sums = np.ascontiguousarray(sums)
    self.between = self.round(self.sums)
    self.low = self.rows.matrix @ self.between + half
    target = lr.astype(np.int64) * self.unit
    below, above = (0, self.unit - 1) if fixed else (-_SAFE, _SAFE)
    never = 2**40 * self.unit
    self.least = np.where(lr == 0, -never, target + below)
    self.most = np.where(lr == white, never, target + above)
    self.shortfall = self._shortfall(self.low, self.least, self.most)
    self.importance = np.ones(lr.shape, np.int64)
    self.tried = 0  # changes

  def solve(self, most: int) -> tuple[_Distance, np.ndarray]:
    """Change pixels until no low-resolution pixel is off; returns the best image found.

    It ends after `most` changes were tried, not after a time, so that results are reproducible.

    The single steps toward the nearest pixels settle all but a few low-resolution pixels, at
    letters and clipped edges. There, a pixel that no change improves counts more from then on
    (Morris, The breakout method for escaping from local minima, AAAI 1993).
    """
    best, kept, since = _Distance(True, self.x.size, 0), self.x, 0
    wide = False
    while self.tried < most:
      off = self.shortfall != 0
      worst = np.abs(self.shortfall).max(initial=0)
      found = _Distance(bool(worst > self.unit), int(np.count_nonzero(off)), float(worst))
      if found < best:
        best, kept, since = found, self.x.copy(), 0
      since += 1
      if not off.any() or since > _PATIENCE:
        break
      if not self._change(wide):
        self.importance[off] += wide
        wide = True
    return best, kept.astype(self.dtype)

  @staticmethod
  def _shortfall(low: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Returns the amounts that low-resolution pixels lack; negative if they exceed their range."""
    return np.maximum(least - low, 0) - np.maximum(low - most, 0)

  def _change(self, wide: bool) -> bool:
    """Change pixels near all low-resolution pixels that are off, if that helps; whether it did."""
    i, j = np.nonzero(self.shortfall)
    reach, steps = self.scale, (1,)
    if wide and len(i) <= _FEW:
      reach, steps = 2 * self.scale, _FEW_STEPS
    elif wide:
      reach, steps = 3 * self.scale // 2, _WIDE_STEPS
    if wide and len(i) > _WIDE_MOST:
      worst = np.argpartition(-np.abs(self.shortfall[i, j]), _WIDE_MOST)[:_WIDE_MOST]
      i, j = i[worst], j[worst]
    r, c, of = self._candidates(i, j, reach)
    need = self.shortfall[i, j][of]
    weight = self._weight(i[of], r, self.rows) * self._weight(j[of], c, self.columns)
    levels = np.sign(need) * np.sign(weight)
    if self.unit == 1:  # weights of single pixels are small beside what may be missing
      weight = np.abs(weight)
      needed = np.abs(need) / np.where(weight > 0.01 * weight.max(), weight, np.inf)
      levels = levels * np.maximum(np.rint(needed), 1)
    r, c, of = (np.repeat(n, len(steps)) for n in (r, c, of))
    levels = np.outer(levels, steps).ravel()
    levels = np.clip(self.x[r, c] + levels, 0, self.white).astype(np.int64) - self.x[r, c]
    self.tried += len(levels)
    useful = self._survive_rounding(r, c, levels, j[of])
    r, c, of, levels = (n[useful] for n in (r, c, of, levels))
    effect = self._effect(r, c, levels)
    cost = effect
    if not wide and self.unit > 1:
      error = self.x[r, c] - self.exact[r, c]
      cost = effect + _ROUNDING * self.unit * ((error + levels) ** 2 - error**2)
    order = np.lexsort((cost, of))
    order = order[effect[order] < 0]
    rank = np.arange(len(order)) - np.searchsorted(of[order], of[order])
    order = order[rank < _CHOICES]
    reached, helped = np.zeros(self.low.shape, bool), False
    for k in order[np.argsort(cost[order], kind='stable')]:
      place, one = (int(r[k]), int(c[k])), slice(k, k + 1)
      block = self._affected(*place)
      if not 0 <= self.x[place] + levels[k] <= self.white:
        continue
      if reached[block].any() and self._effect(r[one], c[one], levels[one])[0] >= 0:
        continue  # an earlier change has made it useless
      reached[block] = helped = True
      self._apply(*place, int(levels[k]))
    return helped

  def _candidates(
    self, i: np.ndarray, j: np.ndarray, reach: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the pixels around low-resolution pixels, and which of those each belongs to."""
    offsets = np.arange(-reach, reach) + self.scale // 2
    r, c = (self.scale * n[:, None] + offsets for n in (i, j))
    r, c = np.broadcast_arrays(r[:, :, None], c[:, None, :])
    of = np.broadcast_to(np.arange(len(i))[:, None, None], r.shape)
    inside = (r >= 0) & (r < self.x.shape[0]) & (c >= 0) & (c < self.x.shape[1])
    return r[inside], c[inside], of[inside]

  @staticmethod
  def _weight(low: np.ndarray, high: np.ndarray, axis: _Axis) -> np.ndarray:
    at = low - axis.first[high]
    reach = axis.weights.shape[1]
    return np.where((at >= 0) & (at < reach), axis.weights[high, np.clip(at, 0, reach - 1)], 0)

  def _survive_rounding(
    self, r: np.ndarray, c: np.ndarray, levels: np.ndarray, column: np.ndarray
  ) -> np.ndarray:
    """Returns whether changes outlast the rounding of the first pass, in a column of each."""
    at = column - self.columns.first[c]
    reach = self.columns.weights.shape[1]
    sums = self.sums[r, column] + levels * self.columns.weights[c, np.clip(at, 0, reach - 1)]
    return (at >= 0) & (at < reach) & (self.round(sums) != self.between[r, column])

  def _effect(self, r: np.ndarray, c: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns by how much all that is missing would grow with each of some changes.

    A low-resolution pixel that is off counts `_OFF` levels more than it is off by. Many are off by
    one unit, a millionth of a level; no change would mend that if it put a neighbor off by more.
    """
    tall, wide = (np.arange(axis.weights.shape[1]) for axis in (self.rows, self.columns))
    rows = (self.rows.first[r][:, None] + tall)[:, :, None]
    columns = self.columns.first[c][:, None] + wide
    width = self.low.shape[1]
    at = r[:, None] * width + columns  # indices of flattened arrays, which are faster
    sums = self.sums.take(at) + levels[:, None] * self.columns.weights[c]
    change = self.round(sums) - self.between.take(at)
    at = rows * width + columns[:, None, :]
    low = self.low.take(at) + self.rows.weights[r][:, :, None] * change[:, None, :]
    after = self._cost(self._shortfall(low, self.least.take(at), self.most.take(at)))
    change = (after - self._cost(self.shortfall.take(at))) * self.importance.take(at)
    return change.sum((1, 2))

  def _cost(self, shortfall: np.ndarray) -> np.ndarray:
    return np.abs(shortfall) + (shortfall != 0) * self.extra

  def _affected(self, r: int, c: int) -> tuple[slice, slice]:
    """Returns the low-resolution pixels that a pixel reaches."""
    first = self.rows.first[r], self.columns.first[c]
    reach = self.rows.weights.shape[1], self.columns.weights.shape[1]
    return slice(first[0], first[0] + reach[0]), slice(first[1], first[1] + reach[1])

  def _apply(self, r: int, c: int, levels: int) -> None:
    """Change one pixel, and all sums that it is part of."""
    rows, columns = self._affected(r, c)
    self.x[r, c] += levels
    self.sums[r, columns] += levels * self.columns.weights[c]
    between = self.round(self.sums[r, columns])
    self.low[rows, columns] += np.outer(self.rows.weights[r], between - self.between[r, columns])
    self.between[r, columns] = between
    block = rows, columns
    self.shortfall[block] = self._shortfall(self.low[block], self.least[block], self.most[block])
