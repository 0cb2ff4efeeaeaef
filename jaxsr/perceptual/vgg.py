"""VGG-16 and VGG-19: Very Deep Convolutional Networks (Simonyan & Zisserman, ICLR 2015)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {'vgg16': (2, 2, 3, 3, 3), 'vgg19': (2, 2, 4, 4, 4)}


class VGG(nn.Module):
  """VGG up to one convolution.

  Attributes:
    depths: The number of convolutions of each block.
    layer: `conv1_1` to `conv5_4`; the stride of block N is 2 ** (N - 1).
    activated: Whether features are taken after ReLU.
    dtype: Of the computation.
  """

  depths: Sequence[int]
  layer: str
  activated: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w 3']) -> Float[Array, 'b y x f']:
    x = image
    for block, depth in enumerate(self.depths, 1):
      for i in range(1, depth + 1):
        name = f'conv{block}_{i}'
        x = Conv(WIDTHS[block - 1], (3, 3), padding=1, dtype=self.dtype, name=name)(x)
        if name == self.layer:
          return nn.relu(x) if self.activated else x
        x = nn.relu(x)
      x = nn.max_pool(x, (2, 2), (2, 2))
    raise ValueError(f'layer {self.layer!r} is not one of {", ".join(layers(self.depths))}')


def layers(depths: Sequence[int]) -> list[str]:
  """Returns the names of the convolutions in order."""
  return [f'conv{block}_{i}' for block, n in enumerate(depths, 1) for i in range(1, n + 1)]
