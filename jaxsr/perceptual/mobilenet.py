"""MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., CVPR 2018)."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.models.layers import Conv

STEM, HEAD = 32, 1280
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
STAGES += ((6, 160, 3, 2), (6, 320, 1, 1))  # expansion, width, blocks, stride of the first


class Block(NamedTuple):
  """An inverted residual: expand the channels, convolve depthwise, project to `features`."""

  expansion: int
  features: int
  stride: int


def blocks() -> Iterator[Block]:
  """Yields the 17 blocks in order."""
  for expansion, features, count, stride in STAGES:
    for i in range(count):
      yield Block(expansion, features, stride if i == 0 else 1)


class MobileNetV2(nn.Module):
  """MobileNetV2 up to one layer.

  Attributes:
    layer: `stem`, `block_0` to `block_16` (after the residual addition), `block_N/expand`,
      `block_N/depthwise` (inside a block), or `head`.
    activated: Whether features are taken after ReLU6, which the output of a block does not have.
    epsilon: That of BatchNorm.
    tensorflow: Whether strided convolutions pad only at the bottom and right.
    dtype: Of the computation.
  """

  layer: str
  activated: bool = True
  epsilon: float = 1e-5
  tensorflow: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, image: Float[Array, 'b h w 3']) -> Float[Array, 'b y x f']:
    unit = partial(Unit, epsilon=self.epsilon, tensorflow=self.tensorflow, dtype=self.dtype)
    steps = [('stem', unit(STEM, 3, 2, name='stem'))]
    x, shortcut = image, image
    for i, block in enumerate(blocks()):
      width = block.expansion * (steps[-1][1].features if i else STEM)
      if block.expansion > 1:
        steps.append((f'block_{i}/expand', unit(width, 1, name=f'block_{i}_expand')))
      wide = unit(width, 3, block.stride, depthwise=True, name=f'block_{i}_depthwise')
      narrow = unit(block.features, 1, name=f'block_{i}_project')
      steps += [(f'block_{i}/depthwise', wide), (f'block_{i}', narrow)]
    steps.append(('head', unit(HEAD, 1, name='head')))
    for name, layer in steps:
      x = layer(x)
      linear = '/' not in name and name.startswith('block')
      if linear:
        x = x + shortcut if x.shape == shortcut.shape else x
        shortcut = x
      if name == self.layer:
        return x if linear or not self.activated else nn.relu6(x)
      if not linear:
        x = nn.relu6(x)
    raise ValueError(f'layer {self.layer!r} is not one of {", ".join(layers())}')


class Unit(nn.Module):
  """A convolution and BatchNorm."""

  features: int
  kernel: int
  stride: int = 1
  depthwise: bool = False
  epsilon: float = 1e-5
  tensorflow: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b y x f']:
    x = Conv(
      self.features,
      (self.kernel, self.kernel),
      strides=self.stride,
      padding=self._padding(x),
      use_bias=False,
      dtype=self.dtype,
      name='conv',
      feature_group_count=x.shape[-1] if self.depthwise else 1,
    )(x)
    norm = nn.BatchNorm(
      use_running_average=True, epsilon=self.epsilon, dtype=self.dtype, name='norm'
    )
    return norm(x)

  def _padding(self, x: Float[Array, 'b h w c']) -> list[tuple[int, int]]:
    if not self.tensorflow:
      return [(self.kernel // 2, self.kernel // 2)] * 2
    spare = [self.kernel - (n - 1) % self.stride - 1 for n in x.shape[1:3]]
    return [(n // 2, n - n // 2) for n in spare]


def layers() -> list[str]:
  """Returns the names of the layers in order."""
  names = ['stem']
  for i, block in enumerate(blocks()):
    parts = ('expand', 'depthwise') if block.expansion > 1 else ('depthwise',)
    names += [*(f'block_{i}/{part}' for part in parts), f'block_{i}']
  return [*names, 'head']
