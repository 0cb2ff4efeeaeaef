"""Projection of upscaled images onto those that agree with their low resolution, in JAX.

The matrices of a reduction are banded, and so are their pseudo-inverses but for weights below 1e-4.
They are applied in blocks of rows, whose cost grows with the number of pixels, or as filters if
the sizes are symbolic.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsr.inference.agreement.filters import LONGEST, SAMPLE, Filter, make_filter
from jaxsr.inference.agreement.reduction import Reduction, matrix

STEPS = 6
MARGIN = 12  # low-resolution pixels around a tile beyond which its ends change less than 1e-4
_SLACK, _TIGHT = 0.18, 0.1  # gray levels on either side of the input
_REACH = 2  # low-resolution pixels on either side that a reduction combines
_INVERSE_REACH = 9  # the same of the inverse of (matrix @ matrix.T), up to 1e-4
_BLOCK = 16  # low-resolution rows per product


class _Band(NamedTuple):
  """A banded matrix as blocks [n, rows, columns], of which each starts `hop` columns later."""

  blocks: np.ndarray
  size: int  # rows of the matrix
  hop: int
  pad: int  # columns of the first block that lie before the matrix


def project(
  sr: Float[Array, 'b sh sw c'] | Float[np.ndarray, 'b sh sw c'],
  lr: Float[Array, 'b h w c'] | Float[np.ndarray, 'b h w c'],
  levels: ArrayLike,
  reduction: Reduction,
  *,
  width: ArrayLike = 0.0,
  steps: int = STEPS,
) -> Float[Array, 'b sh sw c']:
  """Move upscaled images toward those whose reduction rounds to the low resolution.

  Each step adds the smallest change after which the reduction is within a box around `lr`, and
  clips to [0, 1]; the steps are accelerated (Nesterov, 1983). The box leaves alone what can be the
  rounding noise of `lr`: it is 0.18 levels on either side, or 0.1 if the image is off by more than
  that on average, so that little of it is noise. Pixels of `lr` at 0 or 1 bound the reduction on
  one side only.

  Args:
    sr: images, not rounded.
    lr: their low resolution, in [0, 1].
    levels: the largest gray level, 255 for 8 bit.
    reduction: how `lr` was made.
    width: how wide the box is at least, to either side, in gray levels: that of the noise of `lr`.
    steps: alternating projections (onto the box, and onto [0, 1]).

  Returns:
    Images in [0, 1], not rounded.
  """
  rows, columns = (_operators(reduction, side) for side in sr.shape[1:3])
  sr, lr = jnp.clip(sr, 0.0, 1.0), jnp.asarray(lr)
  reduced = _apply(columns['down'], _apply(rows['down'], sr, 1), 2)
  between = (lr > 0) & (lr < 1)
  off = jnp.sum(jnp.abs(reduced - lr) * between, axis=(1, 2, 3), keepdims=True) * levels
  off = off / jnp.maximum(between.sum((1, 2, 3), keepdims=True), 1)
  slack = jnp.maximum(jnp.where(off > _SLACK, _TIGHT, _SLACK), width) / levels
  low = jnp.where(lr <= 0, -jnp.inf, lr - slack)
  high = jnp.where(lr >= 1, jnp.inf, lr + slack)
  last, momentum = sr, 1.0
  for step in range(steps):
    if step:
      reduced = _apply(columns['down'], _apply(rows['down'], sr, 1), 2)
    missed = jnp.clip(reduced, low, high) - reduced
    for name in ('solve', 'up'):
      missed = _apply(rows[name], _apply(columns[name], missed, 2), 1)
    new = jnp.clip(sr + missed, 0.0, 1.0)
    following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
    sr = new + np.float32((momentum - 1) / following) * (new - last)
    last, momentum = new, following
  return last


def _operators(reduction: Reduction, size: Any) -> dict[str, _Band | Filter]:
  """Returns a reduction along one axis, the inverse of (matrix @ matrix.T), and its transpose."""
  scale, is_known = reduction.scale, isinstance(size, int)
  down = matrix(reduction, size if is_known else SAMPLE * scale)
  make = _band if is_known else make_filter
  return {
    'down': make(down, 1, scale, _REACH),
    'solve': make(np.linalg.inv(down @ down.T), 1, 1, _INVERSE_REACH if is_known else LONGEST),
    'up': make(down.T, scale, 1, _REACH),
  }


def _band(full: np.ndarray, p: int, q: int, reach: int) -> _Band:
  """Cut a matrix [p * n, q * n] into blocks; entries beyond `reach` positions are dropped."""
  n = full.shape[0] // p
  count = -(-n // _BLOCK)
  padded = np.zeros((p * count * _BLOCK, q * (count * _BLOCK + 2 * reach)), np.float32)
  padded[: p * n, q * reach : q * (reach + n)] = full
  tall, wide = p * _BLOCK, q * (_BLOCK + 2 * reach)
  starts = range(0, count * _BLOCK, _BLOCK)
  blocks = [padded[p * i : p * i + tall, q * i : q * i + wide] for i in starts]
  return _Band(np.stack(blocks), p * n, q * _BLOCK, q * reach)


def _apply(band: _Band | Filter, x: Array, axis: int) -> Array:
  """Multiply a banded matrix with images along an axis."""
  if isinstance(band, Filter):
    return band.apply(x, axis)
  x = jnp.moveaxis(x, axis, 1)
  count, _, wide = band.blocks.shape
  hops = -(-wide // band.hop)
  after = (count - 1 + hops) * band.hop - band.pad - x.shape[1]
  padded = jnp.pad(x, ((0, 0), (band.pad, after), (0, 0), (0, 0)))
  # A window is some neighboring hops; a slice for each of them would take seconds to compile.
  parts = padded.reshape(x.shape[0], -1, band.hop, *x.shape[2:])
  windows = jnp.concatenate([parts[:, i : i + count] for i in range(hops)], axis=2)[:, :, :wide]
  y = jnp.einsum('nok,bnkxc->bnoxc', band.blocks, windows, precision='highest')
  y = y.reshape(x.shape[0], -1, *x.shape[2:])[:, : band.size]
  return jnp.moveaxis(y, 1, axis)
