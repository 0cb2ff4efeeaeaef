"""RLFN: Residual Local Feature Network for Efficient Super-Resolution (Kong, CVPRW 2022)."""

from functools import partial
from typing import ClassVar

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import Conv, direct_image, finish, torch_uniform
from jaxsr.models.network import Network


class ESA(nn.Module):
  """Enhanced spatial attention (RFANet): weights each pixel and channel by a coarse attention map.

  The map is computed from a 7x7 max pooling of stride 3 at half resolution. If the image is smaller
  than that window, below 15 pixels, the window shrinks to the image; PyTorch raises an error there.
  """

  attention: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    near = conv(self.attention, (1, 1), name='down')(x)
    border = [(0, max(0, 3 - n)) for n in near.shape[1:3]]  # a kernel's worth of pixels, at least
    far = conv(self.attention, (3, 3), 2, padding=border, name='stride')(near)
    window = (min(7, far.shape[1]), min(7, far.shape[2]))
    far = nn.max_pool(far, window, (3, 3))
    far = conv(self.attention, (3, 3), name='far')(far)
    far = ops.resize(far, *near.shape[1:3], method='linear', antialias=False)
    near = conv(self.attention, (1, 1), name='near')(near)
    return x * nn.sigmoid(conv(x.shape[-1], (1, 1), name='up')(far + near))


class RLFB(nn.Module):
  """Residual block: three convolutions with LeakyReLU, a 1x1 convolution and spatial attention."""

  features: int
  middle: int
  attention: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    y = x
    for i, width in enumerate((self.middle, self.middle, self.features)):
      y = nn.leaky_relu(conv(width, (3, 3), name=f'conv_{i}')(y), 0.05)
    y = conv(self.features, (1, 1), name='mix')(x + y)
    return ESA(self.attention, self.dtype, name='attention')(y)


class RLFN(Network):
  """Maps low-resolution features through residual local feature blocks, then computes the image.

  The defaults are the paper's RLFN; RLFN-S is `features=48`, and the entry that won NTIRE 2022 is
  `features=46, middle=48, blocks=4`. `middle` is the width inside a block; 0 means `features`. The
  authors' weights need images multiplied by 255 (`image_range`). LightRLFN adds a bilinear
  upsampling (`bilinear_skip`). `bicubic_skip=True`, a departure from the paper, adds the result to
  a bicubic upsampling and starts the last convolution at zero.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'middle', 'attention')
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 52
  middle: int = 0
  blocks: int = 6
  attention: int = 16
  image_range: float = 1.0
  bilinear_skip: bool = False
  bicubic_skip: bool = False

  @property
  def tile_multiple(self) -> None:
    """None: the coarse attention map is resized to the extent of the image."""
    return None

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    fields = (self.features, self.middle or self.features, self.attention, self.dtype)
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    shallow = conv(self.features, (3, 3), name='head')(lr * self.image_range)
    x = shallow
    for i in range(self.blocks):
      x = RLFB(*fields, name=f'block_{i}')(x)
      self.sow('features', 'trunk', x)
    x = shallow + conv(self.features, (3, 3), name='body')(x)
    image = direct_image(x, self.channels, self.scale, bicubic_skip=self.bicubic_skip)
    image /= self.image_range
    if self.bilinear_skip:
      image += ops.upsample(lr, self.scale, method='linear')
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)
