"""SwinIR: Image Restoration Using Swin Transformer (Liang et al., ICCVW 2021)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxsr import ops
from jaxsr.models.layers import (
  DIV2K_MEAN,
  Conv,
  Dense,
  Upsampler,
  direct_image,
  finish,
  shuffle_stages,
  tail_init,
)
from jaxsr.models.network import Network

_small = nn.initializers.truncated_normal(0.02)
_norm = partial(nn.LayerNorm, epsilon=1e-5)


def to_windows(x: Array, size: int) -> Array:
  """Returns the windows of [b, h, w, c]: [b * windows, size * size, c]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // size, size, w // size, size, c)
  return x.swapaxes(2, 3).reshape(-1, size * size, c)


def from_windows(windows: Array, size: int, shape: Sequence[Any]) -> Array:
  """Inverse of `to_windows`: assemble windows to `shape` [b, h, w, c]."""
  b, h, w, c = shape
  x = windows.reshape(b, h // size, w // size, size, size, c)
  return x.swapaxes(2, 3).reshape(b, h, w, c)


def positions(size: int) -> Int[np.ndarray, 'n n']:
  """Returns, for each pair of pixels of a window, its row in the table of position biases."""
  at = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing='ij')).reshape(2, -1)
  down, right = at[:, :, None] - at[:, None, :] + size - 1
  return down * (2 * size - 1) + right


def regions(height: int, width: int, size: int, shift: int) -> Int[np.ndarray, 'windows n']:
  """Returns the region of each pixel: pixels of a window that were adjacent before the shift.

  Computed by NumPy while tracing, for any height and width that are multiples of `size`.
  """
  rows, columns = (np.digitize(np.arange(n), (n - size, n - shift)) for n in (height, width))
  region = 3 * rows[:, None] + columns
  windows = region.reshape(height // size, size, width // size, size).swapaxes(1, 2)
  return windows.reshape(-1, size * size)


class WindowAttention(nn.Module):
  """Attention inside windows, with a learned bias for each offset between two pixels.

  If `regions` of the windows of one image are given, pixels attend only to their own region.
  """

  features: int
  heads: int
  window: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'all n c'], regions: Int[np.ndarray, 'windows n'] | None
  ) -> Float[Array, 'all n c']:
    dense = partial(Dense, kernel_init=_small, dtype=self.dtype)
    x = dense(3 * self.features, name='qkv')(x)
    apart = None if regions is None else jnp.asarray(regions)
    x = ops.attend(x, self._bias(), apart, heads=self.heads)
    return dense(self.features, name='project')(x)

  def _bias(self) -> Float[Array, 'heads n n']:
    table = self.param('position_bias', _small, ((2 * self.window - 1) ** 2, self.heads))
    return jnp.moveaxis(table[positions(self.window)], -1, 0).astype(self.dtype)


class SwinBlock(nn.Module):
  """Attention inside windows, then an MLP, each after its norm and added to its input.

  `shift` is the offset of the windows in pixels.
  """

  features: int
  heads: int
  window: int
  shift: int
  mlp_ratio: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    x = x + self._attend(_norm(dtype=self.dtype, name='norm_0')(x))
    y = _norm(dtype=self.dtype, name='norm_1')(x)
    dense = partial(Dense, kernel_init=_small, dtype=self.dtype)
    y = nn.gelu(dense(int(self.features * self.mlp_ratio), name='mlp_0')(y), approximate=False)
    return x + dense(self.features, name='mlp_1')(y)

  def _attend(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    shape, size, shift = x.shape, self.window, self.shift
    x = to_windows(jnp.roll(x, (-shift, -shift), (1, 2)), size)
    attention = WindowAttention(self.features, self.heads, size, self.dtype, name='attention')
    x = attention(x, regions(shape[1], shape[2], size, shift) if shift else None)
    return jnp.roll(from_windows(x, size, shape), (shift, shift), (1, 2))


class SwinGroup(nn.Module):
  """A chain of blocks, every other one shifted, and a convolution, added to the input."""

  features: int
  depth: int
  heads: int
  window: int
  mlp_ratio: float
  remat: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    block = nn.remat(SwinBlock) if self.remat else SwinBlock
    y = x
    for i in range(self.depth):
      shift = self.window // 2 if i % 2 else 0
      fields = (self.features, self.heads, self.window, shift, self.mlp_ratio, self.dtype)
      y = block(*fields, name=f'block_{i}')(y)
    return x + Conv(self.features, (3, 3), dtype=self.dtype, name='conv')(y)


class SwinIR(Network):
  """Maps low-resolution features through groups of Swin transformer blocks, then upsamples them.

  The defaults are the paper's classical network. The light network is `features=60, depths=(6, 6,
  6, 6), upsampler='direct'`, and the one for real images has `upsampler='nearest'`: nearest
  interpolation and convolutions. As in the authors' code, inputs are padded by reflection to
  multiples of the window, `mean` is subtracted if they are RGB, and outputs are cropped. Stochastic
  depth (0.1 there) and dropout (0 there) are left out. `bicubic_skip=True`, a departure from the
  paper, adds the result to a bicubic upsampling and starts the last convolution at zero.
  `remat=True` recomputes blocks in the backward pass instead of storing their activations.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features', 'tail_features')
  depth_fields: ClassVar[tuple[str, ...]] = ('depths',)
  width_multiple: ClassVar[int] = 12  # a multiple of 4 and of the number of heads

  features: int = 180
  depths: Sequence[int] = (6, 6, 6, 6, 6, 6)
  heads: int = 6
  window: int = 8
  mlp_ratio: float = 2.0
  upsampler: str = 'shuffle'
  tail_features: int = 64
  mean: Sequence[float] = DIV2K_MEAN
  bicubic_skip: bool = False
  remat: bool = False

  @property
  def tile_multiple(self) -> int:
    """The size of the attention windows, which are counted from the tile's origin."""
    return self.window

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    if self.features % self.heads:
      raise ValueError(f'features={self.features} is not a multiple of heads={self.heads}')
    _, h, w, _ = lr.shape
    mean = jnp.asarray(self.mean if self.channels == 3 else 0.0)
    border = [(0, 0), (0, -h % self.window), (0, -w % self.window), (0, 0)]
    x = jnp.pad(lr, border, mode='reflect') - mean
    shallow = Conv(self.features, (3, 3), dtype=self.dtype, name='head')(x)
    x = self._trunk(shallow)
    x = shallow + Conv(self.features, (3, 3), dtype=self.dtype, name='body')(x)
    image = self._image(x)[:, : h * self.scale, : w * self.scale]
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip, mean=mean)

  def _trunk(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b h w f']:
    x = _norm(dtype=self.dtype, name='head_norm')(x)
    for i, depth in enumerate(self.depths):
      x = SwinGroup(
        *(self.features, depth, self.heads, self.window),
        *(self.mlp_ratio, self.remat, self.dtype),
        name=f'group_{i}',
      )(x)
      self.sow('features', 'trunk', x)
    return _norm(dtype=self.dtype, name='norm')(x)

  def _image(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw c']:
    init = tail_init(self.bicubic_skip)
    if self.upsampler == 'direct':
      return direct_image(x, self.channels, self.scale, bicubic_skip=self.bicubic_skip)
    if self.upsampler not in ('shuffle', 'nearest'):
      raise ValueError(f"upsampler {self.upsampler!r} is not one of 'shuffle', 'direct', 'nearest'")
    x = Conv(self.tail_features, (3, 3), dtype=self.dtype, name='before_upsampler')(x)
    x = nn.leaky_relu(x, 0.01)
    if self.upsampler == 'nearest':
      x = self._nearest(x)
      return Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)
    x = Upsampler(self.scale, self.tail_features, self.dtype, name='upsampler')(x)
    return Conv(self.channels, (3, 3), kernel_init=init, name='tail')(x)

  def _nearest(self, x: Float[Array, 'b h w f']) -> Float[Array, 'b sh sw f']:
    conv = partial(Conv, self.tail_features, (3, 3), dtype=self.dtype)
    for i, factor in enumerate(shuffle_stages(self.scale)):
      x = jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
      x = nn.leaky_relu(conv(name=f'up_{i}')(x), 0.2)
    return nn.leaky_relu(conv(name='detail')(x), 0.2)
