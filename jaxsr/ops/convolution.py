"""Convolutions, computed as suits where they run.

XLA's own are fast on accelerators. On CPUs some are not, and their gradients less: what is done
there in their place was chosen by measurement: `python -m benchmarks.convolutions`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.ops.cpu import depthwise, halo, narrow, winograd
from jaxsr.ops.resample import NHWC, Pads, pad, pixel_shuffle


def convolve(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k l d e'],
  strides: Sequence[int],
  padding: str | Pads,
  *,
  feature_group_count: int = 1,
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  preferred_element_type: DTypeLike | None = None,
  **options: Any,
) -> Float[Array, 'b y x e']:
  """Convolve as `lax.conv_general_dilated` does, under whose name `nn.Conv` calls this.

  On a CPU one of 1x1 is a matrix product; one of 3x3 goes by Winograd's tiles; one with few outputs
  multiplies every pixel by the whole kernel, or takes four together; and one with a group for each
  channel is shifted multiply-adds: each where that is faster.
  """
  own = partial(
    lax.conv_general_dilated,
    window_strides=strides,
    padding=padding,
    feature_group_count=feature_group_count,
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    preferred_element_type=preferred_element_type,
    **options,
  )
  dilated = any(set(dilation or (1,)) != {1} for dilation in (lhs_dilation, rhs_dilation))
  special = dilated or preferred_element_type is not None
  way = None if special else _way(x, kernel, strides, feature_group_count)
  if way is None:
    return jnp.asarray(own(x, kernel))
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  pads = tuple((low, high) for low, high in padding)
  if halo.parts() > 1:
    if not halo.divides(x, kernel, pads):
      return jnp.asarray(own(x, kernel))
    way = partial(halo.divide, way)
  ours = lambda x, kernel: way(x, kernel, pads)  # noqa: E731
  return jnp.asarray(lax.platform_dependent(x, kernel, cpu=ours, default=own))


def _way(
  x: Array, kernel: Array, strides: Sequence[int], groups: int
) -> Callable[[Array, Array, Pads], Array] | None:
  """Choose how a CPU convolves; None where XLA's own is best."""
  height, width, inputs, outputs = kernel.shape
  if groups == outputs > 1 and inputs == 1:
    return lambda x, kernel, pads: jnp.asarray(depthwise.convolve(x, kernel, tuple(strides), pads))
  if groups > 1 or set(strides) != {1} or x.dtype not in (jnp.float32, jnp.float64):
    return None
  if (height, width) == (1, 1):
    return _mix
  if narrow.pays(kernel.shape):
    return narrow.convolve
  if (height, width) == (3, 3) and winograd.pays(x.shape, inputs, outputs):
    return winograd.convolve  # type: ignore[return-value]
  return None


def _mix(x: Array, kernel: Array, pads: Pads) -> Array:
  return multiply(pad(x, pads), kernel[0, 0])


def multiply(
  x: Float[Array, '... c'], kernel: Float[Array, 'c d'], *_: Any, **options: Any
) -> Float[Array, '... d']:
  """Multiply the last dimension by a matrix, in the place of `lax.dot_general` in `nn.Dense`.

  The kernel's gradient sums over one dimension then; over several XLA has no fast product on CPUs.
  """
  y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, **options)
  return y.reshape(*x.shape[:-1], -1)


def join(
  parts: Sequence[Float[Array, 'b h w _']], kernel: Float[Array, '1 1 c d']
) -> Float[Array, 'b h w d']:
  """Convolve by 1x1 what several images are, side by side in their channels.

  On a CPU that is a sum of products: XLA puts them side by side on one core.
  """

  def whole(kernel: Array, *parts: Array) -> Array:
    x = jnp.concatenate(parts, axis=-1)
    return lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=NHWC)

  def one_by_one(kernel: Array, *parts: Array) -> Array:
    ends = np.cumsum([x.shape[-1] for x in parts])
    kernels = jnp.split(kernel[0, 0], ends[:-1])
    made = [multiply(x, k) for x, k in zip(parts, kernels, strict=True)]
    return sum(made[1:], made[0])

  on_cpu = one_by_one if kernel.dtype in (jnp.float32, jnp.float64) else whole
  return jnp.asarray(lax.platform_dependent(kernel, *parts, cpu=on_cpu, default=whole))


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
    x, kernel, (factor, factor), around, dimension_numbers=NHWC, transpose_kernel=True
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
  phases = lax.conv_general_dilated(x, taps, (1, 1), (around, around), dimension_numbers=NHWC)
  return pixel_shuffle(phases, factor)
