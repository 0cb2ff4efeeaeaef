"""VDSR: Accurate Image Super-Resolution Using Very Deep Convolutional Networks (Kim, CVPR 2016)."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import Conv, he_normal
from jaxsr.models.network import Network


class VDSR(Network):
  """Adds the output of `blocks` plain convolutions to a bicubic upsampling.

  The last convolution starts at zero, so that training starts at bicubic. `edges` is the `boundary`
  of `ops.upsample`; the authors' weights need 'mirror'. EDSR-PyTorch's VDSR subtracts `mean` from
  RGB images before the convolutions.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 20
  edges: str = 'cut'
  mean: Sequence[float] = (0.0, 0.0, 0.0)

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    bicubic = ops.upsample(lr, self.scale, boundary=self.edges)
    shifted = self.channels == 3 and any(self.mean)
    x = (bicubic - jnp.asarray(self.mean) if shifted else bicubic).astype(self.dtype)
    for i in range(self.blocks - 1):
      x = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=he_normal, name=f'conv_{i}')(x)
      x = nn.relu(x)
      self.sow('features', 'trunk', x)
    last = f'conv_{self.blocks - 1}'
    x = Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros, name=last)(x)
    return bicubic + x
