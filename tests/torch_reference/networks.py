"""PyTorch references with the same weights, for tests and benchmarks.

The children of a reference have the names of the Flax modules, so that weights are copied by path.
Images are NCHW.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from torch import nn as tn
from torch.nn import functional as F

MEAN = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
STAGES = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}  # factors of the pixel shuffles by scale
NAMES = {
  **{name: 'weight' for name in ('kernel', 'scale', 'negative_slope')},
  **{'mean': 'running_mean', 'var': 'running_var'},
}


def to_torch(x):
  """Copy an array in float64; images become NCHW."""
  x = np.array(x, np.float64)
  return torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim == 4 else x))


def from_torch(x):
  x = x.detach().numpy()
  return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def leaves(tree, path=()):
  """Yields pairs of path and leaf of nested dicts."""
  for key, x in tree.items():
    if isinstance(x, Mapping):
      yield from leaves(x, (*path, key))
    else:
      yield (*path, key), x


def weights(reference, tree):
  """Yields, per leaf, the reference's layer and tensor, and the leaf in PyTorch's layout."""
  for path, x in leaves(tree):
    *modules, name = path
    layer = reference.get_submodule('.'.join(modules))
    tensor = getattr(layer, NAMES.get(name, name))
    yield layer, tensor, laid_out(layer, name, np.array(x, np.float64))


def laid_out(layer, name, x):
  """Returns a parameter, or its gradient, in PyTorch's layout."""
  if factor := getattr(layer, 'shuffle', None):  # row, column, channel: channel first
    x = x.reshape(*x.shape[:-1], factor**2, -1).swapaxes(-1, -2).reshape(x.shape)
  if name == 'kernel' and x.ndim == 4:
    x = x.transpose(3, 2, 0, 1)
  elif name == 'kernel':
    if grid := getattr(layer, 'grid', None):  # before a flatten: channel, row, column
      x = x.reshape(*grid, -1).transpose(2, 0, 1, 3).reshape(x.shape)
    x = x.T
  return np.atleast_1d(x)  # a slope for all channels


def load(reference, variables):
  """Copy parameters and running averages to the reference; all must be used."""
  for tree in variables.values():
    for _, tensor, own in weights(reference, tree):
      assert tensor.shape == own.shape
      tensor.data = torch.tensor(np.ascontiguousarray(own))
  count = sum(p.numel() for p in reference.parameters())
  assert count == sum(np.size(x) for _, x in leaves(variables.get('params', {})))


def conv(inputs, outputs, size=3, **options):
  return tn.Conv2d(inputs, outputs, size, **({'padding': size // 2} | options))


def shuffled(inputs, outputs, factor, layer=conv):
  """Returns a convolution before a pixel shuffle, whose channels have their own layout."""
  made = layer(inputs, outputs * factor**2)
  getattr(made, 'pointwise', made).shuffle = factor
  return made


def numbered(module, prefix, parts):
  """Register parts as prefix_0, prefix_1 and so on; returns them as a list."""
  parts = list(parts)
  for i, part in enumerate(parts):
    module.add_module(f'{prefix}_{i}', part)
  return parts


class Upsampler(tn.Module):
  def __init__(self, scale, features):
    super().__init__()
    self.factors = STAGES[scale]
    numbered(self, 'conv', (shuffled(features, features, s) for s in self.factors))

  def forward(self, x):
    for layer, factor in zip(self.children(), self.factors, strict=True):
      x = F.pixel_shuffle(layer(x), factor)
    return x


class Cubic(tn.Module):
  """Upsample images of one size by Keys' kernel; `edges` is `boundary` of `jaxsr.ops.upsample`."""

  def __init__(self, size, scale, edges='cut'):
    super().__init__()
    for name, length in zip(('rows', 'columns'), size, strict=True):
      matrix = torch.tensor(cubic(length, scale, edges))
      self.register_buffer(name, matrix, persistent=False)

  def forward(self, x):
    return self.rows @ x @ self.columns.T


def cubic(length, scale, edges):
  """Returns the upsampling of a line as a matrix [scale * length, length]."""
  at = (np.arange(scale * length) + 0.5) / scale - 0.5
  matrix = np.zeros((scale * length, length))
  for i in range(-1, 3):
    place = np.floor(at).astype(int) + i
    d = np.abs(at - place)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weight = np.where(d < 1, near, np.where(d < 2, far, 0))
    if edges == 'cut':
      weight = np.where((place >= 0) & (place < length), weight, 0)
    place = np.where(place < 0, -1 - place, place)
    place = np.where(place >= length, 2 * length - 1 - place, place)
    np.add.at(matrix, (np.arange(scale * length), place), weight)
  return matrix / matrix.sum(1, keepdims=True)


class VDSR(tn.Module):
  def __init__(self, enlarge, channels, features, blocks):
    super().__init__()
    self.enlarge = enlarge
    inputs = [channels] + [features] * (blocks - 1)
    parts = (conv(a, b) for a, b in zip(inputs, [*inputs[1:], channels], strict=True))
    self.convs = numbered(self, 'conv', parts)

  def forward(self, x):
    enlarged = x = self.enlarge(x)
    for layer in self.convs[:-1]:
      x = F.relu(layer(x))
    return enlarged + self.convs[-1](x)


class ResidualBlock(tn.Module):
  def __init__(self, features, scaling):
    super().__init__()
    self.scaling = scaling
    numbered(self, 'conv', (conv(features, features) for _ in range(2)))

  def forward(self, x):
    return x + self.scaling * self.conv_1(F.relu(self.conv_0(x)))


class EDSR(tn.Module):
  """EDSR; the layers `image` compute the image from the last features, and `base` is added."""

  def __init__(
    self, image, *, features=8, blocks=2, channels=1, scaling=1.0, of=1, mean=0.0, base=None
  ):
    super().__init__()
    self.range, self.mean = of, mean
    self.base = base or (lambda x: mean)
    self.head, self.body = conv(channels, features), conv(features, features)
    parts = (ResidualBlock(features, scaling) for _ in range(blocks))
    self.blocks = numbered(self, 'block', parts)
    for name, part in image.items():
      self.add_module(name, part)
    self.image = tuple(image.values())

  def forward(self, image):
    shallow = self.head((image - self.mean) * self.range)
    x = shallow + self.body(tn.Sequential(*self.blocks)(shallow))
    for part in self.image:
      x = part(x)
      x = F.pixel_shuffle(x, part.shuffle) if hasattr(part, 'shuffle') else x
    return x / self.range + self.base(image)


def by_shuffles(scale, channels=1, features=8):
  """Returns layers that compute EDSR's image by stages."""
  return {'upsampler': Upsampler(scale, features), 'tail': conv(features, channels)}


def directly(scale, channels=1, features=8):
  """Returns layers that compute EDSR's image by one pixel shuffle."""
  return {'tail': shuffled(features, channels, scale)}


class RDNBlock(tn.Module):
  def __init__(self, features, layers, growth):
    super().__init__()
    widths = (features + i * growth for i in range(layers))
    self.convs = numbered(self, 'conv', (conv(width, growth) for width in widths))
    self.fusion = conv(features + layers * growth, features, 1)

  def forward(self, x):
    y = x
    for layer in self.convs:
      y = torch.cat([y, F.relu(layer(y))], 1)
    return x + self.fusion(y)


class RDN(tn.Module):
  def __init__(self, scale, channels, features, blocks, layers, growth):
    super().__init__()
    self.head_0, self.head_1 = conv(channels, features), conv(features, features)
    parts = (RDNBlock(features, layers, growth) for _ in range(blocks))
    self.blocks = numbered(self, 'block', parts)
    self.fusion_0, self.fusion_1 = conv(features * blocks, features, 1), conv(features, features)
    self.upsampler, self.tail = Upsampler(scale, features), conv(features, channels)

  def forward(self, x):
    shallow = self.head_0(x)
    y, outputs = self.head_1(shallow), []
    for block in self.blocks:
      y = block(y)
      outputs.append(y)
    y = self.fusion_1(self.fusion_0(torch.cat(outputs, 1))) + shallow
    return self.tail(self.upsampler(y))


class RRDBDense(tn.Module):
  def __init__(self, features, growth):
    super().__init__()
    for i in range(4):
      self.add_module(f'conv_{i}', conv(features + i * growth, growth))
    self.conv_4 = conv(features + 4 * growth, features)

  def forward(self, x):
    seen = [x]
    for i in range(4):
      seen.append(F.leaky_relu(getattr(self, f'conv_{i}')(torch.cat(seen, 1)), 0.2))
    return x + 0.2 * self.conv_4(torch.cat(seen, 1))


class RRDB(tn.Module):
  def __init__(self, features, growth):
    super().__init__()
    for i in range(3):
      self.add_module(f'dense_{i}', RRDBDense(features, growth))

  def forward(self, x):
    return x + 0.2 * self.dense_2(self.dense_1(self.dense_0(x)))


class RRDBNet(tn.Module):
  def __init__(self, scale, channels, features, growth, blocks):
    super().__init__()
    self.blocks, self.factors = blocks, STAGES[scale]
    self.head = conv(channels, features)
    for i in range(blocks):
      self.add_module(f'block_{i}', RRDB(features, growth))
    self.body = conv(features, features)
    for i in range(len(self.factors)):
      self.add_module(f'up_{i}', conv(features, features))
    self.detail, self.tail = conv(features, features), conv(features, channels)

  def forward(self, x):
    shallow = x = self.head(x)
    for i in range(self.blocks):
      x = getattr(self, f'block_{i}')(x)
    x = shallow + self.body(x)
    for i, factor in enumerate(self.factors):
      x = F.interpolate(x, scale_factor=factor, mode='nearest')
      x = F.leaky_relu(getattr(self, f'up_{i}')(x), 0.2)
    return self.tail(F.leaky_relu(self.detail(x), 0.2))


class Separable(tn.Module):
  def __init__(self, inputs, outputs, kernel=3, *, stride=1, bias=True):
    super().__init__()
    self.depthwise = conv(inputs, inputs, kernel, groups=inputs, stride=stride, bias=bias)
    self.pointwise = conv(inputs, outputs, 1, bias=bias)

  def forward(self, x):
    return self.pointwise(self.depthwise(x))


class NormalizedBlock(tn.Module):
  """The residual block of SRResNet, or with separable convolutions Swift-SRGAN's."""

  def __init__(self, features, layer, slopes, **options):
    super().__init__()
    if layer is Separable:
      self.unused_slope = tn.Parameter(torch.zeros(features))
    self.conv_0, self.conv_1 = (layer(features, features, **options) for _ in range(2))
    self.norm_0, self.norm_1 = (tn.BatchNorm2d(features) for _ in range(2))
    self.prelu = tn.PReLU(slopes)

  def forward(self, x):
    y = self.prelu(self.norm_0(self.conv_0(x)))
    return x + self.norm_1(self.conv_1(y))


class NormalizedNet(tn.Module):
  """SRResNet or Swift-SRGAN."""

  def __init__(self, scale, channels, features, blocks, *, swift):
    super().__init__()
    layer, slopes = (Separable, features) if swift else (conv, 1)
    before_norm = {'bias': False} if swift else {}
    self.factors, self.swift = STAGES[scale], swift
    self.head, self.prelu = layer(channels, features, 9), tn.PReLU(slopes)
    parts = (NormalizedBlock(features, layer, slopes, **before_norm) for _ in range(blocks))
    self.blocks = numbered(self, 'block', parts)
    self.body = layer(features, features, **before_norm)
    self.norm = tn.BatchNorm2d(features)
    if swift:
      self.unused_slope = tn.Parameter(torch.zeros(features))
    parts = (shuffled(features, features, s, layer) for s in self.factors)
    self.upsamplers = numbered(self, 'upsampler', parts)
    self.acts = numbered(self, 'prelu', (tn.PReLU(slopes) for _ in self.factors))
    self.tail = layer(features, channels, 9)

  def forward(self, x):
    shallow = self.prelu(self.head(x))
    x = shallow + self.norm(self.body(tn.Sequential(*self.blocks)(shallow)))
    for factor, layer, act in zip(self.factors, self.upsamplers, self.acts, strict=True):
      x = act(F.pixel_shuffle(layer(x), factor))
    x = self.tail(x)
    return (torch.tanh(x) + 1) / 2 if self.swift else x


class Discriminator(tn.Module):
  def __init__(self, channels, features, hidden, *, swift):
    super().__init__()
    widths = [features * 2 ** (i // 2) for i in range(8)]
    parts = []
    for i, (a, b) in enumerate(zip([channels, *widths], widths, strict=False)):
      options = {'bias': i == 0} if swift else {}
      parts.append((Separable if swift else conv)(a, b, 3, stride=1 + i % 2, **options))
    self.convs = numbered(self, 'conv', parts)
    self.norms = [tn.Identity(), *(tn.BatchNorm2d(width) for width in widths[1:])]
    numbered(self, 'norm', self.norms)
    self.dense_0, self.dense_1 = tn.Linear(widths[-1] * 36, hidden), tn.Linear(hidden, 1)
    self.dense_0.grid = (6, 6, widths[-1])

  def forward(self, x):
    for layer, norm in zip(self.convs, self.norms, strict=True):
      x = F.leaky_relu(norm(layer(x)), 0.2)
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    return self.dense_1(F.leaky_relu(self.dense_0(x), 0.2))


class Conv3XC(tn.Module):
  def __init__(self, a, b):
    super().__init__()
    self.expand, self.project, self.skip = conv(a, 2 * a, 1), conv(2 * b, b, 1), conv(a, b, 1)
    self.conv = conv(2 * a, 2 * b, padding=0)

  def forward(self, x):
    return self.project(self.conv(self.expand(F.pad(x, (1, 1, 1, 1))))) + self.skip(x)


class SPAB(tn.Module):
  def __init__(self, features, layer=Conv3XC):
    super().__init__()
    numbered(self, 'conv', (layer(features, features) for _ in range(3)))

  def forward(self, x):
    first = F.silu(self.conv_0(x))
    y = self.conv_2(F.silu(self.conv_1(first)))
    return (x + y) * (torch.sigmoid(y) - 0.5), first


class SPAN(tn.Module):
  def __init__(self, scale, features, blocks, image_range, layer, channels=3):
    super().__init__()
    self.scale, self.range, self.mean = scale, image_range, MEAN if channels == 3 else 0.0
    self.head, self.body = layer(channels, features), layer(features, features)
    self.blocks = numbered(self, 'block', (SPAB(features, layer) for _ in range(blocks)))
    self.join, self.tail = conv(4 * features, features, 1), shuffled(features, channels, scale)

  def forward(self, x):
    shallow = x = self.head((x - self.mean) * self.range)
    outputs = []
    for block in self.blocks:
      x, inner = block(x)
      outputs.append(x)
    x = self.join(torch.cat([shallow, self.body(x), outputs[0], inner], 1))
    return F.pixel_shuffle(self.tail(x), self.scale)


class WindowAttention(tn.Module):
  """Attention in windows [all, pixels, c]; scores plus `mask` [windows, pixels, pixels]."""

  def __init__(self, features, heads, window):
    super().__init__()
    self.heads = heads
    self.qkv, self.project = tn.Linear(features, 3 * features), tn.Linear(features, features)
    self.position_bias = tn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
    at = list(product(range(window), repeat=2))
    row = lambda down, right: (down + window - 1) * (2 * window - 1) + right + window - 1
    rows = [[row(a[0] - b[0], a[1] - b[1]) for b in at] for a in at]
    self.register_buffer('rows', torch.tensor(rows), persistent=False)

  def forward(self, x, mask):
    bias = self.position_bias[self.rows].permute(2, 0, 1)
    bias = bias + mask.repeat(len(x) // len(mask), 1, 1)[:, None]
    q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return self.project(x.transpose(1, 2).flatten(2))


def shift_mask(height, width, size, shift):
  """Returns -100 between pixels of a window that are adjacent only because of the roll."""
  region = torch.zeros(height, width)
  parts = (slice(0, -size), slice(-size, -shift), slice(-shift, None)) if shift else (slice(None),)
  for i, (rows, columns) in enumerate(product(parts, parts)):
    region[rows, columns] = i
  windows = region.view(height // size, size, width // size, size).transpose(1, 2)
  windows = windows.reshape(-1, size * size)
  return (windows[:, :, None] != windows[:, None, :]) * -100.0


class SwinBlock(tn.Module):
  """Roll, windows and mask as in the authors' code; the mask is cached per image size."""

  def __init__(self, features, heads, window, shift):
    super().__init__()
    self.window, self.shift, self.masks = window, shift, {}
    self.norm_0, self.norm_1 = tn.LayerNorm(features), tn.LayerNorm(features)
    self.attention = WindowAttention(features, heads, window)
    self.mlp_0, self.mlp_1 = tn.Linear(features, 2 * features), tn.Linear(2 * features, features)

  def forward(self, x):
    x = x.permute(0, 2, 3, 1)
    x = x + self.attend(self.norm_0(x))
    x = x + self.mlp_1(F.gelu(self.mlp_0(self.norm_1(x))))
    return x.permute(0, 3, 1, 2)

  def attend(self, x):
    b, h, w, c = x.shape
    n, shift = self.window, self.shift
    if (h, w) not in self.masks:
      self.masks[h, w] = shift_mask(h, w, n, shift).to(x.device, x.dtype)
    x = x.roll((-shift, -shift), (1, 2)) if shift else x
    x = x.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)
    x = self.attention(x, self.masks[h, w])
    x = x.view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
    return x.roll((shift, shift), (1, 2)) if shift else x


class SwinGroup(tn.Module):
  def __init__(self, features, depth, heads, window, block):
    super().__init__()
    shifts = [window // 2 if i % 2 else 0 for i in range(depth)]
    parts = (block(features, heads, window, shift) for shift in shifts)
    self.blocks = numbered(self, 'block', parts)
    self.conv = conv(features, features)

  def forward(self, x):
    return x + self.conv(tn.Sequential(*self.blocks)(x))


class SwinIR(tn.Module):
  def __init__(self, scale, features, depths, heads, window, tail, direct, block, channels=3):
    super().__init__()
    self.scale, self.window, self.direct = scale, window, direct
    self.mean = MEAN if channels == 3 else 0.0
    self.head, self.body = conv(channels, features), conv(features, features)
    self.head_norm, self.norm = tn.LayerNorm(features), tn.LayerNorm(features)
    parts = (SwinGroup(features, depth, heads, window, block) for depth in depths)
    self.groups = numbered(self, 'group', parts)
    if direct:
      self.tail = shuffled(features, channels, scale)
    else:
      self.before_upsampler, self.tail = conv(features, tail), conv(tail, channels)
      self.upsampler = Upsampler(scale, tail)

  def forward(self, image):
    h, w = image.shape[2:]
    x = F.pad(image, (0, -w % self.window, 0, -h % self.window), mode='reflect') - self.mean
    shallow = self.head(x)
    x = tn.Sequential(*self.groups)(self.norm_of(self.head_norm, shallow))
    x = shallow + self.body(self.norm_of(self.norm, x))
    return (self.image(x) + self.mean)[:, :, : h * self.scale, : w * self.scale]

  def norm_of(self, norm, x):
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

  def image(self, x):
    if self.direct:
      return F.pixel_shuffle(self.tail(x), self.scale)
    return self.tail(self.upsampler(F.leaky_relu(self.before_upsampler(x), 0.01)))
