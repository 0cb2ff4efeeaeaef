"""Convolutions, computed as suits where they run.

XLA's own are fast on accelerators. On CPUs some are not, and their gradients less: what is done
there in their place was chosen by measurement, `python -m benchmarks.convolutions`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsr.ops import winograd
from jaxsr.ops.images import pixel_shuffle
from jaxsr.ops.winograd import Pads

_NHWC = ('NHWC', 'HWIO', 'NHWC')
FEW = 4  # outputs, up to which a convolution is a projection and sums of shifts
_LARGE = 5  # the side of a depthwise kernel from which it has ways of its own
_CHUNKS = 4  # in which it is computed


def convolve(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k l d e'],
  strides: Sequence[int],
  padding: str | Pads,
  *,
  feature_group_count: int = 1,
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  **options: Any,
) -> Float[Array, 'b y x e']:
  """Convolve as `lax.conv_general_dilated` does, under whose name `nn.Conv` calls this.

  On a CPU one of 1x1 is a matrix product; one of 3x3 goes by Winograd's tiles; one with few outputs
  projects first and then sums what is shifted; and one with a group for each channel is shifted
  multiply-adds: each where that is faster.
  """
  own = partial(
    lax.conv_general_dilated,
    window_strides=strides,
    padding=padding,
    feature_group_count=feature_group_count,
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    **options,
  )
  dilated = any(set(dilation or (1,)) != {1} for dilation in (lhs_dilation, rhs_dilation))
  way = None if dilated else _way(x, kernel, strides, feature_group_count)
  if way is None:
    return jnp.asarray(own(x, kernel))
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  ours = lambda x, kernel: way(x, kernel, tuple(padding))  # noqa: E731
  return jnp.asarray(lax.platform_dependent(x, kernel, cpu=ours, default=own))


def _way(
  x: Array, kernel: Array, strides: Sequence[int], groups: int
) -> Callable[[Array, Array, Pads], Array] | None:
  """Choose how a CPU convolves; None where XLA's own is best."""
  height, width, inputs, outputs = kernel.shape
  if groups == outputs > 1 and inputs == 1:
    return lambda x, kernel, pads: _by_shifts(x, kernel, tuple(strides), pads)
  if groups > 1 or set(strides) != {1} or x.dtype == jnp.bfloat16:
    return None
  if (height, width) == (1, 1):
    return _mix
  if outputs <= FEW and inputs >= height * width * outputs:
    return _project
  if (height, width) == (3, 3) and winograd.pays(x.shape, inputs, outputs):
    return winograd.convolve  # type: ignore[return-value]
  return None


def _pad(x: Array, pads: Pads) -> Array:
  return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _mix(x: Array, kernel: Array, pads: Pads) -> Array:
  return jnp.einsum('bhwc,cd->bhwd', _pad(x, pads), kernel[0, 0])


def _project(x: Array, kernel: Array, pads: Pads) -> Array:
  """Multiply every pixel by the whole kernel, then sum what meets in a pixel."""
  x = _pad(x, pads)
  height, width, inputs, outputs = kernel.shape
  rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
  taps = jnp.einsum('bhwc,cn->bhwn', x, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
  taps = taps.reshape(*x.shape[:3], height, width, outputs)
  return sum(
    (taps[:, i : i + rows, j : j + columns, i, j] for i, j in np.ndindex(height, width)),
    jnp.zeros((), x.dtype),
  )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_shifts(x: Array, kernel: Array, strides: Sequence[int], padding: Pads) -> Array:
  x = _pad(x, padding)
  if kernel.shape[0] < _LARGE or tuple(strides) != (1, 1):
    return _sum_shifts(x, kernel, strides)
  # In a loop, since XLA computes a long sum again in each fusion that reads it.
  height, width = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
  rows = -(-height // _CHUNKS)
  y = jnp.zeros((x.shape[0], rows * _CHUNKS, width, x.shape[3]), x.dtype)
  x = _pad(x, ((0, rows * _CHUNKS - height), (0, 0)))

  def compute(i: Array, y: Array) -> Array:
    part = lax.dynamic_slice_in_dim(x, i * rows, rows + kernel.shape[0] - 1, 1)
    return lax.dynamic_update_slice_in_dim(y, _sum_shifts(part, kernel, strides), i * rows, 1)

  return lax.fori_loop(0, _CHUNKS, compute, y)[:, :height]


def _sum_shifts(x: Array, kernel: Array, strides: Sequence[int]) -> Array:
  return jnp.asarray(sum(part * kernel[i, j, 0] for (i, j), part in _shifts(x, kernel, strides)))


def _shifts(
  x: Array, kernel: Array, strides: Sequence[int]
) -> Iterator[tuple[tuple[int, int], Array]]:
  """Cut out, for each place in the kernel, the pixels of padded images that it meets."""
  lengths = zip(x.shape[1:3], kernel.shape, strides, strict=False)
  height, width = ((n - k) // s + 1 for n, k, s in lengths)
  for i, j in np.ndindex(*kernel.shape[:2]):
    yield (i, j), x[:, i :: strides[0], j :: strides[1]][:, :height, :width]


def _by_shifts_forward(
  x: Array, kernel: Array, strides: Sequence[int], padding: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return _by_shifts(x, kernel, strides, padding), (x, kernel)


def _by_shifts_backward(
  strides: Sequence[int], padding: Pads, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  x, kernel = saved
  spread = lax.pad(
    gradient,
    jnp.zeros((), gradient.dtype),
    [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)],
  )
  around = [
    (k - 1 - low, n - m + low)
    for k, n, m, (low, _) in zip(kernel.shape, x.shape[1:], spread.shape[1:], padding, strict=False)
  ]
  of_x = jnp.asarray(_by_shifts(spread, kernel[::-1, ::-1], (1, 1), around))
  x = _pad(x, padding)
  if kernel.shape[0] >= _LARGE and tuple(strides) == (1, 1):
    return of_x, _correlate(x, gradient, kernel.shape)
  of_kernel = [(part * gradient).sum((0, 1, 2)) for _, part in _shifts(x, kernel, strides)]
  return of_x, jnp.stack(of_kernel).reshape(kernel.shape)


_by_shifts.defvjp(_by_shifts_forward, _by_shifts_backward)


def _correlate(x: Array, gradient: Array, shape: Sequence[int]) -> Array:
  """Give the gradient of a large depthwise kernel, by products of tiles with what surrounds them.

  A product over all tiles says how each pixel of a tile goes with each of its surroundings; a place
  in the kernel is the sum of those pairs that lie so far apart. XLA's sums, one for each place,
  read both images as often.
  """
  size = max(shape[:2])
  side = 3 * (size - 1) // 2  # of a tile: 12 for 9x9, found best there
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
  """Fill images up, or cut them, to tiles: [channel, row, column, image, tile, tile]."""
  batch, height, width, channels = x.shape
  missing = (down * side - height, across * side - width)
  x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((0, n, 0) for n in missing), (0, 0, 0)))
  x = x.reshape(batch, down, side, across, side, channels)
  return x.transpose(5, 2, 4, 0, 1, 3)


def deconvolve(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k d c'], factor: int, padding: int
) -> Float[Array, 'b sh sw d']:
  """Convolve, transposed, with stride `factor`, in PyTorch's geometry.

  It is PyTorch's `padding`, with the output padding under which the result is `factor` times the
  input; the kernel must not be smaller than the factor. Where it runs on a CPU its gradient is that
  of one plain convolution and a pixel shuffle, which is the same: XLA has no fast weight gradient
  of a dilated input there (5.1 s for 2x32x32x256, kernel 3, factor 2, in place of 0.12 s).
  """
  return jnp.asarray(_deconvolve(x, kernel, factor, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _deconvolve(x: Array, kernel: Array, factor: int, padding: int) -> Array:
  return _by_dilation(x, kernel, factor, padding)


def _deconvolve_forward(x: Array, kernel: Array, factor: int, padding: int) -> tuple:
  return _by_dilation(x, kernel, factor, padding), (x, kernel)


def _deconvolve_backward(factor: int, padding: int, saved: tuple, gradient: Array) -> tuple:
  def back(compute: Callable[..., Array]) -> Callable[..., tuple]:
    forward = lambda x, kernel: compute(x, kernel, factor, padding)  # noqa: E731
    return lambda x, kernel, g: jax.vjp(forward, x, kernel)[1](g)

  ways = {'cpu': back(_by_phases), 'default': back(_by_dilation)}
  return lax.platform_dependent(*saved, gradient, **ways)


_deconvolve.defvjp(_deconvolve_forward, _deconvolve_backward)


def _by_dilation(x: Array, kernel: Array, factor: int, padding: int) -> Array:
  around = [(kernel.shape[0] - 1 - padding, padding + factor - 1)] * 2
  y = lax.conv_transpose(
    x, kernel, (factor, factor), around, dimension_numbers=_NHWC, transpose_kernel=True
  )
  return jnp.asarray(y)


def _by_phases(x: Array, kernel: Array, factor: int, padding: int) -> Array:
  """Compute each of the factor x factor phases of the result as channels, then shuffle them.

  Row s q + r of the result sums, over rows q - d of the input, kernel row r + padding + s d.
  """
  size, _, features, channels = kernel.shape
  least, most = -((factor - 1 + padding) // factor), (size - 1 - padding) // factor
  rows = np.arange(factor)[:, None] + padding + factor * np.arange(most, least - 1, -1)
  spare = (max(0, -rows.min()), max(0, rows.max() - size + 1))
  rows += spare[0]
  taps = jnp.pad(kernel, (spare, spare, (0, 0), (0, 0)))[rows][:, :, rows]  # r q r' q' d c
  taps = taps.transpose(1, 3, 5, 0, 2, 4)
  taps = taps.reshape(*taps.shape[:2], channels, factor**2 * features)
  around = (most, -least)
  phases = lax.conv_general_dilated(x, taps, (1, 1), (around, around), dimension_numbers=_NHWC)
  return pixel_shuffle(phases, factor)
