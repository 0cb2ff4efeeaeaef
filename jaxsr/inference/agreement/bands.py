"""Products of banded matrices [p * n, q * n] with images [b, c, h, w], in blocks.

An entry (i, j) of such a matrix is zero, or dropped, unless i / p and j / q differ by at most
`reach` positions. The work grows with the number of pixels, not with its square per axis.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BLOCK = 32  # positions per block of rows
_MOST_PARTS, _LEAST_PART = 8, 64  # of columns: each part takes time to compile


def make_rows(
  full: Float[np.ndarray, 'rows columns'], p: int, q: int, reach: int
) -> Callable[[Float[Array, 'b c h w']], Float[Array, 'b c h2 w']]:
  """Returns the product of a matrix with the rows of images; `reach` is at most 32."""
  n = full.shape[0] // p
  count = -(-n // _BLOCK)
  padded = np.zeros((p * count * _BLOCK, q * (count * _BLOCK + 2 * reach)), np.float32)
  padded[: p * n, q * reach : q * (reach + n)] = full
  end, hop = q * reach, q * _BLOCK
  starts = range(0, count * _BLOCK, _BLOCK)
  blocks = np.stack(
    [padded[p * i : p * (i + _BLOCK), q * i : q * i + hop + 2 * end] for i in starts]
  )
  middle = np.ascontiguousarray(blocks[:, :, end:-end])
  ends = np.concatenate([blocks[:, :, :end], blocks[:, :, -end:]], axis=2)

  def apply(x: Float[Array, 'b c h w']) -> Float[Array, 'b c h2 w']:
    # The pixels before and after a block are a product of their own: windows that overlap would be
    # a copy of the image.
    b, c, h, w = x.shape
    x = jnp.pad(x, ((0, 0), (0, 0), (0, count * hop - h), (0, 0)))
    x = x.reshape(b, c, count, hop, w)
    before = _shift(x[:, :, :, -end:], 1)[:, :, :-1]
    after = _shift(x[:, :, :, :end], 0)[:, :, 1:]
    around = jnp.concatenate([before, after], axis=3)
    y = jnp.matmul(middle, x, precision='highest') + jnp.matmul(ends, around, precision='highest')
    return y.reshape(b, c, -1, w)[:, :, : p * n]

  return apply


def _shift(x: Array, first: int) -> Array:
  """Add a block of zeros, before the others if `first` is 1, else after them."""
  return jnp.pad(x, ((0, 0), (0, 0), (first, 1 - first), (0, 0), (0, 0)))


def make_columns(
  full: Float[np.ndarray, 'rows columns'], p: int, q: int, reach: int
) -> Callable[[Float[Array, 'b c h w']], Float[Array, 'b c h w2']]:
  """Returns the product of a matrix with the columns of images."""
  n = full.shape[0] // p
  part = max(_LEAST_PART, -(-n // _MOST_PARTS))
  parts = []
  for i in range(0, n, part):
    columns = slice(q * max(i - reach, 0), q * (i + part + reach))
    parts.append((columns, full[p * i : p * (i + part), columns].T.astype(np.float32)))

  def apply(x: Float[Array, 'b c h w']) -> Float[Array, 'b c h w2']:
    found = [jnp.matmul(x[..., columns], m, precision='highest') for columns, m in parts]
    return jnp.concatenate(found, axis=3)

  return apply
