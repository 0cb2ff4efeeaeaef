"""Depthwise convolutions as sums of shifted images, for CPUs.

On 1x256x256x64, XLA's convolution takes 103 ms for 3x3 (shifted: 5.8 ms) and 401 ms for 9x9
(shifted: 15.3 ms).
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsr.ops.broadcast import per_channel
from jaxsr.ops.resample import Pads, pad, written_over

_LARGE = 5  # the side of a kernel from which the methods for large kernels are used
_CHUNKS = 4  # chunks of rows in which a large kernel is computed


@partial(jax.jit, static_argnums=(2, 3))  # repeated layers are traced once
def convolve(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k l 1 c'],
  strides: tuple[int, int],
  padding: Pads,
) -> Float[Array, 'b y x c']:
  """Depthwise convolution of images that are padded with zeros."""
  return jnp.asarray(_convolve(x, kernel, strides, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, kernel: Array, strides: tuple[int, int], padding: Pads) -> Array:
  x = pad(x, padding)
  if not _large(kernel, strides):
    return _sum_shifts(x, kernel, strides)
  # A loop, since XLA recomputes a long sum in each fusion that reads it.
  height, width = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
  rows = -(-height // _CHUNKS)
  x = pad(x, ((0, rows * _CHUNKS - height), (0, 0)))
  y = written_over(x, (x.shape[0], rows * _CHUNKS, width, x.shape[3]))

  def compute(i: Array, y: Array) -> Array:
    part = lax.dynamic_slice_in_dim(x, i * rows, rows + kernel.shape[0] - 1, 1)
    return lax.dynamic_update_slice_in_dim(y, _sum_shifts(part, kernel, strides), i * rows, 1)

  return lax.fori_loop(0, _CHUNKS, compute, y)[:, :height]


def _large(kernel: Array, strides: Sequence[int]) -> bool:
  return max(kernel.shape[:2]) >= _LARGE and set(strides) == {1}


def _sum_shifts(x: Array, kernel: Array, strides: Sequence[int]) -> Array:
  parts = _shifts(x, kernel.shape, strides)
  return jnp.asarray(sum(part * per_channel(kernel[i, j, 0]) for (i, j), part in parts))


def _shifts(
  x: Array, shape: Sequence[int], strides: Sequence[int]
) -> Iterator[tuple[tuple[int, int], Array]]:
  """Yields each position in the kernel with the pixels of the padded images that it multiplies."""
  lengths = zip(x.shape[1:3], shape, strides, strict=False)
  height, width = ((n - k) // s + 1 for n, k, s in lengths)
  for i, j in np.ndindex(*shape[:2]):
    yield (i, j), x[:, i :: strides[0], j :: strides[1]][:, :height, :width]


def _with_saved(
  x: Array, kernel: Array, strides: Sequence[int], padding: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, strides, padding), (x, kernel)


def _gradients(
  strides: Sequence[int], padding: Pads, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  x, kernel = saved
  spread = lax.pad(
    gradient,
    jnp.zeros((), gradient.dtype),
    [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)],
  )
  around = tuple(
    (k - 1 - low, n - m + low)
    for k, n, m, (low, _) in zip(kernel.shape, x.shape[1:], spread.shape[1:], padding, strict=False)
  )
  of_x = jnp.asarray(convolve(spread, kernel[::-1, ::-1], (1, 1), around))
  x = pad(x, padding)
  if _large(kernel, strides):
    return of_x, _correlate(x, gradient, kernel.shape)
  return of_x, _sum_products(x, gradient, kernel.shape, strides)


_convolve.defvjp(_with_saved, _gradients)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sum_products(x: Array, gradient: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
  """Returns the gradient of the kernel: per position, the sum of its pixels times the gradient.

  One reduction computes all positions in one pass; separate sums would each read both images.
  """
  products = [part * gradient for _, part in _shifts(x, shape, strides)]
  add = lambda sums, terms: [a + b for a, b in zip(sums, terms, strict=True)]  # noqa: E731
  sums = lax.reduce(products, [jnp.zeros((), x.dtype)] * len(products), add, (2,))
  return jnp.stack(sums).sum((1, 2)).reshape(shape)


def _sum_products_forward(
  x: Array, gradient: Array, shape: Sequence[int], strides: Sequence[int]
) -> tuple[Array, tuple[Array, Array]]:
  return _sum_products(x, gradient, shape, strides), (x, gradient)


def _sum_products_back(
  shape: Sequence[int], strides: Sequence[int], saved: tuple[Array, Array], pull: Array
) -> tuple[Array, Array]:
  x, gradient = saved
  of_gradient, back = jax.vjp(lambda x: _sum_shifts(x, pull, strides), x)
  return back(gradient)[0], of_gradient


_sum_products.defvjp(_sum_products_forward, _sum_products_back)


def _correlate(x: Array, gradient: Array, shape: Sequence[int]) -> Array:
  """Returns the gradient of a large depthwise kernel, by products of tiles with their surroundings.

  A product over all tiles correlates each pixel of a tile with each pixel around it; a position in
  the kernel is the sum of the pairs at its offset. Separate sums, one per position, would read both
  images once per position.
  """
  size = max(shape[:2])
  side = 3 * (size - 1) // 2  # of a tile: 12 for 9x9, the fastest by measurement
  batch, height, width, channels = gradient.shape
  down, across = -(-height // side), -(-width // side)
  x = _tiles(x, side, down + 1, across + 1)
  x = jnp.concatenate([x[:, :, :, :, :down], x[:, : shape[0] - 1, :, :, 1:]], 1)
  x = jnp.concatenate([x[..., :across], x[:, :, : shape[1] - 1, ..., 1:]], 2)
  gradient = _tiles(gradient, side, down, across)
  pairs = jnp.einsum(
    'cat,cbt->cab',
    x.reshape(channels, -1, batch * down * across),
    gradient.reshape(channels, side**2, -1),
  ).reshape(channels, side + shape[0] - 1, side + shape[1] - 1, side, side)
  rows = [sum(pairs[:, a + i, :, a] for a in range(side)) for i in range(shape[0])]
  rows = jnp.stack(rows)  # [k, c, columns, side]
  columns = [sum(rows[:, :, a + j, a] for a in range(side)) for j in range(shape[1])]
  return jnp.stack(columns, 1)[:, :, None]


def _tiles(x: Array, side: int, down: int, across: int) -> Array:
  """Pad or crop images to tiles: [channel, row, column, image, tile, tile]."""
  batch, height, width, channels = x.shape
  missing = (down * side - height, across * side - width)
  x = pad(x, [(0, n) for n in missing]).reshape(batch, down, side, across, side, channels)
  return x.transpose(5, 2, 4, 0, 1, 3)
