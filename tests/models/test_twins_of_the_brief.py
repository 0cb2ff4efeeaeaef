"""RDN, SRDenseNet, SRResNet, Swift-SRGAN and the discriminators beside twins in PyTorch.

A twin's children are named as Flax names its own, so that weights go over by their paths. Twins
compute in float64; agreement is to 1e-5 of the largest value, or 1e-5 where values are small.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from jaxsr import models
from jaxsr.models import rdn, srdensenet, srresnet, swift_srgan
from jaxsr.models.discriminator import (
  Discriminator,
  adaptive_average_pool,
)
from jaxsr.models.layers import Deconvolution

torch = pytest.importorskip('torch', reason='PyTorch twins (pip install torch)')
F = torch.nn.functional


def shuffled(array, factor):
  """Order a convolution's outputs for TensorFlow's pixel shuffle: from channel to space first."""
  *left, c = array.shape
  return array.reshape(*left, c // factor**2, factor**2).swapaxes(-1, -2).reshape(*left, c)


def arrays(layer):
  """Turn a PyTorch layer's weights into a Flax layer's: parameters and statistics."""
  weight = layer.weight.detach().numpy()
  bias = {} if getattr(layer, 'bias', None) is None else {'bias': layer.bias.detach().numpy()}
  if isinstance(layer, torch.nn.BatchNorm2d):
    stats = {'mean': layer.running_mean.numpy(), 'var': layer.running_var.numpy()}
    return {'scale': weight} | bias, stats
  if isinstance(layer, torch.nn.PReLU):
    return {'negative_slope': weight if weight.size > 1 else weight[0]}, {}
  if isinstance(layer, torch.nn.Linear):
    if grid := getattr(layer, 'grid', None):  # what is flattened: channel, row, column
      weight = weight.reshape(-1, *grid).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return {'kernel': weight.T} | bias, {}
  params = {'kernel': weight.transpose(2, 3, 1, 0)} | bias
  if factor := getattr(layer, 'shuffle', None):
    params = {k: shuffled(v, factor) for k, v in params.items()}
  return params, {}


def variables_of(twin):
  """Bring all of a twin's weights over, as float32."""
  params, stats = {}, {}
  for name, slope in twin.named_parameters():
    if name.endswith('unused_slope'):
      params[tuple(name.split('.'))] = slope.detach().numpy()
  for name, layer in twin.named_modules():
    if hasattr(layer, 'weight'):
      path = tuple(name.split('.')) if name else ()
      of_layer = arrays(layer)
      params |= {(*path, k): v for k, v in of_layer[0].items()}
      stats |= {(*path, k): v for k, v in of_layer[1].items()}
  tree = {'params': unflatten_dict(params), 'batch_stats': unflatten_dict(stats)}
  return jax.tree.map(lambda x: jnp.array(x, jnp.float32), tree)


def randomise(twin):
  """Make what PyTorch starts as a constant random, so that nothing can be mistaken."""
  with torch.no_grad():
    for layer in twin.modules():
      if isinstance(layer, torch.nn.BatchNorm2d):
        layer.running_mean.normal_(0, 0.2)
        layer.running_var.uniform_(0.5, 2)
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_(0, 0.2)
      if isinstance(layer, torch.nn.PReLU):
        layer.weight.uniform_(0.1, 0.5)


def close(ours, theirs):
  theirs = theirs.detach().numpy()
  if theirs.ndim == 4:
    theirs = theirs.transpose(0, 2, 3, 1)
  atol = 1e-5 * max(1.0, np.abs(theirs).max())
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def agree(network, twin, image, *, train=None):
  """Check the forward pass and the gradient of the input; return statistics: old, ours, theirs.

  `train=None` leaves the argument out, for blocks that do not have it.
  """
  torch.manual_seed(0)
  randomise(twin)
  twin.double().train(bool(train))
  variables = variables_of(twin)  # before PyTorch moves its running averages
  x = torch.rand(image, dtype=torch.float64, requires_grad=True)
  theirs = twin(x)
  weights = torch.randn(theirs.shape, dtype=torch.float64)
  (theirs * weights).sum().backward()
  options = {} if train is None else {'train': train}
  ours_of = lambda v, x: network.apply(v, x, mutable=['batch_stats'], **options)
  nhwc = lambda t: jnp.array(np.moveaxis(t.detach().numpy(), 1, -1), jnp.float32)

  @jax.jit
  def forward_and_back(v, x, weights):
    ours, pull, changed = jax.vjp(lambda x: ours_of(v, x), x, has_aux=True)
    return ours, pull(weights)[0], changed

  ours, gradient, changed = forward_and_back(variables, nhwc(x), nhwc(weights))
  close(ours, theirs)
  close(gradient, x.grad)
  return variables['batch_stats'], changed.get('batch_stats'), variables_of(twin)['batch_stats']


def conv(inputs, outputs, kernel, *, shuffle=None, **options):
  layer = torch.nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
  layer.shuffle = shuffle
  return layer


def add(module, **children):
  for name, child in children.items():
    module.add_module(name, child)


def numbered(module, name, count):
  return [getattr(module, f'{name}_{i}') for i in range(count)]


class RDNBlock(torch.nn.Module):
  def __init__(self, features, layers, growth):
    super().__init__()
    self.layers = layers
    for i in range(layers):
      add(self, **{f'conv_{i}': conv(features + i * growth, growth, 3)})
    self.fusion = conv(features + layers * growth, features, 1)

  def forward(self, x):
    y = x
    for layer in numbered(self, 'conv', self.layers):
      y = torch.cat([y, F.relu(layer(y))], 1)
    return x + self.fusion(y)


class RDNTwin(torch.nn.Module):
  def __init__(self, channels, features, blocks, layers, growth, stages):
    super().__init__()
    self.blocks, self.stages = blocks, stages
    self.head_0, self.head_1 = conv(channels, features, 3), conv(features, features, 3)
    for i in range(blocks):
      add(self, **{f'block_{i}': RDNBlock(features, layers, growth)})
    self.fusion_0, self.fusion_1 = conv(features * blocks, features, 1), conv(features, features, 3)
    self.upsampler = torch.nn.Module()
    for i, s in enumerate(stages):
      add(self.upsampler, **{f'conv_{i}': conv(features, features * s * s, 3, shuffle=s)})
    self.tail = conv(features, channels, 3)

  def forward(self, x):
    shallow = self.head_0(x)
    y, outputs = self.head_1(shallow), []
    for block in numbered(self, 'block', self.blocks):
      y = block(y)
      outputs.append(y)
    y = self.fusion_1(self.fusion_0(torch.cat(outputs, 1))) + shallow
    for s, layer in zip(
      self.stages, numbered(self.upsampler, 'conv', len(self.stages)), strict=True
    ):
      y = F.pixel_shuffle(layer(y), s)
    return self.tail(y)


def test_rdn_block():
  agree(rdn.ResidualDenseBlock(6, 3, 4, jnp.float32), RDNBlock(6, 3, 4), (2, 6, 8, 9))


@pytest.mark.parametrize('scale', [4, 3])
def test_rdn(scale):
  options = {'features': 4, 'blocks': 2, 'layers': 2, 'growth': 3}
  network = models.build('rdn', options, scale=scale, channels=3)
  twin = RDNTwin(3, **options, stages=(2, 2) if scale == 4 else (3,))
  agree(network, twin, (1, 3, 8, 7), train=False)


class DenseTwin(torch.nn.Module):
  """One of SRDenseNet's blocks; `joins` says how often an activation sees what it joined."""

  def __init__(self, inputs, growth, layers, variant):
    super().__init__()
    self.layers, self.variant = layers, variant
    for i in range(layers):
      sees = inputs * (i == 0 or variant == 'dense') + i * growth
      add(self, **{f'conv_{i}': conv(sees, growth, 3)})
    self.act = F.relu
    if variant == 'prelu':
      self.prelu = torch.nn.PReLU()
      self.act = self.prelu.__call__

  def forward(self, x):
    first = self.act(self.conv_0(x))
    found, seen = [first], first
    for layer in numbered(self, 'conv', self.layers)[1:]:
      found.append(self.act(layer(torch.cat([x, seen], 1) if self.variant == 'dense' else seen)))
      seen = torch.cat(found, 1)
      seen = self.act(seen) if self.variant == 'prelu' else seen
    return torch.cat([x, seen], 1)


class SRDenseNetTwin(torch.nn.Module):
  def __init__(self, growth, blocks, layers, bottleneck, variant, stages):
    super().__init__()
    width, bias = growth * layers, variant != 'prelu'
    self.blocks, self.stages, self.variant = blocks, stages, variant
    self.head = conv(1, width, 3)
    for i in range(blocks):
      add(self, **{f'block_{i}': DenseTwin(width * (i + 1), growth, layers, variant)})
    self.bottleneck = conv(width * (blocks + 1), bottleneck, 1, bias=bias)
    for i, s in enumerate(stages):
      # As the authors of the two public variants call it; stride 3 has neither padding.
      geometry = {'padding': 1, 'output_padding': 1} if bias and s == 2 else {}
      size = 3 if bias or s == 3 else 2
      deconv = torch.nn.ConvTranspose2d(bottleneck, bottleneck, size, s, bias=bias, **geometry)
      add(self, **{f'deconv_{i}': deconv})
    self.tail = conv(bottleneck, 1, 3, bias=bias)
    if variant == 'prelu':
      names = ['prelu', *(f'prelu_{i}' for i in range(len(stages)))]
      add(self, **{name: torch.nn.PReLU() for name in names})

  def act(self, x, name):
    return getattr(self, name)(x) if self.variant == 'prelu' else F.relu(x)

  def forward(self, x):
    x = self.act(self.head(x), 'prelu')
    for block in numbered(self, 'block', self.blocks):
      x = block(x)
    x = self.bottleneck(x)
    x = x if self.variant == 'prelu' else F.relu(x)
    for i in range(len(self.stages)):
      x = self.act(getattr(self, f'deconv_{i}')(x), f'prelu_{i}')
    return self.tail(x)


@pytest.mark.parametrize('variant', srdensenet.VARIANTS)
def test_srdensenet_block(variant):
  block = srdensenet.DenseBlock(3, 4, variant, jnp.float32)
  agree(block, DenseTwin(5, 3, 4, variant), (2, 5, 8, 9))


@pytest.mark.parametrize(
  ('kernel', 'stride', 'padding', 'output_padding'),
  [(3, 2, 1, 1), (4, 2, 1, 0), (2, 2, 0, 0), (3, 3, 0, 0), (4, 3, 1, 1), (5, 3, 1, 0)],
)
def test_deconvolution_has_the_geometry_it_says(kernel, stride, padding, output_padding):
  geometry = {'padding': padding, 'output_padding': output_padding}
  twin = torch.nn.ConvTranspose2d(5, 4, kernel, stride, **geometry)
  agree(Deconvolution(4, stride, kernel), twin, (1, 5, 4, 6))


@pytest.mark.parametrize(('variant', 'scale'), [('all', 4), ('prelu', 4), ('dense', 2), ('all', 3)])
def test_srdensenet(variant, scale):
  options = {'growth': 3, 'blocks': 2, 'layers': 3, 'bottleneck': 5, 'variant': variant}
  network = models.build('srdensenet', options, scale=scale)
  twin = SRDenseNetTwin(**options, stages={2: (2,), 3: (3,), 4: (2, 2)}[scale])
  agree(network, twin, (1, 1, 8, 7), train=False)


class Separable(torch.nn.Module):
  def __init__(self, inputs, outputs, kernel, *, bias=True, stride=1, shuffle=None):
    super().__init__()
    self.depthwise = conv(inputs, inputs, kernel, groups=inputs, stride=stride, bias=bias)
    self.pointwise = conv(inputs, outputs, 1, shuffle=shuffle, bias=bias)

  def forward(self, x):
    return self.pointwise(self.depthwise(x))


class NormalisedBlock(torch.nn.Module):
  """The residual block of SRResNet, or with separable convolutions Swift-SRGAN's."""

  def __init__(self, features, layer, slopes, **options):
    super().__init__()
    if layer is Separable:
      self.unused_slope = torch.nn.Parameter(torch.full((features,), 0.25))
    self.conv_0, self.conv_1 = (layer(features, features, 3, **options) for _ in range(2))
    self.norm_0, self.norm_1 = (torch.nn.BatchNorm2d(features) for _ in range(2))
    self.prelu = torch.nn.PReLU(slopes)

  def forward(self, x):
    y = self.prelu(self.norm_0(self.conv_0(x)))
    return x + self.norm_1(self.conv_1(y))


class NormalisedTwin(torch.nn.Module):
  """SRResNet or Swift-SRGAN."""

  def __init__(self, channels, features, blocks, stages, *, swift):
    super().__init__()
    layer, slopes = (Separable, features) if swift else (conv, 1)
    before_norm = {'bias': False} if swift else {}
    self.blocks, self.stages, self.swift = blocks, stages, swift
    self.head, self.prelu = layer(channels, features, 9), torch.nn.PReLU(slopes)
    for i in range(blocks):
      add(self, **{f'block_{i}': NormalisedBlock(features, layer, slopes, **before_norm)})
    self.body = layer(features, features, 3, **before_norm)
    self.norm = torch.nn.BatchNorm2d(features)
    if swift:
      self.unused_slope = torch.nn.Parameter(torch.full((features,), 0.25))
    for i, s in enumerate(stages):
      up = layer(features, features * s * s, 3, shuffle=s)
      add(self, **{f'upsampler_{i}': up, f'prelu_{i}': torch.nn.PReLU(slopes)})
    self.tail = layer(features, channels, 9)

  def forward(self, x):
    shallow = x = self.prelu(self.head(x))
    for block in numbered(self, 'block', self.blocks):
      x = block(x)
    x = shallow + self.norm(self.body(x))
    for i, s in enumerate(self.stages):
      x = F.pixel_shuffle(getattr(self, f'upsampler_{i}')(x), s)
      x = getattr(self, f'prelu_{i}')(x)
    x = self.tail(x)
    return (torch.tanh(x) + 1) / 2 if self.swift else x


def averages_agree(ours, theirs, before, *, count):
  """Compare running averages after a step; PyTorch's variance is n / (n - 1) of Flax's."""

  def compare(path, new, torchs, old):
    factor = count / (count - 1) if path[-1].key == 'var' else 1.0
    taken_up = (new - 0.9 * old) * factor + 0.9 * old
    np.testing.assert_allclose(taken_up, torchs, rtol=1e-5, atol=1e-5)

  jax.tree_util.tree_map_with_path(compare, ours, theirs, before)


BLOCKS = [
  (srresnet.ResidualBlock, lambda: NormalisedBlock(5, conv, 1)),
  (swift_srgan.ResidualBlock, lambda: NormalisedBlock(5, Separable, 5, bias=False)),
]


@pytest.mark.parametrize(('block', 'twin'), BLOCKS)
@pytest.mark.parametrize('train', [False, True])
def test_normalised_blocks(block, twin, train):
  before, ours, theirs = agree(block(5, jnp.float32), twin(), (2, 5, 8, 9), train=train)
  if train:
    averages_agree(ours, theirs, before, count=2 * 8 * 9)
  else:
    jax.tree.map(np.testing.assert_array_equal, theirs, before)
    jax.tree.map(np.testing.assert_array_equal, ours, before)


@pytest.mark.parametrize('name', ['srresnet', 'swift_srgan'])
@pytest.mark.parametrize(('scale', 'train'), [(4, False), (4, True), (3, False)])
def test_normalised_networks(name, scale, train):
  network = models.build(name, {'features': 4, 'blocks': 2}, scale=scale, channels=3)
  stages = (2, 2) if scale == 4 else (3,)
  twin = NormalisedTwin(3, 4, 2, stages, swift=name == 'swift_srgan')
  agree(network, twin, (2, 3, 9, 8), train=train)


class DiscriminatorTwin(torch.nn.Module):
  def __init__(self, channels, features, hidden, *, swift):
    super().__init__()
    for i in range(8):
      width, stride = features * 2 ** (i // 2), 1 + i % 2
      layer = Separable if swift else conv
      options = {'bias': i == 0} if swift else {}
      add(self, **{f'conv_{i}': layer(channels, width, 3, stride=stride, **options)})
      if i:
        add(self, **{f'norm_{i}': torch.nn.BatchNorm2d(width)})
      channels = width
    self.dense_0 = torch.nn.Linear(channels * 36, hidden)
    self.dense_0.grid = (channels, 6, 6)
    self.dense_1 = torch.nn.Linear(hidden, 1)

  def forward(self, x):
    for i in range(8):
      x = getattr(self, f'conv_{i}')(x)
      x = F.leaky_relu(getattr(self, f'norm_{i}')(x) if i else x, 0.2)
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    return self.dense_1(F.leaky_relu(self.dense_0(x), 0.2))


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('train', [False, True])
def test_discriminators(separable, train):
  twin = DiscriminatorTwin(3, 2, 7, swift=separable)
  agree(Discriminator(features=2, hidden=7, separable=separable), twin, (2, 3, 65, 50), train=train)


@pytest.mark.parametrize('size', [(6, 6), (12, 18), (7, 13), (5, 1), (64, 41)])
def test_adaptive_pool_is_pytorchs(size, rng):
  x = rng.random((2, *size, 3), dtype=np.float32)
  theirs = F.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 6)
  close(adaptive_average_pool(jnp.asarray(x), 6), theirs)
