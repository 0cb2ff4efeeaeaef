"""RRDB: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks (Wang, ECCVW 2018)."""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, finish, he_normal, shuffle_stages, tail_init
from jaxsr.models.network import Network

# As in the authors' code, a tenth of He's scale.
_small = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')


def _leaky(x: Array) -> Array:
  return nn.leaky_relu(x, 0.2)


class DenseBlock(nn.Module):
  """Five densely connected convolutions, scaled and added to the input."""

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
  """Residual-in-residual dense block: three dense blocks, scaled and added to the input."""

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
  """Maps low-resolution features through residual-in-residual dense blocks, then upsamples them.

  The defaults are ESRGAN's generator. Upsampling is nearest interpolation and a convolution: twice
  by 2 for scale 4, once by 2 for scale 2, once by 3 for scale 3 and three times by 2 for scale 8,
  as in ESRGAN's own code. Real-ESRGAN's x2 folds 2x2 input pixels into channels (`unshuffle=2`) and
  upsamples the features by 4. `bicubic_skip=True`, a departure from the paper, adds the result to a
  bicubic upsampling and starts the last convolution at zero. `remat=True` recomputes blocks in the
  backward pass instead of storing their activations.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'growth')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 23
  growth: int = 32
  residual_scaling: float = 0.2
  unshuffle: int = 1
  bicubic_skip: bool = False
  remat: bool = False

  @property
  def tile_multiple(self) -> int:
    """The side of the cells that are folded into channels."""
    return self.unshuffle

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    block = nn.remat(RRDB) if self.remat else RRDB
    fields = (self.features, self.growth, self.residual_scaling, self.dtype)
    x = self._unshuffled(lr)
    shallow = Conv(self.features, (3, 3), dtype=self.dtype, name='head')(x)
    x = shallow
    for i in range(self.blocks):
      x = block(*fields, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    x = shallow + Conv(self.features, (3, 3), dtype=self.dtype, name='body')(x)
    image = self._image(x)[:, : self.scale * lr.shape[1], : self.scale * lr.shape[2]]
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _unshuffled(self, lr: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ _']:
    """Pixel unshuffle to channels (row, column, channel), after padding to full cells."""
    side = self.unshuffle
    if side == 1:
      return lr
    b, h, w, c = lr.shape
    x = jnp.pad(lr, ((0, 0), (0, -h % side), (0, -w % side), (0, 0)), mode='edge')
    x = x.reshape(b, x.shape[1] // side, side, x.shape[2] // side, side, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, x.shape[1], x.shape[3], side * side * c)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=he_normal)
    for i, factor in enumerate(shuffle_stages(self.scale * self.unshuffle)):
      x = jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
      x = _leaky(conv(self.features, (3, 3), name=f'up_{i}')(x))
    x = _leaky(conv(self.features, (3, 3), name='detail')(x))
    init = tail_init(self.bicubic_skip)
    return Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
