"""RCAN: Super-Resolution Using Very Deep Residual Channel Attention Networks (Zhang, ECCV 2018)."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import (
  DIV2K_MEAN,
  Conv,
  Upsampler,
  finish,
  tail_init,
  torch_uniform,
)
from jaxsr.models.network import Network


class ChannelAttention(nn.Module):
  """Channel attention: weights each channel by a function of the means of all channels."""

  reduction: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    features = x.shape[-1]
    reduced = max(1, features // self.reduction)
    y = jnp.mean(x, axis=(1, 2), keepdims=True)
    y = Conv(reduced, (1, 1), dtype=self.dtype, kernel_init=torch_uniform, name='down')(y)
    y = Conv(features, (1, 1), dtype=self.dtype, kernel_init=torch_uniform, name='up')(nn.relu(y))
    return x * nn.sigmoid(y)


class RCAB(nn.Module):
  """Residual block with channel attention after two convolutions with a ReLU between them."""

  features: int
  reduction: int
  attention: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    y = conv(self.features, (3, 3), name='conv_0')(x)
    y = conv(self.features, (3, 3), name='conv_1')(nn.relu(y))
    if self.attention:
      y = ChannelAttention(self.reduction, self.dtype, name='attention')(y)
    return x + y


class ResidualGroup(nn.Module):
  """A chain of blocks and a convolution, added to the input."""

  features: int
  blocks: int
  reduction: int
  attention: bool
  remat: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    block = nn.remat(RCAB) if self.remat else RCAB
    y = x
    for i in range(self.blocks):
      y = block(self.features, self.reduction, self.attention, self.dtype, name=f'block_{i}')(y)
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    return x + conv(self.features, (3, 3), name='conv')(y)


class RCAN(Network):
  """Maps low-resolution features through groups of blocks with channel attention, then upsamples.

  The defaults are the paper's network. As in the authors' code, images are multiplied by
  `image_range`, and `mean` is subtracted if they are RGB. `attention=False` leaves a
  residual-in-residual network: attention weights depend on means over the entire input, so a crop
  in training and a full film differ, and attention was reported to hurt on chest radiographs.
  `bicubic_skip=True`, a departure from the paper, adds the result to a bicubic upsampling and
  starts the last convolution at zero. `remat=True` recomputes blocks in the backward pass instead
  of storing their activations.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  groups: int = 10
  blocks: int = 20
  reduction: int = 16
  attention: bool = True
  image_range: float = 255.0
  mean: Sequence[float] = DIV2K_MEAN
  bicubic_skip: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    mean = jnp.asarray(self.mean if self.channels == 3 else 0.0)
    x = (lr - mean) * self.image_range
    conv = partial(Conv, dtype=self.dtype, kernel_init=torch_uniform)
    shallow = conv(self.features, (3, 3), name='head')(x)
    x = shallow
    for i in range(self.groups):
      x = self._group(i)(x)
      self.sow('features', 'trunk', x)
    x = shallow + conv(self.features, (3, 3), name='body')(x)
    x = Upsampler(self.scale, self.features, self.dtype, name='upsampler')(x)
    init = tail_init(self.bicubic_skip)
    image = Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x) / self.image_range
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip, mean=mean)

  def _group(self, i: int) -> ResidualGroup:
    return ResidualGroup(
      *(self.features, self.blocks, self.reduction, self.attention, self.remat, self.dtype),
      name=f'group_{i}',
    )
