"""Layers that several networks share."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr import ops

# PyTorch's default, a third of linen's variance: sums over many blocks neither grow nor vanish.
torch_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # for ReLU (He et al., 2015)

Conv = partial(nn.Conv, conv_general_dilated=ops.convolve)  # XLA's own is slow on CPUs
Dense = partial(nn.Dense, dot_general=ops.multiply)  # and so is its gradient

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # RGB mean that networks for natural images subtract

# PyTorch's constants (its momentum of 0.1 is 0.9 here). In training, PyTorch's running variance
# accumulates the unbiased variance of a batch, which is n / (n - 1) times the biased one that Flax
# accumulates, with n the number of images times pixels: a difference of 4e-5 for 16 patches of 40
# pixels. Both normalize the batch itself by the biased variance.
EPSILON = 1e-5
batch_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=EPSILON)


def fold_norm(
  conv: Mapping[str, Any], norm: Mapping[str, Any], stats: Mapping[str, Any]
) -> dict[str, Array]:
  """Returns a convolution's parameters with the BatchNorm that follows it folded in."""
  factor = norm['scale'] / jnp.sqrt(stats['var'] + EPSILON)
  bias = (conv.get('bias', 0.0) - stats['mean']) * factor + norm['bias']
  return {'kernel': conv['kernel'] * factor, 'bias': bias}


def fold_norms(
  variables: Mapping[str, Any], fold: Callable[[Any, Any, Any], dict[str, Any]] = fold_norm
) -> dict[str, Any]:
  """Returns the variables of a trunk of residual blocks without its BatchNorms.

  Args:
    variables: `norm` after `body`, if there is one; in each block, `norm_0` after `conv_0` and
      `norm_1` after `conv_1`.
    fold: computes a convolution's parameters as `fold_norm` does.
  """
  params, stats = dict(variables['params']), variables['batch_stats']
  if 'norm' in params:
    params['body'] = fold(params['body'], params.pop('norm'), stats['norm'])
  for name in stats.keys() - {'norm'}:
    block = dict(params[name])
    for i in (0, 1):
      norm = block.pop(f'norm_{i}')
      block[f'conv_{i}'] = fold(block[f'conv_{i}'], norm, stats[name][f'norm_{i}'])
    params[name] = block
  return {'params': params}


def norm_or_identity(*, folded: bool, train: bool, dtype: DTypeLike, name: str) -> Any:
  """Returns a BatchNorm, or the identity if it is folded into the convolution before it."""
  if folded:
    return lambda x: x
  return batch_norm(use_running_average=not train, dtype=dtype, name=name)


def shuffle_stages(scale: int) -> tuple[int, ...]:
  """Returns the factors of a scale's pixel shuffles: 4 -> (2, 2), 8 -> (2, 2, 2), 3 -> (3,)."""
  stages = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
  if scale not in stages:
    raise ValueError(f'scale {scale} has no pixel shuffle; there are {sorted(stages)}')
  return stages[scale]


class Upsampler(nn.Module):
  """Upsamples features by stages of convolution and pixel shuffle."""

  scale: int
  features: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b sh sw c']:
    for i, factor in enumerate(shuffle_stages(self.scale)):
      x = Conv(self.features * factor**2, (3, 3), dtype=self.dtype, name=f'conv_{i}')(x)
      x = ops.pixel_shuffle(x, factor)
    return x


def tail_init(
  bicubic_skip: bool, otherwise: nn.initializers.Initializer = he_normal
) -> nn.initializers.Initializer:
  """Returns the initializer of the last convolution: zeros if a bicubic upsampling is added."""
  return nn.initializers.zeros if bicubic_skip else otherwise


def direct_image(
  x: Float[Array, 'b h w f'], channels: int, scale: int, *, bicubic_skip: bool
) -> Float[Array, 'b sh sw c']:
  """Compute the image with one convolution, named `tail`, and one pixel shuffle."""
  init = tail_init(bicubic_skip)
  x = Conv(channels * scale**2, (3, 3), kernel_init=init, name='tail')(x)
  return ops.pixel_shuffle(x, scale)


def finish(
  image: Float[Array, 'b sh sw c'],
  lr: Float[Array, 'b h w c'],
  *,
  scale: int,
  bicubic_skip: bool,
  mean: Array | float | None = None,
) -> Float[Array, 'b sh sw c']:
  """Returns the image plus a bicubic upsampling of `lr`, so that training starts at bicubic.

  Without `bicubic_skip`, `mean` is added instead, if given: the mean that the network subtracted
  from its input.
  """
  if bicubic_skip:
    return ops.upsample(lr, scale) + image
  return image if mean is None else image + mean


class Join(nn.Module):
  """1x1 convolution of concatenated features: see `ops.join`. It has the parameters of `Conv`."""

  features: int
  kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, parts: Sequence[Float[Array, 'b h w _']]) -> Float[Array, 'b h w d']:
    channels = sum(x.shape[-1] for x in parts)
    kernel = self.param('kernel', self.kernel_init, (1, 1, channels, self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    kernel, bias, *parts = (jnp.asarray(x, self.dtype) for x in (kernel, bias, *parts))
    return ops.join(parts, kernel) + ops.per_channel(bias)


class PReLU(nn.Module):
  """PReLU with one learned slope per channel (He et al., ICCV 2015).

  Linen's PReLU has one slope for all channels.
  """

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    slope = self.param('negative_slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x >= 0, x, ops.per_channel(slope.astype(x.dtype)) * x)


class Deconvolution(nn.Module):
  """Upsamples features by an integer factor with a transposed convolution: see `ops.deconvolve`.

  `padding` defaults to the least that is possible. A kernel smaller than the factor would leave
  holes, so its size is raised to the factor. The kernel is stored as [k, k, out, in], so that
  PyTorch's [in, out, k, k] is imported by the same permutation, (2, 3, 1, 0), as a convolution's.
  """

  features: int
  factor: int
  kernel_size: int
  padding: int | None = None
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = he_normal
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b sh sw d']:
    size = max(self.kernel_size, self.factor)
    padding = -(-(size - self.factor) // 2) if self.padding is None else self.padding
    shape = (size, size, self.features, x.shape[-1])
    kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    y = ops.deconvolve(x.astype(self.dtype), kernel, self.factor, padding)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y += ops.per_channel(bias.astype(self.dtype))
    return y
