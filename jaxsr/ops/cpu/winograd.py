"""3x3 convolutions by Winograd's tiles: F(4x4, 3x3) of Lavin & Gray, CVPR 2016.

Each tile of 6x6 pixels, at a distance of four, is transformed to 36 numbers per channel. There a
convolution is 36 matrix products, with a fourth of the multiplications for 4x4 pixels, and so are
its gradients. In float32 the result differs from XLA's by less than 1e-5 of the largest value.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsr.ops.cpu.halo import parts
from jaxsr.ops.resample import Pads, pad, written_over

TILE = 4  # side of an output tile, in pixels
_REACH = TILE + 2  # side of an input tile
_CHUNK = 2**22  # numbers in the transformed tiles of a chunk, so that it stays in the cache
_LANES = 4  # smaller chunks computed in parallel, one per core; 2 and 3 do not help
_PARTS = 8  # factor by which those chunks are smaller
_WIDE = 256  # sum of input and output channels above which lanes do not help
_LARGE = 2**17  # numbers per position of a tile from which lanes outweigh their compile time
_LEAST = 32  # channels from which Winograd is faster than XLA's convolution

# Where polynomials are evaluated: 0, 1, -1, 2, -2 and infinity.
_IN = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUT = np.array(
  [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def pays(shape: Sequence[int], inputs: int, outputs: int) -> bool:
  """Whether this is faster on a CPU than XLA's convolution, for images of a shape."""
  return min(inputs, outputs) >= _LEAST and min(shape[1:3]) >= 2 * TILE


@partial(jax.jit, static_argnums=2)  # repeated layers are traced once
def convolve(
  x: Float[Array, 'b h w c'], kernel: Float[Array, '3 3 c d'], padding: Pads
) -> Float[Array, 'b y x d']:
  """3x3 convolution with stride 1 of images that are padded with zeros."""
  return jnp.asarray(_convolve(x, kernel, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: Pads) -> Array:
  x = pad(x, padding)
  height, width = x.shape[1] - 2, x.shape[2] - 2
  strips = _divide((x.shape[0], height, width), x.shape[-1] + kernel.shape[-1])
  x = pad(x, strips.missing)
  kernel = _transform(_KERNEL, kernel)

  def compute(i: Array, y: Array) -> Array:
    tiles = [(start, _forward(strips.cut(x, start, 2))) for start in strips.starts(i)]
    for start, part in tiles:
      products = jnp.einsum('ijbhwc,ijcd->ijbhwd', part, kernel)
      y = lax.dynamic_update_slice_in_dim(y, _back(products), start, 1)
    return y

  y = written_over(x, (x.shape[0], x.shape[1] - 2, x.shape[2] - 2, kernel.shape[-1]))
  return lax.fori_loop(0, strips.rounds, compute, y)[:, :height, :width]


def _with_saved(x: Array, kernel: Array, padding: Pads) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, padding), (x, kernel)


def _gradients(padding: Pads, saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
  x, kernel = saved
  around = tuple((2 - low, 2 - high) for low, high in padding)
  of_x = convolve(pull, kernel[::-1, ::-1].swapaxes(2, 3), around)
  return jnp.asarray(of_x), _of_kernel(x, pull, padding)


_convolve.defvjp(_with_saved, _gradients)


def _of_kernel(x: Array, pull: Array, padding: Pads) -> Array:
  """Returns the gradient of the kernel, summed over the transformed tiles."""
  strips = _divide(pull.shape[:3], x.shape[-1] + pull.shape[-1], lanes=1)
  x, pull = pad(pad(x, padding), strips.missing), pad(pull, strips.missing)

  def add(i: Array, total: Array) -> Array:
    (start,) = strips.starts(i)
    seen, pulled = _forward(strips.cut(x, start, 2)), _spread(strips.cut(pull, start))
    return total + jnp.einsum('atc,atd->acd', _flat(seen), _flat(pulled))

  total = jnp.zeros((_REACH**2, x.shape[-1], pull.shape[-1]), x.dtype)
  total = lax.fori_loop(0, strips.rounds, add, total)
  return _transform(_KERNEL.T, total.reshape(_REACH, _REACH, *total.shape[1:]))


def _flat(tiles: Array) -> Array:
  """Flatten tiles to [36, tiles, c]; XLA has no fast product over several dimensions."""
  return tiles.reshape(_REACH**2, -1, tiles.shape[-1])


class _Strips(NamedTuple):
  """Strips of rows of all images, of which `lanes` are computed at a time.

  XLA runs many small products one by one, but runs independent computations in parallel.
  """

  rows: int  # of pixels per strip
  lanes: int
  rounds: int
  missing: Pads  # padding to complete strips

  def starts(self, i: Array) -> list[Array]:
    """Returns the first rows of the strips of a round."""
    return [(lane * self.rounds + i) * self.rows for lane in range(self.lanes)]

  def cut(self, x: Array, start: Array, around: int = 0) -> Array:
    """Returns a strip and `around` more rows."""
    return lax.dynamic_slice_in_dim(x, start, self.rows + around, 1)


def _divide(shape: Sequence[int], channels: int, lanes: int = _LANES) -> _Strips:
  """Returns the strips of images of a shape (without borders), in at most `lanes` lanes."""
  batch, height, width = shape
  down, across = -(-height // TILE), -(-width // TILE)
  apart = parts() > 1  # each core already has its own rows
  large = batch * down * across * channels >= _LARGE and channels <= _WIDE and not apart
  lanes = lanes if large and down >= 4 * lanes else 1
  numbers = _CHUNK // _PARTS if lanes > 1 or apart else _CHUNK
  share = -(-down // lanes)  # rows of tiles per lane
  strips = min(share, -(-batch * share * across * _REACH**2 * channels // numbers))
  most = -(-share // strips)
  cost = lambda rows: -(-share // rows) * (rows + 0.5)  # a strip reads half a tile more  # noqa: E731
  rows = min(range(most, most // 2, -1), key=cost)
  rounds = -(-share // rows)
  missing = ((0, lanes * rounds * rows * TILE - height), (0, across * TILE - width))
  return _Strips(rows * TILE, lanes, rounds, missing)


def _forward(x: Array) -> Array:
  """Transform tiles of padded images: [b, 4 n + 2, 4 m + 2, c] to [6, 6, b, n, m, c]."""
  down, across = (n // TILE for n in x.shape[1:3])
  columns = _combine(_IN, [x[:, :, j : j + across * TILE : TILE] for j in range(_REACH)])
  return _combine(_IN, [columns[:, :, i : i + down * TILE : TILE] for i in range(_REACH)])


def _spread(y: Array) -> Array:
  """Transform gradients: the transpose of `_back`."""
  columns = _combine(_OUT.T, [y[:, :, j::TILE] for j in range(TILE)])
  return _combine(_OUT.T, [columns[:, :, i::TILE] for i in range(TILE)])


def _back(products: Array) -> Array:
  """Transform back: [6, 6, b, n, m, d] to [b, 4 n, 4 m, d]."""
  _, _, batch, down, across, outputs = products.shape
  rows = _combine(_OUT, list(products), axis=3)  # [6, b, n, 4, m, d]
  y = _combine(_OUT, list(rows), axis=4)
  return y.reshape(batch, down * TILE, across * TILE, outputs)


def _transform(matrix: np.ndarray, kernel: Array) -> Array:
  """Transform kernels, [i, j, c, d] to [a, b, c, d]; matrix products would be 10 times slower."""
  rows = _combine(matrix, list(kernel))
  return _combine(matrix, [rows[:, j] for j in range(kernel.shape[1])], axis=1)


def _combine(matrix: np.ndarray, parts: Sequence[Array], axis: int = 0) -> Array:
  """Stack the weighted sums of parts, one for each row of a matrix."""
  scaled = lambda w, part: part if w == 1 else -part if w == -1 else part * float(w)  # noqa: E731
  rows = ([scaled(w, part) for w, part in zip(row, parts, strict=True) if w] for row in matrix)
  return jnp.stack([sum(row[1:], row[0]) for row in rows], axis)
