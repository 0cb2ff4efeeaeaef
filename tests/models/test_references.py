"""FSRCNN, MSRResNet, RCAN, RRDB, SwinIR, SPAN and RLFN against PyTorch references."""

from functools import partial
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models
from jaxsr.models import rcan, rlfn, rrdb, span, swinir
from models.references import F, agree, tn, torch
from torch_reference.networks import (
  MEAN,
  SPAB,
  SPAN,
  Conv3XC,
  SwinBlock,
  SwinGroup,
  SwinIR,
  Upsampler,
  WindowAttention,
  conv,
  numbered,
  shuffled,
  to_torch,
)


class ChannelAttention(tn.Module):
  def __init__(self, features, reduction):
    super().__init__()
    self.down, self.up = (
      conv(features, features // reduction, 1),
      conv(features // reduction, features, 1),
    )

  def forward(self, x):
    return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class RCAB(tn.Module):
  def __init__(self, features, reduction):
    super().__init__()
    numbered(self, 'conv', (conv(features, features) for _ in range(2)))
    self.attention = ChannelAttention(features, reduction) if reduction else tn.Identity()

  def forward(self, x):
    return x + self.attention(self.conv_1(F.relu(self.conv_0(x))))


class ResidualGroup(tn.Module):
  def __init__(self, features, blocks, reduction):
    super().__init__()
    self.blocks = numbered(self, 'block', (RCAB(features, reduction) for _ in range(blocks)))
    self.conv = conv(features, features)

  def forward(self, x):
    return x + self.conv(tn.Sequential(*self.blocks)(x))


class RCAN(tn.Module):
  def __init__(self, scale, features, groups, blocks, reduction):
    super().__init__()
    self.head, self.body, self.tail = conv(3, features), conv(features, features), conv(features, 3)
    self.upsampler = Upsampler(scale, features)
    parts = (ResidualGroup(features, blocks, reduction) for _ in range(groups))
    self.groups = numbered(self, 'group', parts)

  def forward(self, x):
    shallow = self.head((x - MEAN) * 255)
    x = tn.Sequential(*self.groups)(shallow)
    return self.tail(self.upsampler(shallow + self.body(x))) / 255 + MEAN


def test_channel_attention(rng):
  agree(rng, rcan.ChannelAttention(4, jnp.float32), ChannelAttention(8, 4), (2, 5, 6, 8))


@pytest.mark.parametrize('attention', [True, False])
def test_rcab(attention, rng):
  block = rcan.RCAB(8, 4, attention, jnp.float32)
  agree(rng, block, RCAB(8, 4 if attention else 0), (2, 5, 6, 8))


def test_residual_group(rng):
  group = rcan.ResidualGroup(8, 2, 4, True, False, jnp.float32)
  agree(rng, group, ResidualGroup(8, 2, 4), (2, 5, 6, 8))


def test_rcan(rng):
  options = {'features': 8, 'groups': 2, 'blocks': 2, 'reduction': 4}
  network = models.build('rcan', options, scale=3, channels=3)
  agree(rng, network, RCAN(3, *options.values()), (1, 5, 6, 3), train=False)


class DenseBlock(tn.Module):
  def __init__(self, features, growth):
    super().__init__()
    widths = (growth,) * 4 + (features,)
    self.layers = numbered(
      self, 'conv', (conv(features + i * growth, w) for i, w in enumerate(widths))
    )

  def forward(self, x):
    seen = x
    for layer in self.layers[:-1]:
      seen = torch.cat([seen, F.leaky_relu(layer(seen), 0.2)], 1)
    return x + 0.2 * self.conv_4(seen)


class RRDB(tn.Module):
  def __init__(self, features, growth):
    super().__init__()
    numbered(self, 'dense', (DenseBlock(features, growth) for _ in range(3)))

  def forward(self, x):
    return x + 0.2 * self.dense_2(self.dense_1(self.dense_0(x)))


class RRDBNet(tn.Module):
  def __init__(self, scale, features, growth, blocks):
    super().__init__()
    self.factor = 3 if scale == 3 else 2
    self.head, self.body = conv(3, features), conv(features, features)
    self.blocks = numbered(self, 'block', (RRDB(features, growth) for _ in range(blocks)))
    stages = {2: 1, 3: 1, 4: 2, 8: 3}[scale]
    self.ups = numbered(self, 'up', (conv(features, features) for _ in range(stages)))
    self.detail, self.tail = conv(features, features), conv(features, 3)

  def forward(self, x):
    x = self.head(x)
    x = x + self.body(tn.Sequential(*self.blocks)(x))
    for up in self.ups:
      x = F.leaky_relu(up(F.interpolate(x, scale_factor=self.factor, mode='nearest')), 0.2)
    return self.tail(F.leaky_relu(self.detail(x), 0.2))


def test_rrdb_dense_block(rng):
  agree(rng, rrdb.DenseBlock(8, 4, 0.2, jnp.float32), DenseBlock(8, 4), (2, 5, 6, 8))


def test_rrdb_block(rng):
  agree(rng, rrdb.RRDB(8, 4, 0.2, jnp.float32), RRDB(8, 4), (2, 5, 6, 8))


def test_rrdb(rng):
  options = {'features': 8, 'growth': 4, 'blocks': 2}
  network = models.build('rrdb', options, scale=4, channels=3)
  agree(rng, network, RRDBNet(4, *options.values()), (1, 4, 5, 3), train=False)


class FSRCNN(tn.Module):
  def __init__(self, scale, features, shrunk, blocks):
    super().__init__()
    shapes = [('head', 1, features, 5), ('shrink', features, shrunk, 1)]
    shapes += [(f'block_{i}', shrunk, shrunk, 3) for i in range(blocks)]
    shapes += [('expand', shrunk, features, 1)]
    for name, a, b, size in shapes:
      setattr(self, name, conv(a, b, size))
      setattr(self, f'{name}_slope', tn.PReLU(b))
    self.tail = tn.ConvTranspose2d(features, 1, 9, scale, padding=4, output_padding=scale - 1)

  def forward(self, x):
    return tn.Sequential(*self.children())(x)


@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_fsrcnn_and_its_deconvolution(scale, rng):
  options = {'features': 8, 'shrunk': 4, 'blocks': 1}
  network = models.build('fsrcnn', options, scale=scale)
  agree(rng, network, FSRCNN(scale, *options.values()), (2, 5, 6, 1), train=False)


class Joined(SPAB):
  def forward(self, x):
    return torch.cat(super().forward(x), 1)


def test_conv3xc(rng):
  agree(rng, span.Conv3XC(6, jnp.float32), Conv3XC(5, 6), (2, 5, 6, 5))


@pytest.mark.parametrize('folded', [False, True])
def test_spab(folded, rng):
  reference = Joined(8, conv if folded else Conv3XC)
  agree(rng, span.SPAB(8, folded, jnp.float32), reference, (2, 5, 6, 8))


@pytest.mark.parametrize('folded', [False, True])
def test_span(folded, rng):
  options = {'features': 8, 'blocks': 2, 'image_range': 8.0}
  network = models.build('span', options | {'folded': folded}, scale=3, channels=3)
  reference = SPAN(3, *options.values(), conv if folded else Conv3XC)
  agree(rng, network, reference, (1, 5, 6, 3), train=False)


class ESA(tn.Module):
  def __init__(self, features, inner):
    super().__init__()
    self.down, self.near, self.up = (
      conv(features, inner, 1),
      conv(inner, inner, 1),
      conv(inner, features, 1),
    )
    self.stride, self.far = conv(inner, inner, stride=2, padding=0), conv(inner, inner)

  def forward(self, x):
    near = self.down(x)
    far = self.far(F.max_pool2d(self.stride(near), 7, 3))
    far = F.interpolate(far, x.shape[2:], mode='bilinear', align_corners=False)
    return x * torch.sigmoid(self.up(far + self.near(near)))


class RLFB(tn.Module):
  def __init__(self, features, middle, inner):
    super().__init__()
    widths = (features, middle, middle, features)
    numbered(self, 'conv', (conv(a, b) for a, b in pairwise(widths)))
    self.mix, self.attention = conv(features, features, 1), ESA(features, inner)

  def forward(self, x):
    y = x
    for layer in (self.conv_0, self.conv_1, self.conv_2):
      y = F.leaky_relu(layer(y), 0.05)
    return self.attention(self.mix(x + y))


class RLFN(tn.Module):
  def __init__(self, scale, features, middle, blocks, inner):
    super().__init__()
    self.head, self.body = conv(1, features), conv(features, features)
    self.blocks = numbered(self, 'block', (RLFB(features, middle, inner) for _ in range(blocks)))
    self.tail = shuffled(features, 1, scale)

  def forward(self, x):
    x = self.head(x)
    x = x + self.body(tn.Sequential(*self.blocks)(x))
    return F.pixel_shuffle(self.tail(x), self.tail.shuffle)


def test_esa(rng):
  agree(rng, rlfn.ESA(4, jnp.float32), ESA(8, 4), (2, 19, 26, 8))


@pytest.mark.parametrize('size', [(15, 15), (24, 31)])
def test_rlfb_with_its_attention(size, rng):
  agree(rng, rlfn.RLFB(8, 6, 4, jnp.float32), RLFB(8, 6, 4), (1, *size, 8))


def test_rlfn(rng):
  options = {'features': 8, 'middle': 6, 'blocks': 2, 'attention': 4}
  network = models.build('rlfn', options, scale=2)
  agree(rng, network, RLFN(2, *options.values()), (1, 17, 22, 1), train=False)


class PlainBlock(tn.Module):
  def __init__(self, features):
    super().__init__()
    self.conv_0, self.conv_1 = conv(features, features), conv(features, features)

  def forward(self, x):
    return x + self.conv_1(F.relu(self.conv_0(x)))


class MSRResNet(tn.Module):
  def __init__(self, features, blocks, factors):
    super().__init__()
    self.head, self.detail = conv(1, features), conv(features, features)
    self.blocks = numbered(self, 'block', (PlainBlock(features) for _ in range(blocks)))
    self.stages = numbered(self, 'upsampler', (shuffled(features, features, s) for s in factors))
    self.tail = conv(features, 1)

  def forward(self, image):
    x = tn.Sequential(*self.blocks)(F.leaky_relu(self.head(image), 0.1))
    for layer in self.stages:
      x = F.leaky_relu(F.pixel_shuffle(layer(x), layer.shuffle), 0.1)
    x = self.tail(F.leaky_relu(self.detail(x), 0.1))
    return x + F.interpolate(image, x.shape[2:], mode='bilinear', align_corners=False)


@pytest.mark.parametrize(('scale', 'factors'), [(3, (3,)), (4, (2, 2))])
def test_msrresnet(scale, factors, rng):
  network = models.build('msrresnet', {'features': 8, 'blocks': 2}, scale=scale)
  agree(rng, network, MSRResNet(8, 2, factors), (1, 5, 6, 1), train=False)


class SlowSwinBlock(SwinBlock):
  """Attention with an explicit test for each pair of pixels: slow, without roll or mask."""

  def attend(self, x):
    b, h, w, c = x.shape
    y, x_ = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    y, x_ = y.reshape(-1), x_.reshape(-1)
    window = [(at + self.window - self.shift) // self.window for at in (y, x_)]
    same = (window[0][:, None] == window[0]) & (window[1][:, None] == window[1])
    down, right = ((at[:, None] - at).clamp(1 - self.window, self.window - 1) for at in (y, x_))
    row = (down + self.window - 1) * (2 * self.window - 1) + right + self.window - 1
    q, k, v = (
      self.attention.qkv(x).reshape(b, h * w, 3, self.attention.heads, -1).permute(2, 0, 3, 1, 4)
    )
    scores = q @ k.transpose(-1, -2) / np.sqrt(c // self.attention.heads)
    scores = scores + self.attention.position_bias[row].permute(2, 0, 1)
    weights = scores.masked_fill(~same, float('-inf')).softmax(-1)
    return self.attention.project((weights @ v).transpose(1, 2).reshape(b, h, w, c))


def test_window_attention(rng):
  regions = swinir.regions(8, 4, 4, 2)
  mask = np.where(regions[:, :, None] == regions[:, None], 0.0, -100.0)
  attention = swinir.WindowAttention(8, 2, 4, jnp.float32)
  reference = WindowAttention(8, 2, 4)
  reference.forward = partial(reference.forward, mask=to_torch(mask.astype(np.float32)))
  agree(rng, attention, reference, (4, 16, 8), regions=regions)


@pytest.mark.parametrize('shift', [0, 2])
@pytest.mark.parametrize('size', [(8, 12), (4, 4)])
def test_swin_block(shift, size, rng):
  block = swinir.SwinBlock(8, 2, 4, shift, 2.0, jnp.float32)
  for reference in (SlowSwinBlock, SwinBlock):
    agree(rng, block, reference(8, 2, 4, shift), (2, *size, 8))


def test_swin_group(rng):
  group = swinir.SwinGroup(8, 2, 2, 4, 2.0, False, jnp.float32)
  agree(rng, group, SwinGroup(8, 2, 2, 4, SlowSwinBlock), (1, 8, 12, 8))


@pytest.mark.parametrize('upsampler', ['shuffle', 'direct'])
def test_swinir(upsampler, rng):
  options = {'features': 8, 'depths': (2, 1), 'heads': 2, 'window': 4, 'tail_features': 6}
  network = models.build('swinir', options | {'upsampler': upsampler}, scale=2, channels=3)
  reference = SwinIR(2, *options.values(), upsampler == 'direct', SwinBlock)
  agree(rng, network, reference, (1, 6, 9, 3), train=False)
