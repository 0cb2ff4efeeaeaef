"""Resampling and pixel shuffle.

`pixel_shuffle` has TensorFlow's channel order (row, column, channel), not PyTorch's (channel, row,
column); weights from PyTorch are permuted on import.
"""

from functools import partial
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsr.ops.cpu.halo import Pads, interpolate

NHWC = ('NHWC', 'HWIO', 'NHWC')  # dimension numbers of images and kernels for XLA's convolutions

INTERPOLATION = 'interpolation'  # the scope by which `jaxsr.analysis` recognizes interpolation
BOUNDARIES = ('cut', 'mirror')
_SUPPORT = 3  # radius of the widest kernel, in pixels


def resize(
  x: Float[Array, 'b h w c'], height: Any, width: Any, *, method: str, antialias: bool = True
) -> Float[Array, 'b y x c']:
  """Interpolate images: 'linear', 'cubic' (Keys, a = -0.5) or 'lanczos3'.

  Kernels are cut off and renormalized at the border, as in Pillow; the result is not clipped. The
  height and the width are integers, or symbolic inside `plain()`.
  """
  with jax.named_scope(INTERPOLATION):
    shape = (x.shape[0], height, width, x.shape[-1])
    compute = partial(jax.image.resize, shape=shape, method=method, antialias=antialias)
    return interpolate(compute, x)


def upsample(
  x: Float[Array, 'b h w c'], scale: int, *, method: str = 'cubic', boundary: str = 'cut'
) -> Float[Array, 'b sh sw c']:
  """Upsample images by an integer factor; see `resize`.

  `boundary` is the treatment of kernels that reach beyond the image: 'cut' renormalizes the part
  inside, as in Pillow; 'mirror' mirrors the image, as in MATLAB's `imresize`.
  """
  if boundary not in BOUNDARIES:
    raise ValueError(f'boundary {boundary!r} is not one of {", ".join(map(repr, BOUNDARIES))}')
  border = _SUPPORT if boundary == 'mirror' else 0
  if border:
    x = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode='symmetric')
  x = resize(x, x.shape[1] * scale, x.shape[2] * scale, method=method)
  cut = border * scale
  return x[:, cut : x.shape[1] - cut, cut : x.shape[2] - cut]


def pad(x: Float[Array, 'b h w c'], padding: Pads) -> Float[Array, 'b y x c']:
  """Pad images with zeros; negative padding crops."""
  pads = ((0, 0, 0), *((*one, 0) for one in padding), (0, 0, 0))
  return jnp.asarray(lax.pad(x, jnp.zeros((), x.dtype), pads))


def pixel_shuffle(x: Float[Array, 'b h w ssc'], scale: int) -> Float[Array, 'b sh sw c']:
  """Move channels to space, the last step of sub-pixel convolution (Shi et al., CVPR 2016)."""
  return jnp.asarray(dm_pix.depth_to_space(x, scale))


def written_over(x: Array, shape: tuple[int, ...]) -> Array:
  """Allocate an output buffer that depends on `x`, so that XLA cannot hoist it out of the loop.

  The loop must overwrite the full buffer, which is filled with one value from the middle of `x`.
  Zeros depend on nothing, so XLA would allocate those of all layers before the first layer runs and
  keep them. `x` is flattened before the slice: otherwise XLA would take the value from the array
  before padding, which then has two uses and is computed and stored separately.
  """
  middle = int(np.ravel_multi_index([n // 2 for n in x.shape], x.shape))
  return jnp.broadcast_to(lax.slice_in_dim(x.reshape(-1), middle, middle + 1), shape)
