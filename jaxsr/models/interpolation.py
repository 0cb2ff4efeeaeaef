"""Interpolation as networks without parameters, so that every table can hold them."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops


class Bicubic(nn.Module):
  """Bicubic interpolation (Keys, 1981; a = -0.5)."""

  scale: int = 4
  channels: int = 1
  dtype: DTypeLike = jnp.float32

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    return ops.upsample(lr, self.scale)


class Lanczos(nn.Module):
  """Lanczos interpolation with three lobes (Duchon, 1979)."""

  scale: int = 4
  channels: int = 1
  dtype: DTypeLike = jnp.float32

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    return ops.upsample(lr, self.scale, method='lanczos3')


class BackProjection(nn.Module):
  """Bicubic interpolation, corrected `iterations` times by what its own shrinking misses.

  Iterative back-projection (Irani & Peleg, 1991) with bicubic as both the degradation and the
  kernel that errors are projected back by. Images are [0, 1], not clipped.
  """

  scale: int = 4
  channels: int = 1
  iterations: int = 3
  dtype: DTypeLike = jnp.float32

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    image = ops.upsample(lr, self.scale)
    for _ in range(self.iterations):
      missed = lr - ops.resize(image, lr.shape[1], lr.shape[2], method='cubic')
      image = image + ops.upsample(missed, self.scale)
    return image
