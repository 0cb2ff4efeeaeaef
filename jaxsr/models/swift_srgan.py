"""Swift-SRGAN: Rethinking Super-Resolution for Efficient Inference (Krishnan & Krishnan, 2021)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import (
  Conv,
  PReLU,
  fold_norm,
  fold_norms,
  norm_or_identity,
  shuffle_stages,
  tail_init,
)
from jaxsr.models.network import Network

_slope = nn.initializers.constant(0.25)


class Mixture(nn.Module):
  """The parameters of a 1x1 convolution to one channel, under the names of `nn.Conv`."""

  use_bias: bool
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, channels: int) -> tuple[Float[Array, 'c 1'], Float[Array, '1'] | None]:
    kernel = jnp.asarray(self.param('kernel', self.kernel_init, (1, 1, channels, 1)))
    bias = self.param('bias', nn.initializers.zeros, (1,)) if self.use_bias else None
    return kernel[0, 0], bias if bias is None else jnp.asarray(bias)


class MixedConv(nn.Module):
  """A depthwise and a 1x1 convolution to one channel, computed as one convolution."""

  kernel: int
  stride: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    mixture: Float[Array, 'c 1'],
    last: Float[Array, '1'] | None,
  ) -> Float[Array, 'b hs ws 1']:
    channels, size, half = x.shape[-1], self.kernel, self.kernel // 2
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (size, size, 1, channels))
    y = ops.convolve(
      x.astype(self.dtype),
      (jnp.asarray(kernel).swapaxes(2, 3) * mixture[None, None]).astype(self.dtype),
      (self.stride, self.stride),
      ((half, half), (half, half)),
      dimension_numbers=ops.NHWC,
    )
    if last is None:
      return y
    bias = jnp.asarray(self.param('bias', nn.initializers.zeros, (channels,)))
    return y + ops.per_channel(((bias[:, None] * mixture).sum(0) + last).astype(self.dtype))


class SeparableConv(nn.Module):
  """Depthwise convolution, then a 1x1 convolution.

  Borders are padded by half the kernel on both sides, as in PyTorch, for any stride. If the output
  is one channel, both are computed as one convolution: the number of multiplications is no larger,
  and no intermediate image of every channel is stored.
  """

  features: int
  kernel: int
  stride: int = 1
  use_bias: bool = True
  mix_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b hs ws d']:
    if self.features == 1:
      return self._as_one_convolution(x)
    x = Conv(
      x.shape[-1],
      (self.kernel, self.kernel),
      strides=self.stride,
      padding=self.kernel // 2,
      feature_group_count=x.shape[-1],
      use_bias=self.use_bias,
      dtype=self.dtype,
      name='depthwise',
    )(x)
    return Conv(
      self.features,
      (1, 1),
      use_bias=self.use_bias,
      kernel_init=self.mix_init,
      dtype=self.dtype,
      name='pointwise',
    )(x)

  def _as_one_convolution(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b hs ws 1']:
    mixture = Mixture(self.use_bias, self.mix_init, name='pointwise')(x.shape[-1])
    return MixedConv(self.kernel, self.stride, self.dtype, name='depthwise')(x, *mixture)


class ResidualBlock(nn.Module):
  """Residual block: two separable convolutions with BatchNorm, and a PReLU between them.

  `unused_slope` adds a PReLU that the authors create and never apply; it is in their weights and
  in the published count.
  """

  features: int
  folded: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b h w c']:
    conv = partial(SeparableConv, self.features, 3, use_bias=self.folded, dtype=self.dtype)
    norm = partial(norm_or_identity, folded=self.folded, train=train, dtype=self.dtype)
    y = norm(name='norm_0')(conv(name='conv_0')(x))
    y = PReLU(name='prelu')(y)
    if not self.folded:
      self.param('unused_slope', _slope, (self.features,))
    return x + norm(name='norm_1')(conv(name='conv_1')(y))


def fold(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the variables of the equivalent network with `folded=True`.

  Every BatchNorm is folded into the 1x1 convolution before it, and unused slopes are removed.
  """
  params = fold_norms(variables, _fold_one)['params']
  for block in (params, *(x for name, x in params.items() if name.startswith('block_'))):
    block.pop('unused_slope', None)
  return {'params': params}


def _fold_one(conv: Mapping[str, Any], norm: Any, stats: Any) -> dict[str, Any]:
  depthwise = conv['depthwise']['kernel']
  return {
    'depthwise': {'kernel': depthwise, 'bias': jnp.zeros(depthwise.shape[-1])},
    'pointwise': fold_norm(conv['pointwise'], norm, stats),
  }


class SwiftSRGAN(Network):
  """Maps features through separable residual blocks, upsamples them and maps them into (0, 1).

  The generator of Swift-SRGAN. A PReLU has one slope per channel, and convolutions before a
  BatchNorm have no bias. The authors' code has `scale // 2` stages, which is x16 for scale 8; here
  scale 8 has three stages and scale 3 has one. `bicubic_skip=True`, a departure from the paper,
  adds the result, in (-1, 1), to a bicubic upsampling and starts the last convolution at zero.
  `folded=True` is for inference, without BatchNorm: train without it, then `fold` the variables.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 64
  blocks: int = 16
  bicubic_skip: bool = False
  folded: bool = False

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    x = SeparableConv(self.features, 9, dtype=self.dtype, name='head')(lr)
    shallow = x = PReLU(name='prelu')(x)
    for i in range(self.blocks):
      x = ResidualBlock(self.features, self.folded, self.dtype, name=f'block_{i}')(x, train=train)
      self.sow('features', 'trunk', x)
    body = SeparableConv(self.features, 3, use_bias=self.folded, dtype=self.dtype, name='body')
    if not self.folded:
      self.param('unused_slope', _slope, (self.features,))  # as in the blocks
    norm = norm_or_identity(folded=self.folded, train=train, dtype=self.dtype, name='norm')
    x = shallow + norm(body(x))
    init = tail_init(self.bicubic_skip, nn.initializers.lecun_normal())
    tail = SeparableConv(self.channels, 9, mix_init=init, name='tail')
    x = jnp.tanh(tail(self._enlarge(x).astype(jnp.float32)))
    return ops.upsample(lr, self.scale) + x if self.bicubic_skip else (x + 1) / 2

  def _enlarge(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw f']:
    for i, factor in enumerate(shuffle_stages(self.scale)):
      width = self.features * factor**2
      x = SeparableConv(width, 3, dtype=self.dtype, name=f'upsampler_{i}')(x)
      x = PReLU(name=f'prelu_{i}')(ops.pixel_shuffle(x, factor))
    return x
