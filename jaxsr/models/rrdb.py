"""RRDB: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks (Wang, ECCVW 2018)."""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, finish, he_normal, shuffle_stages, tail_init
from jaxsr.models.network import Network

_small = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')  # a tenth of He's, as authors


def _leaky(x: Array) -> Array:
  return nn.leaky_relu(x, 0.2)


class DenseBlock(nn.Module):
  """Add five convolutions, each of which sees the input and all before it, scaled, to the input."""

  features: int
  growth: int
  residual_scaling: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=_small)
    seen = [x]
    for i in range(4):
      y = conv(self.growth, (3, 3), name=f'conv_{i}')(jnp.concatenate(seen, -1))
      seen.append(_leaky(y))
    y = conv(self.features, (3, 3), name='conv_4')(jnp.concatenate(seen, -1))
    return x + self.residual_scaling * y


class RRDB(nn.Module):
  """Add three dense blocks, scaled, to the input: the residual in residual dense block."""

  features: int
  growth: int
  residual_scaling: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    y = x
    for i in range(3):
      fields = (self.features, self.growth, self.residual_scaling, self.dtype)
      y = DenseBlock(*fields, name=f'dense_{i}')(y)
    return x + self.residual_scaling * y


class RRDBNet(Network):
  """Map low-resolution features through residual in residual dense blocks, then enlarge them.

  The defaults are ESRGAN's generator. Enlarging is nearest interpolation and a convolution, twice
  by 2 for scale 4; here once by 2 for scale 2, once by 3 for 3 and three times by 2 for 8, as in
  ESRGAN's own code (Real-ESRGAN's x2 instead folds the input's pixels into channels and enlarges
  by 4: its weights do not fit). `bicubic_skip=True` is a departure: it adds the result to a bicubic
  upsampling and starts the last convolution at zero. `remat=True` computes blocks again in the
  backward pass in place of keeping their insides.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'growth')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 23
  growth: int = 32
  residual_scaling: float = 0.2
  bicubic_skip: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    block = nn.remat(RRDB) if self.remat else RRDB
    fields = (self.features, self.growth, self.residual_scaling, self.dtype)
    shallow = Conv(self.features, (3, 3), dtype=self.dtype, name='head')(lr)
    x = shallow
    for i in range(self.blocks):
      x = block(*fields, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    x = shallow + Conv(self.features, (3, 3), dtype=self.dtype, name='body')(x)
    image = self._image(x)
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=he_normal)
    for i, factor in enumerate(shuffle_stages(self.scale)):
      x = jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
      x = _leaky(conv(self.features, (3, 3), name=f'up_{i}')(x))
    x = _leaky(conv(self.features, (3, 3), name='detail')(x))
    init = tail_init(self.bicubic_skip)
    return Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
