"""MSRResNet: SRResNet without BatchNorm, as BasicSR and the competitions of AIM train it."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.edsr import ResidualBlock
from jaxsr.models.layers import Conv, finish, shuffle_stages, tail_init
from jaxsr.models.network import Network


class MSRResNet(Network):
  """Maps low-resolution features through residual blocks, then upsamples them and adds an image.

  The defaults are those of BasicSR (1,517,571 parameters for RGB x4). Unlike EDSR, it has no long
  skip connection between features, a LeakyReLU after each stage, and adds a bilinear upsampling of
  its input. `bicubic_skip=True`, a departure, adds a bicubic one instead and starts the last
  convolution at zero, so that training starts at bicubic.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 16
  bicubic_skip: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    x = Conv(self.features, (3, 3), dtype=self.dtype, name='head')(lr)
    x = nn.leaky_relu(x, 0.1)
    for i in range(self.blocks):
      x = ResidualBlock(self.features, 1.0, self.dtype, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    for i, factor in enumerate(shuffle_stages(self.scale)):
      width = self.features * factor**2
      x = Conv(width, (3, 3), dtype=self.dtype, name=f'upsampler_{i}')(x)
      x = nn.leaky_relu(ops.pixel_shuffle(x, factor), 0.1)
    x = nn.leaky_relu(Conv(self.features, (3, 3), dtype=self.dtype, name='detail')(x), 0.1)
    init = tail_init(self.bicubic_skip)
    image = Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
    if not self.bicubic_skip:
      image += ops.upsample(lr, self.scale, method='linear')
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)
