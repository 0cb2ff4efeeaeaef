"""Array operations that networks share.

Images are NHWC. `pixel_shuffle` has TensorFlow's channel order (row, column, channel), not
PyTorch's (channel, row, column): weights that come from PyTorch are permuted on import.
"""

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def upsample(
  x: Float[Array, 'b h w c'], scale: int, *, method: str = 'cubic'
) -> Float[Array, 'b sh sw c']:
  """Enlarge images by an integer factor.

  `method` is 'cubic' (Keys, a = -0.5) or 'lanczos3'. Kernels are cut off and renormalised at the
  border, as in Pillow; the result is not clipped.
  """
  b, h, w, c = x.shape
  return jax.image.resize(x, (b, h * scale, w * scale, c), method=method, antialias=True)


def pixel_shuffle(x: Float[Array, 'b h w ssc'], scale: int) -> Float[Array, 'b sh sw c']:
  """Move channels to space: sub-pixel convolution's last step (Shi et al., CVPR 2016)."""
  return jnp.asarray(dm_pix.depth_to_space(x, scale))
