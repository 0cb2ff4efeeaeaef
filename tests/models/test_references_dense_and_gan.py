"""RDN, SRDenseNet, SRResNet, Swift-SRGAN and the discriminators against PyTorch references."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models
from jaxsr.models import discriminator, layers, rdn, srdensenet, srresnet, swift_srgan
from models.references import F, agree, close, tn, torch
from torch_reference.networks import (
  RDN,
  STAGES,
  Discriminator,
  NormalizedBlock,
  NormalizedNet,
  RDNBlock,
  Separable,
  conv,
  from_torch,
  numbered,
  to_torch,
  weights,
)


def test_rdn_block(rng):
  agree(rng, rdn.ResidualDenseBlock(6, 3, 4, jnp.float32), RDNBlock(6, 3, 4), (2, 8, 9, 6))


@pytest.mark.parametrize('scale', [4, 3])
def test_rdn(scale, rng):
  options = {'features': 4, 'blocks': 2, 'layers': 2, 'growth': 3}
  network = models.build('rdn', options, scale=scale, channels=3)
  agree(rng, network, RDN(scale, 3, **options), (1, 8, 7, 3), train=False)


class Dense(tn.Module):
  """A block of SRDenseNet; the variant 'prelu' activates again after each concatenation."""

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


class SRDenseNet(tn.Module):
  def __init__(self, scale, growth, blocks, layers, bottleneck, variant):
    super().__init__()
    width, bias, stages = growth * layers, variant != 'prelu', STAGES[scale]
    self.head = conv(1, width)
    parts = (Dense(width * (i + 1), growth, layers, variant) for i in range(blocks))
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
    """The deconvolution of the two public variants; stride 3 has neither padding."""
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
  agree(rng, block, Dense(5, 3, 4, variant), (2, 8, 9, 5))


@pytest.mark.parametrize(
  ('kernel', 'stride', 'padding', 'output_padding'),
  [(3, 2, 1, 1), (4, 2, 1, 0), (2, 2, 0, 0), (3, 3, 0, 0), (4, 3, 1, 1), (5, 3, 1, 0)],
)
def test_deconvolution_has_the_geometry_it_says(kernel, stride, padding, output_padding, rng):
  geometry = {'padding': padding, 'output_padding': output_padding}
  reference = tn.ConvTranspose2d(5, 4, kernel, stride, **geometry)
  agree(rng, layers.Deconvolution(4, stride, kernel), reference, (1, 4, 6, 5))


@pytest.mark.parametrize(('variant', 'scale'), [('all', 4), ('prelu', 4), ('dense', 2), ('all', 3)])
def test_srdensenet(variant, scale, rng):
  options = {'growth': 3, 'blocks': 2, 'layers': 3, 'bottleneck': 5, 'variant': variant}
  network = models.build('srdensenet', options, scale=scale)
  agree(rng, network, SRDenseNet(scale, **options), (1, 8, 7, 1), train=False)


@pytest.mark.parametrize('features', [1, 7])
@pytest.mark.parametrize(
  ('kernel', 'stride', 'bias'), [(3, 1, True), (3, 2, False), (5, 2, True), (9, 1, True)]
)
def test_separable_convolution(kernel, stride, bias, features, rng):
  layer = swift_srgan.SeparableConv(features, kernel, stride, bias)
  calls = set()

  def record(call, args, kwargs, context):
    calls.add(type(context.module))
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(lambda x: layer.init(jax.random.key(0), x), jnp.zeros((1, 8, 9, 5)))
  assert ({swift_srgan.MixedConv, swift_srgan.Mixture} <= calls) == (features == 1)
  reference = Separable(5, features, kernel, stride=stride, bias=bias)
  agree(rng, layer, reference, (2, 8, 9, 5))


def averages_agree(reference, own, before, *, count):
  """Compare running averages after a step; PyTorch's variance is n / (n - 1) of Flax's."""

  def unbiased(path, new, old):
    factor = count / (count - 1) if path[-1].key == 'var' else 1.0
    return (new - 0.9 * old) * factor + 0.9 * old

  taken_up = jax.tree_util.tree_map_with_path(unbiased, own, before)
  for _, expected, found in weights(reference, taken_up):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


BLOCKS = [
  (srresnet.ResidualBlock, lambda: NormalizedBlock(5, conv, 1)),
  (swift_srgan.ResidualBlock, lambda: NormalizedBlock(5, Separable, 5, bias=False)),
]


@pytest.mark.parametrize(('block', 'reference'), BLOCKS)
@pytest.mark.parametrize('train', [False, True])
def test_normalized_blocks(block, reference, train, rng):
  reference = reference()
  before, own = agree(
    rng, block(5, folded=False, dtype=jnp.float32), reference, (2, 8, 9, 5), train=train
  )
  if train:
    averages_agree(reference, own, before, count=2 * 8 * 9)
  else:
    jax.tree.map(np.testing.assert_array_equal, own, before)
    for _, expected, old in weights(reference, before):
      np.testing.assert_array_equal(expected, old)


@pytest.mark.parametrize('name', ['srresnet', 'swift_srgan'])
@pytest.mark.parametrize(('scale', 'train'), [(4, False), (4, True), (3, False)])
def test_normalized_networks(name, scale, train, rng):
  network = models.build(name, {'features': 4, 'blocks': 2}, scale=scale, channels=3)
  reference = NormalizedNet(scale, 3, 4, 2, swift=name == 'swift_srgan')
  agree(rng, network, reference, (2, 9, 8, 3), train=train)


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('train', [False, True])
def test_discriminators(separable, train, rng):
  reference = Discriminator(3, 2, 7, swift=separable)
  network = discriminator.Discriminator(features=2, hidden=7, separable=separable)
  agree(rng, network, reference, (2, 65, 50, 3), amplify=100.0, train=train)


@pytest.mark.parametrize('size', [(6, 6), (12, 18), (7, 13), (5, 1), (64, 41)])
def test_adaptive_pool_is_pytorchs(size, rng):
  x = rng.random((2, *size, 3), dtype=np.float32)
  expected = F.adaptive_avg_pool2d(to_torch(x), 6)
  close(discriminator.adaptive_average_pool(jnp.asarray(x), 6), from_torch(expected))
