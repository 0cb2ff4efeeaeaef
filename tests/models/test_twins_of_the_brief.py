"""RDN, SRDenseNet, SRResNet, Swift-SRGAN and the discriminators beside twins in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import (
  STAGES,
  F,
  Upsampler,
  agree,
  close,
  conv,
  from_torch,
  numbered,
  shuffled,
  tn,
  to_torch,
  torch,
  weights,
)

from jaxsr import models
from jaxsr.models import discriminator, layers, rdn, srdensenet, srresnet, swift_srgan


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


def test_rdn_block(rng):
  agree(rng, rdn.ResidualDenseBlock(6, 3, 4, jnp.float32), RDNBlock(6, 3, 4), (2, 8, 9, 6))


@pytest.mark.parametrize('scale', [4, 3])
def test_rdn(scale, rng):
  options = {'features': 4, 'blocks': 2, 'layers': 2, 'growth': 3}
  network = models.build('rdn', options, scale=scale, channels=3)
  agree(rng, network, RDN(scale, 3, **options), (1, 8, 7, 3), train=False)


class DenseTwin(tn.Module):
  """One of SRDenseNet's blocks; `joins` says how often an activation sees what it joined."""

  def __init__(self, inputs, growth, layers, variant):
    super().__init__()
    self.variant = variant
    sees = (inputs * (i == 0 or variant == 'dense') + i * growth for i in range(layers))
    self.convs = numbered(self, 'conv', (conv(width, growth) for width in sees))
    self.act = F.relu
    if variant == 'prelu':
      self.prelu = tn.PReLU()
      self.act = self.prelu.__call__

  def forward(self, x):
    first = self.act(self.conv_0(x))
    found, seen = [first], first
    for layer in self.convs[1:]:
      found.append(self.act(layer(torch.cat([x, seen], 1) if self.variant == 'dense' else seen)))
      seen = torch.cat(found, 1)
      seen = self.act(seen) if self.variant == 'prelu' else seen
    return torch.cat([x, seen], 1)


class SRDenseNetTwin(tn.Module):
  def __init__(self, scale, growth, blocks, layers, bottleneck, variant):
    super().__init__()
    width, bias, stages = growth * layers, variant != 'prelu', STAGES[scale]
    self.head = conv(1, width)
    parts = (DenseTwin(width * (i + 1), growth, layers, variant) for i in range(blocks))
    self.blocks = numbered(self, 'block', parts)
    self.bottleneck = conv(width * (blocks + 1), bottleneck, 1, bias=bias)
    parts = (self.deconvolution(bottleneck, s, bias) for s in stages)
    self.deconvolutions = numbered(self, 'deconv', parts)
    self.tail = conv(bottleneck, 1, bias=bias)
    self.act, self.squeezed, self.acts = F.relu, F.relu, [F.relu] * len(stages)
    if variant == 'prelu':
      self.act = self.prelu = tn.PReLU()
      self.squeezed = tn.Identity()
      self.acts = numbered(self, 'prelu', (tn.PReLU() for _ in stages))

  def deconvolution(self, width, stride, bias):
    """As the authors of the two public variants call it; stride 3 has neither padding."""
    geometry = {'padding': 1, 'output_padding': 1} if bias and stride == 2 else {}
    size = 3 if bias or stride == 3 else 2
    return tn.ConvTranspose2d(width, width, size, stride, bias=bias, **geometry)

  def forward(self, x):
    x = tn.Sequential(*self.blocks)(self.act(self.head(x)))
    x = self.squeezed(self.bottleneck(x))
    for deconvolution, act in zip(self.deconvolutions, self.acts, strict=True):
      x = act(deconvolution(x))
    return self.tail(x)


@pytest.mark.parametrize('variant', srdensenet.VARIANTS)
def test_srdensenet_block(variant, rng):
  block = srdensenet.DenseBlock(3, 4, variant, jnp.float32)
  agree(rng, block, DenseTwin(5, 3, 4, variant), (2, 8, 9, 5))


@pytest.mark.parametrize(
  ('kernel', 'stride', 'padding', 'output_padding'),
  [(3, 2, 1, 1), (4, 2, 1, 0), (2, 2, 0, 0), (3, 3, 0, 0), (4, 3, 1, 1), (5, 3, 1, 0)],
)
def test_deconvolution_has_the_geometry_it_says(kernel, stride, padding, output_padding, rng):
  geometry = {'padding': padding, 'output_padding': output_padding}
  twin = tn.ConvTranspose2d(5, 4, kernel, stride, **geometry)
  agree(rng, layers.Deconvolution(4, stride, kernel), twin, (1, 4, 6, 5))


@pytest.mark.parametrize(('variant', 'scale'), [('all', 4), ('prelu', 4), ('dense', 2), ('all', 3)])
def test_srdensenet(variant, scale, rng):
  options = {'growth': 3, 'blocks': 2, 'layers': 3, 'bottleneck': 5, 'variant': variant}
  network = models.build('srdensenet', options, scale=scale)
  agree(rng, network, SRDenseNetTwin(scale, **options), (1, 8, 7, 1), train=False)


class Separable(tn.Module):
  def __init__(self, inputs, outputs, kernel=3, *, stride=1, bias=True):
    super().__init__()
    self.depthwise = conv(inputs, inputs, kernel, groups=inputs, stride=stride, bias=bias)
    self.pointwise = conv(inputs, outputs, 1, bias=bias)

  def forward(self, x):
    return self.pointwise(self.depthwise(x))


@pytest.mark.parametrize(
  ('kernel', 'stride', 'bias'), [(3, 1, True), (3, 2, False), (5, 2, True), (9, 1, True)]
)
def test_separable_convolution(kernel, stride, bias, rng):
  layer = swift_srgan.SeparableConv(7, kernel, stride, bias)
  agree(rng, layer, Separable(5, 7, kernel, stride=stride, bias=bias), (2, 8, 9, 5))


class NormalisedBlock(tn.Module):
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


class NormalisedTwin(tn.Module):
  """SRResNet or Swift-SRGAN."""

  def __init__(self, scale, channels, features, blocks, *, swift):
    super().__init__()
    layer, slopes = (Separable, features) if swift else (conv, 1)
    before_norm = {'bias': False} if swift else {}
    self.factors, self.swift = STAGES[scale], swift
    self.head, self.prelu = layer(channels, features, 9), tn.PReLU(slopes)
    parts = (NormalisedBlock(features, layer, slopes, **before_norm) for _ in range(blocks))
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


def averages_agree(twin, ours, before, *, count):
  """Compare running averages after a step; PyTorch's variance is n / (n - 1) of Flax's."""

  def unbiased(path, new, old):
    factor = count / (count - 1) if path[-1].key == 'var' else 1.0
    return (new - 0.9 * old) * factor + 0.9 * old

  taken_up = jax.tree_util.tree_map_with_path(unbiased, ours, before)
  for _, theirs, found in weights(twin, taken_up):
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-5)


BLOCKS = [
  (srresnet.ResidualBlock, lambda: NormalisedBlock(5, conv, 1)),
  (swift_srgan.ResidualBlock, lambda: NormalisedBlock(5, Separable, 5, bias=False)),
]


@pytest.mark.parametrize(('block', 'twin'), BLOCKS)
@pytest.mark.parametrize('train', [False, True])
def test_normalised_blocks(block, twin, train, rng):
  twin = twin()
  before, ours = agree(
    rng, block(5, folded=False, dtype=jnp.float32), twin, (2, 8, 9, 5), train=train
  )
  if train:
    averages_agree(twin, ours, before, count=2 * 8 * 9)
  else:
    jax.tree.map(np.testing.assert_array_equal, ours, before)
    for _, theirs, old in weights(twin, before):
      np.testing.assert_array_equal(theirs, old)


@pytest.mark.parametrize('name', ['srresnet', 'swift_srgan'])
@pytest.mark.parametrize(('scale', 'train'), [(4, False), (4, True), (3, False)])
def test_normalised_networks(name, scale, train, rng):
  network = models.build(name, {'features': 4, 'blocks': 2}, scale=scale, channels=3)
  twin = NormalisedTwin(scale, 3, 4, 2, swift=name == 'swift_srgan')
  agree(rng, network, twin, (2, 9, 8, 3), train=train)


class DiscriminatorTwin(tn.Module):
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


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('train', [False, True])
def test_discriminators(separable, train, rng):
  twin = DiscriminatorTwin(3, 2, 7, swift=separable)
  network = discriminator.Discriminator(features=2, hidden=7, separable=separable)
  agree(rng, network, twin, (2, 65, 50, 3), amplify=100.0, train=train)


@pytest.mark.parametrize('size', [(6, 6), (12, 18), (7, 13), (5, 1), (64, 41)])
def test_adaptive_pool_is_pytorchs(size, rng):
  x = rng.random((2, *size, 3), dtype=np.float32)
  theirs = F.adaptive_avg_pool2d(to_torch(x), 6)
  close(discriminator.adaptive_average_pool(jnp.asarray(x), 6), from_torch(theirs))
