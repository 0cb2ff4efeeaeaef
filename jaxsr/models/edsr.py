"""EDSR: Enhanced Deep Residual Networks for Single Image Super-Resolution (Lim, CVPRW 2017)."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, Upsampler, direct_image, finish, tail_init
from jaxsr.models.network import Network


class ResidualBlock(nn.Module):
  """Residual block: two convolutions with a ReLU between them, scaled and added to the input."""

  features: int
  residual_scaling: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    y = Conv(self.features, (3, 3), dtype=self.dtype, name='conv_0')(x)
    y = Conv(self.features, (3, 3), dtype=self.dtype, name='conv_1')(nn.relu(y))
    return x + self.residual_scaling * y


class EDSR(Network):
  """Maps low-resolution features through residual blocks, then upsamples them.

  The defaults are the paper's baseline; 32 blocks of 256 features with `residual_scaling=0.1` are
  the full EDSR. The authors multiply images by 255 (`image_range`) and subtract `mean` from RGB
  images; here both are off unless set, and imported weights set them. Two departures from the paper
  are also off by default: `upsampler='direct'` computes the image by one convolution and one pixel
  shuffle, which costs a light network almost nothing, and `bicubic_skip=True` adds the result to a
  bicubic upsampling and starts the last convolution at zero, so that training starts at bicubic.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 16
  residual_scaling: float = 1.0
  upsampler: str = 'shuffle'
  bicubic_skip: bool = False
  image_range: float = 1.0
  mean: Sequence[float] = (0.0, 0.0, 0.0)

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    mean = jnp.asarray(self.mean if self.channels == 3 else 0.0)
    x = (lr - mean) * self.image_range
    shallow = Conv(self.features, (3, 3), dtype=self.dtype, name='head')(x)
    x = shallow
    for i in range(self.blocks):
      x = ResidualBlock(self.features, self.residual_scaling, self.dtype, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    x = shallow + Conv(self.features, (3, 3), dtype=self.dtype, name='body')(x)
    image = self._image(x) / self.image_range
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip, mean=mean)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    init = tail_init(self.bicubic_skip)
    if self.upsampler == 'direct':
      return direct_image(x, self.channels, self.scale, bicubic_skip=self.bicubic_skip)
    if self.upsampler != 'shuffle':
      raise ValueError(f"upsampler {self.upsampler!r} is not one of 'shuffle', 'direct'")
    x = Upsampler(self.scale, self.features, self.dtype, name='upsampler')(x)
    return Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
