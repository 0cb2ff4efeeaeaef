"""Banded matrices as filters, for images whose sizes are not known when a projection is traced.

The matrix of a reduction has the same row everywhere, shifted, except near its ends. So have its
transpose and, except for differences below 1e-7, the inverse of (matrix @ matrix.T).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

SMALLEST = 32  # low-resolution pixels per side, of which `_END` at each end have their own rows
SAMPLE = 64  # low-resolution pixels of the axis whose matrix a filter is read from
LONGEST = _END = 12  # the reach that a filter has at most


class Filter(NamedTuple):
  """A matrix [p * n, q * n], for every n of at least `SMALLEST`.

  Attributes:
    taps: [q * (2 * reach + 1), p], the weights of the columns around a low-resolution pixel.
    first: [p * _END, columns], the first rows.
    last: [p * _END, columns], the last rows.
    p: rows per low-resolution pixel.
    q: columns per low-resolution pixel.
  """

  taps: np.ndarray
  first: np.ndarray
  last: np.ndarray
  p: int
  q: int

  def apply(self, x: Float[Array, 'b c h w'], axis: int) -> Float[Array, 'b c h2 w2']:
    """Multiply the matrix with images along an axis: 2, their height, or 3, their width."""
    x = jnp.moveaxis(x, axis, 1)
    b, length, c, other = x.shape
    lines = x.reshape(b, length, c * other, 1)
    skipped = self.q * _END - (len(self.taps) - self.q) // 2
    middle: Any = lax.conv_general_dilated(
      lax.slice_in_dim(lines, skipped, length - skipped, axis=1),
      jnp.asarray(self.taps[:, None, None]),
      (self.q, 1),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision='highest',
    )
    n = length // self.q - 2 * _END
    middle = middle.transpose(0, 1, 3, 2).reshape(b, self.p * n, c * other, 1)
    wide = self.first.shape[1]
    ends = [(self.first, 0, wide), (self.last, length - wide, length)]
    first, last = (
      jnp.einsum('ok,bkxc->boxc', rows, lax.slice_in_dim(lines, *part, axis=1), precision='highest')
      for rows, *part in ends
    )
    y = jnp.concatenate([first, middle, last], axis=1)
    return jnp.moveaxis(y.reshape(b, self.p * (n + 2 * _END), c, other), 1, axis)


def make_filter(full: Float[np.ndarray, 'rows columns'], p: int, q: int, reach: int) -> Filter:
  """Read a filter from its matrix for `SAMPLE` pixels, without entries beyond `reach` pixels."""
  middle, wide = SAMPLE // 2, q * (_END + reach)
  taps = full[p * middle : p * (middle + 1), q * (middle - reach) : q * (middle + reach + 1)]
  first, last = full[: p * _END, :wide], full[-p * _END :, -wide:]
  return Filter(*(np.asarray(x, np.float32) for x in (taps.T, first, last)), p=p, q=q)
