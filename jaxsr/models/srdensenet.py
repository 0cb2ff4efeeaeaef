"""SRDenseNet: Image Super-Resolution Using Dense Skip Connections (Tong et al., ICCV 2017)."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, Deconvolution, finish, he_normal, shuffle_stages, tail_init
from jaxsr.models.network import Network

VARIANTS = ('all', 'prelu', 'dense')


def activation(variant: str, name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the variant's activation; its PReLU has one slope for all channels."""
  return nn.PReLU(negative_slope_init=0.25, name=name) if variant == 'prelu' else nn.relu


class DenseBlock(nn.Module):
  """Dense block: concatenates the outputs of `layers` densely connected convolutions to the input.

  Only the first convolution reads the input, except in the variant 'dense', where all do.
  """

  growth: int
  layers: int
  variant: str
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w d']:
    act = activation(self.variant, 'prelu')
    found, joined, seen = [], x, x
    for i in range(self.layers):
      y = Conv(self.growth, (3, 3), dtype=self.dtype, kernel_init=he_normal, name=f'conv_{i}')(seen)
      found.append(act(y))
      # The authors of 'prelu' activate again after joining; a repeated ReLU has no effect.
      joined = act(jnp.concatenate(found, axis=-1)) if i else found[0]
      seen = jnp.concatenate([x, joined], axis=-1) if self.variant == 'dense' else joined
    return jnp.concatenate([x, joined], axis=-1)


class SRDenseNet(Network):
  """Joins the features of all dense blocks, reduces them by a 1x1, upsamples by deconvolutions.

  Variants: 'all' is SRDenseNet_All as it is commonly reimplemented (2,659,585 parameters, 3x3
  deconvolutions). 'prelu' is another public implementation, closer to the paper's 2,015 K
  (2,003,467 parameters: PReLU, 2x2 deconvolutions, and from the bottleneck on no biases, and no
  activation except after the deconvolutions). 'dense' reuses more features: all layers of a block
  read its input, not only the first, as in DenseNet (Huang et al., CVPR 2017). `bicubic_skip=True`,
  a departure from the paper, adds the result to a bicubic upsampling and starts the last
  convolution at zero.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('growth', 'bottleneck')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  growth: int = 16
  blocks: int = 8
  layers: int = 8
  bottleneck: int = 256
  variant: str = 'all'
  bicubic_skip: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    if self.variant not in VARIANTS:
      raise ValueError(f'variant {self.variant!r} is not one of {", ".join(map(repr, VARIANTS))}')
    width = self.growth * self.layers
    x = Conv(width, (3, 3), dtype=self.dtype, kernel_init=he_normal, name='head')(lr)
    x = activation(self.variant, 'prelu')(x)
    for i in range(self.blocks):
      x = DenseBlock(self.growth, self.layers, self.variant, self.dtype, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    image = self._image(x)
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    bias = self.variant != 'prelu'
    squeeze = Conv(
      self.bottleneck,
      (1, 1),
      use_bias=bias,
      dtype=self.dtype,
      kernel_init=he_normal,
      name='bottleneck',
    )
    x = nn.relu(squeeze(x)) if bias else squeeze(x)
    for i, factor in enumerate(shuffle_stages(self.scale)):
      kernel = 3 if bias else 2
      x = Deconvolution(
        self.bottleneck, factor, kernel, use_bias=bias, dtype=self.dtype, name=f'deconv_{i}'
      )(x)
      x = activation(self.variant, f'prelu_{i}')(x)
    init = tail_init(self.bicubic_skip)
    return Conv(self.channels, (3, 3), use_bias=bias, kernel_init=init, name='tail')(x)
