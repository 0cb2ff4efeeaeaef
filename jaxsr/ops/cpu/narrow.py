"""Convolutions with few outputs, for CPUs, where XLA's leave most of each register empty."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsr.ops.resample import NHWC, Pads, pad

_TAPS = 32  # numbers per input channel up to which every pixel is multiplied by the entire kernel
_TOGETHER = 4  # adjacent pixels that are computed together for larger kernels


@partial(jax.jit, static_argnums=2)  # repeated layers are traced once
def convolve(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'k l c d'], padding: Pads
) -> Float[Array, 'b y x d']:
  """Convolution with stride 1 of images that are padded with zeros."""
  return jnp.asarray(_convolve(x, kernel, padding))


def pays(shape: tuple[int, ...]) -> bool:
  """Whether this is faster on a CPU than XLA's convolution, for kernels of a shape."""
  return shape[-1] <= 4 and shape[-2] >= 16


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: Pads) -> Array:
  height, width, _, outputs = kernel.shape
  if height * width * outputs <= _TAPS:
    return _project(x, kernel, padding)
  if outputs == 1 and sum(padding[1]) == width - 1 and x.shape[2] % _TOGETHER == 0:
    return _together(x, kernel, padding)
  y = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=NHWC)
  return jnp.asarray(y)


def _project(x: Array, kernel: Array, padding: Pads) -> Array:
  """Multiply every pixel by the entire kernel, then sum the products that belong to a pixel."""
  height, width, inputs, outputs = kernel.shape
  taps = jnp.einsum('bhwc,cn->bhwn', x, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
  taps = pad(taps, padding)  # smaller than the padded image would be
  rows, columns = taps.shape[1] - height + 1, taps.shape[2] - width + 1
  taps = taps.reshape(*taps.shape[:3], height, width, outputs)
  return sum(
    (taps[:, i : i + rows, j : j + columns, i, j] for i, j in np.ndindex(height, width)),
    jnp.zeros((), x.dtype),
  )


def _together(x: Array, kernel: Array, padding: Pads) -> Array:
  """Treat adjacent pixels as channels of one: more outputs, at the cost of products with zeros."""
  batch, rows, width, inputs = x.shape
  low, high = padding[1]
  before, after = -(-low // _TOGETHER), -(-high // _TOGETHER)
  spare = before * _TOGETHER - low, after * _TOGETHER - high
  shifts = [
    jnp.pad(kernel, ((0, 0), (spare[0] + i, spare[1] + _TOGETHER - 1 - i), (0, 0), (0, 0)))
    for i in range(_TOGETHER)
  ]
  kernel = jnp.concatenate(shifts, -1).reshape(kernel.shape[0], -1, _TOGETHER * inputs, _TOGETHER)
  x = x.reshape(batch, rows, -1, _TOGETHER * inputs)
  around = (padding[0], (before, after))
  y = lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=NHWC)
  return y.reshape(batch, -1, width, 1)


def _with_saved(x: Array, kernel: Array, padding: Pads) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, padding), (x, kernel)


def _gradients(padding: Pads, saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
  x, kernel = saved
  height, width, inputs, _ = kernel.shape
  sides = zip((height, width), padding, strict=True)
  pull = pad(pull, tuple((n - 1 - low, n - 1 - high) for n, (low, high) in sides))
  # The gradients around each pixel, in the order of the flipped kernel: columns first, then rows.
  near = jnp.concatenate([pull[:, :, j : j + x.shape[2]] for j in range(width)], -1)
  near = jnp.concatenate([near[:, i : i + x.shape[1]] for i in range(height)], -1)
  turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  of_x = jnp.einsum('bhwn,nc->bhwc', near, turned.reshape(-1, inputs))
  of_kernel = jnp.einsum('pn,pc->nc', near.reshape(-1, near.shape[-1]), x.reshape(-1, inputs))
  of_kernel = of_kernel.reshape(turned.shape).transpose(0, 1, 3, 2)[::-1, ::-1]
  return jnp.asarray(of_x), jnp.asarray(of_kernel)


_convolve.defvjp(_with_saved, _gradients)
