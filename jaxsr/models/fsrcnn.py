"""FSRCNN: Accelerating the Super-Resolution Convolutional Neural Network (Dong, ECCV 2016)."""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, Deconvolution, PReLU, finish, he_normal, tail_init
from jaxsr.models.network import Network


class FSRCNN(Network):
  """Shrinks features, maps them by `blocks` convolutions, expands them, upsamples by deconvolution.

  The defaults are the paper's FSRCNN(56, 12, 4); FSRCNN-s is `features=32, shrunk=5, blocks=1`.
  The deconvolution has PyTorch's geometry (padding 4, output padding `scale - 1`), which the public
  ports share. `bicubic_skip=True`, a departure from the paper, adds the result to a bicubic
  upsampling and starts the deconvolution at zero.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'shrunk')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 56
  shrunk: int = 12
  blocks: int = 4
  bicubic_skip: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    x = self._conv(lr, self.features, 5, 'head')
    x = self._conv(x, self.shrunk, 1, 'shrink')
    for i in range(self.blocks):
      x = self._conv(x, self.shrunk, 3, f'block_{i}')
      self.sow('features', 'trunk', x)
    x = self._conv(x, self.features, 1, 'expand')
    self.sow('features', 'trunk', x)
    image = self._image(x)
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)

  def _conv(self, x: Float[Array, 'b h w c'], features: int, size: int, name: str) -> Array:
    x = Conv(features, (size, size), dtype=self.dtype, kernel_init=he_normal, name=name)(x)
    return PReLU(name=f'{name}_slope')(x)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    init = tail_init(self.bicubic_skip, nn.initializers.normal(1e-3))
    return Deconvolution(self.channels, self.scale, 9, padding=4, kernel_init=init, name='tail')(x)
