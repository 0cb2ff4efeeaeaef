"""VDSR: Accurate Image Super-Resolution Using Very Deep Convolutional Networks (Kim, CVPR 2016)."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import Conv, he_normal
from jaxsr.models.network import Network


class VDSR(Network):
  """Add the output of `blocks` plain convolutions to a bicubic upsampling.

  The last convolution starts at zero, so that training starts at bicubic. `edges` are those of
  `ops.upsample`; the authors' weights want 'mirror'.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 20
  edges: str = 'cut'

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    bicubic = ops.upsample(lr, self.scale, edges=self.edges)
    x = bicubic.astype(self.dtype)
    for i in range(self.blocks - 1):
      x = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=he_normal, name=f'conv_{i}')(x)
      x = nn.relu(x)
      self.sow('features', 'trunk', x)
    last = f'conv_{self.blocks - 1}'
    x = Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros, name=last)(x)
    return bicubic + x
