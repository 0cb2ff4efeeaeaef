"""SPAN: Swift Parameter-free Attention Network for Efficient Super-Resolution (Wan, CVPRW 2024)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import (
  DIV2K_MEAN,
  Conv,
  Join,
  direct_image,
  finish,
  torch_uniform,
)
from jaxsr.models.network import Network


class Conv3XC(nn.Module):
  """1x1, 3x3 and 1x1 convolutions with twice the channels inside, plus a parallel 1x1 convolution.

  The input is padded before the first, so that `fold` can merge all of them into one 3x3.
  """

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w d']:
    conv = partial(Conv, padding='VALID', dtype=self.dtype, kernel_init=torch_uniform)
    y = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = conv(2 * x.shape[-1], (1, 1), name='expand')(y)
    y = conv(2 * self.features, (3, 3), name='conv')(y)
    y = conv(self.features, (1, 1), name='project')(y)
    return y + conv(self.features, (1, 1), name='skip')(x)


def fold(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of the equivalent SPAN with `folded=True`."""
  if 'expand' in variables:
    return _fold_one(variables)
  return {k: fold(v) if isinstance(v, Mapping) else v for k, v in variables.items()}


def _fold_one(params: Mapping[str, Any]) -> dict[str, Array]:
  first, middle, last, skip = (params[k] for k in ('expand', 'conv', 'project', 'skip'))
  with jax.default_matmul_precision('float32'):
    kernel = jnp.einsum(
      'ig,hwgp,po->hwio', first['kernel'][0, 0], middle['kernel'], last['kernel'][0, 0]
    )
    bias = first['bias'] @ middle['kernel'].sum((0, 1)) + middle['bias']
    bias = bias @ last['kernel'][0, 0] + last['bias'] + skip['bias']
  return {'kernel': kernel.at[1, 1].add(skip['kernel'][0, 0]), 'bias': bias}


def _conv(features: int, folded: bool, dtype: DTypeLike, name: str) -> nn.Module:
  if folded:
    return Conv(features, (3, 3), dtype=dtype, kernel_init=torch_uniform, name=name)
  return Conv3XC(features, dtype, name=name)


class SPAB(nn.Module):
  """Block of three convolutions with parameter-free attention: a sigmoid of their own output.

  Also returns the output of the first convolution after its SiLU, not before it, since the authors'
  SiLU works in place.
  """

  features: int
  folded: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c']
  ) -> tuple[Float[Array, 'b h w c'], Float[Array, 'b h w c']]:
    first = nn.silu(_conv(self.features, self.folded, self.dtype, 'conv_0')(x))
    y = nn.silu(_conv(self.features, self.folded, self.dtype, 'conv_1')(first))
    y = _conv(self.features, self.folded, self.dtype, 'conv_2')(y)
    return (x + y) * (nn.sigmoid(y) - 0.5), first


class SPAN(Network):
  """Maps low-resolution features through parameter-free attention, then computes the image.

  The defaults are the paper's network; the entry of NTIRE 2024 has 28 features. As in the authors'
  code, images are multiplied by `image_range`, and `mean` is subtracted if they are RGB, which sets
  how sharp the attention is; the output is not divided by `image_range`. `folded=True` has plain
  convolutions, at a quarter of the cost or less: train without it, then `fold` the parameters.
  `bicubic_skip=True`, a departure from the paper, divides the output by `image_range`, adds it to a
  bicubic upsampling and starts the last convolution at zero. Without the division, Adam's first
  steps cost 15 dB.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 48
  blocks: int = 6
  folded: bool = False
  image_range: float = 255.0
  mean: Sequence[float] = DIV2K_MEAN
  bicubic_skip: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    mean = jnp.asarray(self.mean if self.channels == 3 else 0.0)
    x = ((lr - mean) * self.image_range).astype(self.dtype)
    shallow = _conv(self.features, self.folded, self.dtype, 'head')(x)
    x, first, inner = shallow, shallow, shallow
    for i in range(self.blocks):
      x, inner = SPAB(self.features, self.folded, self.dtype, name=f'block_{i}')(x)
      first = x if i == 0 else first
      self.sow('features', 'trunk', x)
    x = _conv(self.features, self.folded, self.dtype, 'body')(x)
    join = Join(self.features, kernel_init=torch_uniform, dtype=self.dtype, name='join')
    x = join([shallow, x, first, inner])
    image = direct_image(x, self.channels, self.scale, bicubic_skip=self.bicubic_skip)
    image = image / self.image_range if self.bicubic_skip else image
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)
