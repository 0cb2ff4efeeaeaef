"""RDN: Residual Dense Network for Image Super-Resolution (Zhang et al., CVPR 2018)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, Join, Upsampler, finish, tail_init, torch_uniform
from jaxsr.models.network import Network


class ResidualDenseBlock(nn.Module):
  """Densely connected convolutions, fused by a 1x1 convolution and added to the input."""

  features: int
  layers: int
  growth: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    options = {'kernel_init': torch_uniform, 'dtype': self.dtype}
    seen = [x]
    for i in range(self.layers):
      seen = [jnp.concatenate(seen, axis=-1)]
      seen.append(nn.relu(Conv(self.growth, (3, 3), name=f'conv_{i}', **options)(seen[0])))
    return x + Join(self.features, name='fusion', **options)(seen)


class RDN(Network):
  """Fuses the outputs of residual dense blocks, adds the shallow features and upsamples.

  The defaults are the paper's D = 16 `blocks` of C = 8 `layers` with growth 64; the small RDN of
  395,841 parameters has 5 blocks of 3 layers, 32 features and growth 32. `remat=True` recomputes
  the blocks in the backward pass instead of storing their activations: the same values in less
  memory. `bicubic_skip=True`, a departure from the paper, adds the result to a bicubic upsampling
  and starts the last convolution at zero, so that training starts at bicubic.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'growth')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 16
  layers: int = 8
  growth: int = 64
  bicubic_skip: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    shallow = Conv(self.features, (3, 3), dtype=self.dtype, name='head_0')(lr)
    x = Conv(self.features, (3, 3), dtype=self.dtype, name='head_1')(shallow)
    x = shallow + self._fuse(self._blocks(x))
    x = Upsampler(self.scale, self.features, self.dtype, name='upsampler')(x)
    init = tail_init(self.bicubic_skip)
    image = Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _blocks(self, x: Float[Array, 'b h w f']) -> list[Float[Array, 'b h w f']]:
    block = nn.remat(ResidualDenseBlock) if self.remat else ResidualDenseBlock
    outputs = []
    for i in range(self.blocks):
      x = block(self.features, self.layers, self.growth, self.dtype, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
      outputs.append(x)
    return outputs

  def _fuse(self, outputs: list[Float[Array, 'b h w f']]) -> Float[Array, 'b h w f']:
    x = Join(self.features, dtype=self.dtype, name='fusion_0')(outputs)
    return Conv(self.features, (3, 3), dtype=self.dtype, name='fusion_1')(x)
