"""Projection of upscaled images onto those that agree with their low resolution, in JAX.

The matrices of a reduction are banded, and so are their pseudo-inverses but for weights below 1e-4.
They are applied in blocks, whose cost grows with the number of pixels, or as filters if the sizes
are symbolic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsr.inference.agreement.bands import make_columns, make_rows
from jaxsr.inference.agreement.filters import LONGEST, SAMPLE, make_filter
from jaxsr.inference.agreement.reduction import Reduction, matrix

STEPS = 5
MARGIN = 12  # low-resolution pixels around a tile beyond which its ends change less than 1e-4
_SLACK, _TIGHT = 0.18, 0.1  # gray levels on either side of the input
_REACH = 2  # low-resolution pixels on either side that a reduction combines
_INVERSE_REACH = 9  # the same of the inverse of (matrix @ matrix.T), up to 1e-4

_Operator = Callable[[Array], Array]


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
  reduce, expand = _operators(reduction, *sr.shape[1:3])
  sr, lr = (jnp.moveaxis(jnp.asarray(x), 3, 1) for x in (sr, lr))  # [b, c, h, w]
  sr = jnp.clip(sr, 0.0, 1.0)
  reduced = reduce(sr)
  between = (lr > 0) & (lr < 1)
  off = jnp.sum(jnp.abs(reduced - lr) * between, axis=(1, 2, 3), keepdims=True) * levels
  off = off / jnp.maximum(between.sum((1, 2, 3), keepdims=True), 1)
  slack = jnp.maximum(jnp.where(off > _SLACK, _TIGHT, _SLACK), width) / levels
  low = jnp.where(lr <= 0, -jnp.inf, lr - slack)
  high = jnp.where(lr >= 1, jnp.inf, lr + slack)
  last, momentum = sr, 1.0
  for step in range(steps):
    if step:
      reduced = reduce(sr)
    new = jnp.clip(sr + expand(jnp.clip(reduced, low, high) - reduced), 0.0, 1.0)
    following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
    sr = new + np.float32((momentum - 1) / following) * (new - last)
    last, momentum = new, following
  return jnp.moveaxis(last, 1, 3)


def _operators(reduction: Reduction, height: Any, width: Any) -> tuple[_Operator, _Operator]:
  """Returns a reduction of images [b, c, height, width], and its pseudo-inverse.

  Both act on one axis after the other. The inverse of (matrix @ matrix.T) and the transpose of the
  matrix are one step along the columns, where images are small, and two along the rows.
  """
  scale = reduction.scale
  down, solve, up = _matrices(reduction, height)
  if isinstance(height, int):
    rows = make_rows(down, 1, scale, _REACH)
    solve_rows, up_rows = make_rows(solve, 1, 1, _INVERSE_REACH), make_rows(up, scale, 1, _REACH)
  else:
    rows, solve_rows, up_rows = (
      partial(make_filter(full, p, q, reach).apply, axis=2)
      for full, p, q, reach in (
        (down, 1, scale, _REACH),
        (solve, 1, 1, LONGEST),
        (up, scale, 1, _REACH),
      )
    )
  down, solve, up = _matrices(reduction, width)
  if isinstance(width, int):
    columns = make_columns(down, 1, scale, _REACH)
    up_columns = make_columns(up @ solve, scale, 1, _INVERSE_REACH + _REACH)
  else:
    columns = partial(make_filter(down, 1, scale, _REACH).apply, axis=3)
    up_columns = partial(make_filter(up @ solve, scale, 1, LONGEST).apply, axis=3)
  return lambda x: columns(rows(x)), lambda x: up_rows(up_columns(solve_rows(x)))


def _matrices(reduction: Reduction, size: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns a reduction along one axis, the inverse of (matrix @ matrix.T), and its transpose."""
  down = matrix(reduction, size if isinstance(size, int) else SAMPLE * reduction.scale)
  return down, np.linalg.inv(down @ down.T), down.T
