"""SRResNet: Photo-Realistic Single Image Super-Resolution Using a GAN (Ledig et al., CVPR 2017)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import (
  Conv,
  finish,
  fold_norms,
  norm_or_identity,
  shuffle_stages,
  tail_init,
)
from jaxsr.models.network import Network

prelu = partial(nn.PReLU, negative_slope_init=0.25)


class ResidualBlock(nn.Module):
  """Residual block: two convolutions with BatchNorm, and a PReLU between them."""

  features: int
  folded: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b h w c']:
    conv = partial(Conv, self.features, (3, 3), dtype=self.dtype)
    norm = partial(norm_or_identity, folded=self.folded, train=train, dtype=self.dtype)
    y = norm(name='norm_0')(conv(name='conv_0')(x))
    y = prelu(name='prelu')(y)
    return x + norm(name='norm_1')(conv(name='conv_1')(y))


def fold(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of the equivalent network with `folded=True`, which has no BatchNorm."""
  return fold_norms(variables)


class SRResNet(Network):
  """Maps low-resolution features through residual blocks with BatchNorm, then upsamples them.

  This is the generator of SRGAN. A PReLU has one slope for all channels and convolutions before a
  BatchNorm keep their bias, as in the public implementations (1,549,462 parameters for RGB x4).
  `tanh=True` maps the image into (0, 1), and RGB input is normalized by `mean` and `deviation`;
  some public weights need both. `body_norm=False` has a PReLU instead of the BatchNorm after the
  trunk, as leftthomas' weights do. `bicubic_skip=True`, a departure from the paper, adds the result
  to a bicubic upsampling and starts the last convolution at zero. `folded=True` is for inference,
  with every BatchNorm folded into the convolution before it: train without it, then `fold` the
  variables.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 16
  tanh: bool = False
  body_norm: bool = True
  mean: Sequence[float] = (0.0, 0.0, 0.0)
  deviation: Sequence[float] = (1.0, 1.0, 1.0)
  bicubic_skip: bool = False
  folded: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    x = (lr - jnp.asarray(self.mean)) / jnp.asarray(self.deviation) if self.channels == 3 else lr
    x = Conv(self.features, (9, 9), dtype=self.dtype, name='head')(x)
    shallow = x = prelu(name='prelu')(x)
    for i in range(self.blocks):
      x = ResidualBlock(self.features, self.folded, self.dtype, name=f'block_{i}')(x, train=train)
      self.sow('features', 'trunk', x)
    x = Conv(self.features, (3, 3), dtype=self.dtype, name='body')(x)
    if self.body_norm:
      x = norm_or_identity(folded=self.folded, train=train, dtype=self.dtype, name='norm')(x)
    else:
      x = prelu(name='body_prelu')(x)
    x = shallow + x
    x = self._enlarge(x)
    init = tail_init(self.bicubic_skip)
    image = Conv(self.channels, (9, 9), kernel_init=init, name='tail')(x)
    image = (jnp.tanh(image) + 1) / 2 if self.tanh else image
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _enlarge(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw f']:
    for i, factor in enumerate(shuffle_stages(self.scale)):
      width = self.features * factor**2
      x = Conv(width, (3, 3), dtype=self.dtype, name=f'upsampler_{i}')(x)
      x = prelu(name=f'prelu_{i}')(ops.pixel_shuffle(x, factor))
    return x
