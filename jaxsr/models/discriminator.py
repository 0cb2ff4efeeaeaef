"""SRGAN's and Swift-SRGAN's discriminator: one logit per image, positive if the image looks real.

Images are in [0, 1], gray or RGB, of any size: features are averaged over 6x6 cells, after which
the dense layer reads them in the order row, column, channel. PyTorch's order is channel, row,
column, so its weights are permuted on import. The sigmoid is part of the loss.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv, batch_norm
from jaxsr.models.swift_srgan import SeparableConv

CELLS = 6
BLOCKS = 8


def adaptive_average_pool(x: Float[Array, 'b h w c'], size: int) -> Float[Array, 'b size size c']:
  """Average over `size` x `size` cells, as PyTorch's AdaptiveAvgPool2d.

  Cells overlap by one pixel if `size` does not divide the size of the image.
  """
  rows, columns = _cells(x.shape[1], size), _cells(x.shape[2], size)
  return jnp.einsum('bhwc,ih,jw->bijc', x, rows, columns, precision=lax.Precision.HIGHEST)


def _cells(length: int, size: int) -> np.ndarray:
  """Returns the averaging over the cells of a line as a matrix, float32 [size, length]."""
  matrix = np.zeros((size, length), np.float32)
  for i in range(size):
    start, stop = i * length // size, -(-(i + 1) * length // size)
    matrix[i, start:stop] = 1 / (stop - start)
  return matrix


class Discriminator(nn.Module):
  """Halves the image four times by normalized convolutions, then returns one logit per image.

  The defaults are SRGAN's (Ledig et al., CVPR 2017). `separable=True` is Swift-SRGAN's (Krishnan &
  Krishnan, 2021), whose convolutions before a BatchNorm have no bias. `norm` is 'batch', 'none', or
  'spectral', which divides each kernel by its largest singular value (Miyato et al., ICLR 2018).
  """

  OPTIONS: ClassVar[tuple[str, ...]] = ('features', 'hidden', 'separable', 'norm')
  NORMS: ClassVar[tuple[str, ...]] = ('batch', 'spectral', 'none')

  features: int = 64
  hidden: int = 1024
  separable: bool = False
  norm: str = 'batch'
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b 1']:
    x = image
    for i in range(BLOCKS):
      x = self._apply(self._conv(i), x, train)
      if i and self.norm == 'batch':
        x = batch_norm(use_running_average=not train, dtype=self.dtype, name=f'norm_{i}')(x)
      x = nn.leaky_relu(x, 0.2)
      self.sow('features', 'trunk', x)
    x = adaptive_average_pool(x.astype(jnp.float32), CELLS).reshape(x.shape[0], -1)
    x = self._apply(nn.Dense(self.hidden, dtype=self.dtype, name='dense_0'), x, train)
    x = nn.leaky_relu(x, 0.2).astype(jnp.float32)
    return self._apply(nn.Dense(1, name='dense_1'), x, train)

  def _conv(self, i: int) -> nn.Module:
    """Returns the convolution of a block: width 64, 64, 128, 128, ... and stride 1, 2, 1, 2, ..."""
    width, stride, name = self.features * 2 ** (i // 2), 1 + i % 2, f'conv_{i}'
    biased = i == 0 or self.norm != 'batch'
    if self.separable:
      return SeparableConv(width, 3, stride, use_bias=biased, dtype=self.dtype, name=name)
    return Conv(width, (3, 3), strides=stride, padding=1, dtype=self.dtype, name=name)

  def _apply(self, layer: nn.Module, x: Array, train: bool) -> Array:
    if self.norm == 'spectral':
      return nn.SpectralNorm(layer, name=f'spectral_{layer.name}')(x, update_stats=train)
    return layer(x)
