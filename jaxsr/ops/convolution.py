"""Convolutions, with separate implementations for CPUs and accelerators.

XLA's convolutions are fast on accelerators. On CPUs some are slow, and their gradients are slower.
The replacements for CPUs were chosen by measurement: `python -m benchmarks.convolutions`.
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
from jaxsr.ops.platform import by_platform, is_plain
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
  """Drop-in replacement for `lax.conv_general_dilated` in `nn.Conv`.

  On a CPU, if it is faster than XLA's convolution:

  - a 1x1 convolution is a matrix product;
  - a 3x3 convolution uses Winograd's tiles;
  - a convolution with few outputs multiplies every pixel by the entire kernel, or computes four
    pixels together;
  - a depthwise convolution is a sum of shifted products.
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
  special = dilated or preferred_element_type is not None or is_plain()
  way = None if special else _choose_algorithm(x, kernel, strides, feature_group_count)
  if way is None:
    return jnp.asarray(own(x, kernel))
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
  pads = tuple((low, high) for low, high in padding)
  if halo.parts() > 1:
    if not halo.divides(x, kernel, pads):
      return jnp.asarray(own(x, kernel))
    way = partial(halo.divide, way)
  on_cpu = lambda x, kernel: way(x, kernel, pads)  # noqa: E731
  return jnp.asarray(by_platform(x, kernel, cpu=on_cpu, default=own))


def _choose_algorithm(
  x: Array, kernel: Array, strides: Sequence[int], groups: int
) -> Callable[[Array, Array, Pads], Array] | None:
  """Returns the fastest convolution on a CPU, or None if that is XLA's."""
  height, width, inputs, outputs = kernel.shape
  if groups == outputs > 1 and inputs == 1:
    return lambda x, kernel, pads: jnp.asarray(depthwise.convolve(x, kernel, tuple(strides), pads))
  if groups > 1 or set(strides) != {1} or x.dtype not in (jnp.float32, jnp.float64):
    return None
  if (height, width) == (1, 1):
    return _convolve_1x1
  if narrow.pays(kernel.shape):
    return narrow.convolve
  if (height, width) == (3, 3) and winograd.pays(x.shape, inputs, outputs):
    return winograd.convolve  # type: ignore[return-value]
  return None


def _convolve_1x1(x: Array, kernel: Array, pads: Pads) -> Array:
  return multiply(pad(x, pads), kernel[0, 0])


def multiply(
  x: Float[Array, '... c'], kernel: Float[Array, 'c d'], *_: Any, **options: Any
) -> Float[Array, '... d']:
  """Multiply the last dimension by a matrix; replaces `lax.dot_general` in `nn.Dense`.

  The gradient of the kernel then contracts a single dimension; XLA has no fast product on CPUs that
  contracts several.
  """
  y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, **options)
  return y.reshape(*x.shape[:-1], -1)


def join(
  parts: Sequence[Float[Array, 'b h w _']], kernel: Float[Array, '1 1 c d']
) -> Float[Array, 'b h w d']:
  """1x1 convolution of images that are concatenated along their channels.

  On a CPU this is a sum of products, since XLA concatenates on a single core.
  """

  def concatenated(kernel: Array, *parts: Array) -> Array:
    x = jnp.concatenate(parts, axis=-1)
    return lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=NHWC)

  def one_by_one(kernel: Array, *parts: Array) -> Array:
    ends = np.cumsum([x.shape[-1] for x in parts])
    kernels = jnp.split(kernel[0, 0], ends[:-1])
    products = [multiply(x, k) for x, k in zip(parts, kernels, strict=True)]
    return sum(products[1:], products[0])

  on_cpu = one_by_one if kernel.dtype in (jnp.float32, jnp.float64) else concatenated
  return jnp.asarray(by_platform(kernel, *parts, cpu=on_cpu, default=concatenated))


def deconvolve(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k d c'], factor: int, padding: int
) -> Float[Array, 'b sh sw d']:
  """Transposed convolution with stride `factor`, in PyTorch's geometry.

  `padding` is PyTorch's; the output padding is the one that makes the result `factor` times as
  large as the input. The kernel must not be smaller than the factor. On a CPU, the gradient is
  computed through an equivalent plain convolution and pixel shuffle, since XLA has no fast weight
  gradient for dilated inputs there (5.1 s for 2x32x32x256, kernel 3, factor 2, instead of 0.12 s).
  """
  return jnp.asarray(_deconvolve(x, kernel, factor, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _deconvolve(x: Array, kernel: Array, factor: int, padding: int) -> Array:
  return _by_dilation(x, kernel, factor, padding)


def _deconvolve_forward(x: Array, kernel: Array, factor: int, padding: int) -> tuple:
  return _by_dilation(x, kernel, factor, padding), (x, kernel)


def _deconvolve_backward(factor: int, padding: int, saved: tuple, gradient: Array) -> tuple:
  def gradients_of(compute: Callable[..., Array]) -> Callable[..., tuple]:
    forward = lambda x, kernel: compute(x, kernel, factor, padding)  # noqa: E731
    return lambda x, kernel, g: jax.vjp(forward, x, kernel)[1](g)

  cpu, default = gradients_of(_by_phases), gradients_of(_by_dilation)
  return by_platform(*saved, gradient, cpu=cpu, default=default)


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
