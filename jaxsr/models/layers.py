"""Layers that several networks share."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops

# PyTorch's default, a third of linen's variance: sums over many blocks neither grow nor vanish.
torch_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # for ReLU (He et al., 2015)


def shuffle_stages(scale: int) -> tuple[int, ...]:
  """Split a scale into pixel shuffles: 4 -> (2, 2), 8 -> (2, 2, 2), 3 -> (3,)."""
  stages = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
  if scale not in stages:
    raise ValueError(f'scale {scale} has no pixel shuffle; there are {sorted(stages)}')
  return stages[scale]


class Upsampler(nn.Module):
  """Enlarge features by stages of convolution and pixel shuffle."""

  scale: int
  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b sh sw c']:
    for i, factor in enumerate(shuffle_stages(self.scale)):
      x = nn.Conv(self.features * factor**2, (3, 3), dtype=self.dtype, name=f'conv_{i}')(x)
      x = ops.pixel_shuffle(x, factor)
    return x
