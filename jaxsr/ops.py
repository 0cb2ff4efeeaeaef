"""Array operations that networks share.

Images are NHWC. `pixel_shuffle` has TensorFlow's channel order (row, column, channel), not
PyTorch's (channel, row, column): weights that come from PyTorch are permuted on import.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

INTERPOLATION = 'interpolation'  # the scope in which costs find what is interpolated
EDGES = ('cut', 'mirror')
_NHWC = ('NHWC', 'HWIO', 'NHWC')
_SUPPORT = 3  # pixels on each side that the widest kernel reaches


def resize(
  x: Float[Array, 'b h w c'], height: int, width: int, *, method: str, antialias: bool = True
) -> Float[Array, 'b y x c']:
  """Interpolate images: 'linear', 'cubic' (Keys, a = -0.5) or 'lanczos3'.

  Kernels are cut off and renormalised at the border, as in Pillow; the result is not clipped.
  """
  with jax.named_scope(INTERPOLATION):
    shape = (x.shape[0], height, width, x.shape[-1])
    return jax.image.resize(x, shape, method=method, antialias=antialias)


def upsample(
  x: Float[Array, 'b h w c'], scale: int, *, method: str = 'cubic', edges: str = 'cut'
) -> Float[Array, 'b sh sw c']:
  """Enlarge images by an integer factor; see `resize`.

  `edges` says what a kernel sees beyond the border: 'cut' nothing, as in Pillow, or 'mirror' the
  image mirrored, as in MATLAB's `imresize`.
  """
  if edges not in EDGES:
    raise ValueError(f'edges {edges!r} is not one of {", ".join(map(repr, EDGES))}')
  border = _SUPPORT if edges == 'mirror' else 0
  if border:
    x = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode='symmetric')
  x = resize(x, x.shape[1] * scale, x.shape[2] * scale, method=method)
  cut = border * scale
  return x[:, cut : x.shape[1] - cut, cut : x.shape[2] - cut]


def pixel_shuffle(x: Float[Array, 'b h w ssc'], scale: int) -> Float[Array, 'b sh sw c']:
  """Move channels to space: sub-pixel convolution's last step (Shi et al., CVPR 2016)."""
  return jnp.asarray(dm_pix.depth_to_space(x, scale))


def depthwise(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k l 1 c'],
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **options: Any,
) -> Float[Array, 'b y x c']:
  """Convolve each channel by itself: `nn.Conv`'s `conv_general_dilated`, for one group a channel.

  Where it runs on a CPU, as shifted multiply-adds: XLA's own takes 103 ms there for 3x3 on
  1x256x256x64 (shifted: 5.8), 401 for 9x9 (15.3).
  """
  own = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
  shifted = lambda x, kernel: _by_shifts(x, kernel, strides, padding)  # noqa: E731
  return jnp.asarray(lax.platform_dependent(x, kernel, cpu=shifted, default=own))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_shifts(
  x: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> Array:
  shifted = _shifts(x, kernel.shape, strides, padding)
  return jnp.asarray(sum(part * kernel[i, j, 0] for (i, j), part in shifted))


def _shifts(
  x: Array, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Array]]:
  """Cut out, for each place in the kernel, the pixels that it meets."""
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  height, width = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel, strides, strict=False))
  for i, j in np.ndindex(*kernel[:2]):
    yield (i, j), x[:, i :: strides[0], j :: strides[1]][:, :height, :width]


def _by_shifts_forward(
  x: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> tuple:
  return _by_shifts(x, kernel, strides, padding), (x, kernel)


def _by_shifts_backward(
  strides: Sequence[int], padding: Sequence[tuple[int, int]], saved: tuple, gradient: Array
) -> tuple:
  x, kernel = saved
  shifted = _shifts(x, kernel.shape, strides, padding)
  of_kernel = jnp.stack([(part * gradient).sum((0, 1, 2)) for _, part in shifted])
  spread = lax.pad(
    gradient,
    jnp.zeros((), gradient.dtype),
    [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)],
  )
  around = [
    (k - 1 - low, n - m + low)
    for k, n, m, (low, _) in zip(kernel.shape, x.shape[1:], spread.shape[1:], padding, strict=False)
  ]
  of_x = _by_shifts(spread, kernel[::-1, ::-1], (1, 1), around)
  return of_x, of_kernel.reshape(kernel.shape)


_by_shifts.defvjp(_by_shifts_forward, _by_shifts_backward)


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
