"""SRCNN, VDSR, EDSR and the layers that networks share beside twins in PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
from twins import MEAN, F, Upsampler, agree, conv, numbered, shuffled, tn, to_torch

from jaxsr import models, ops
from jaxsr.models import edsr, layers


class Interpolation(tn.Module):
  """Enlarge images of one size by the matrix that `ops.upsample` is; it has tests of its own."""

  def __init__(self, size, scale, edges='cut'):
    super().__init__()
    self.size = [n * scale for n in size]
    impulses = jnp.eye(np.prod(size)).reshape(-1, *size, 1)
    self.matrix = to_torch(ops.upsample(impulses, scale, edges=edges)).flatten(1)

  def forward(self, x):
    return (x.flatten(2) @ self.matrix).unflatten(2, self.size)


class SRCNN(tn.Module):
  def __init__(self, enlarge, features, kernels):
    super().__init__()
    self.enlarge, self.kernels = enlarge, kernels
    widths = zip((1, *features), (*features, 1), kernels, strict=True)
    self.convs = numbered(self, 'conv', (conv(a, b, k, padding=0) for a, b, k in widths))

  def forward(self, x):
    x = self.enlarge(x)
    for layer, kernel in zip(self.convs, self.kernels, strict=True):
      x = layer(F.pad(x, (kernel // 2,) * 4, mode='replicate'))
      x = x if layer is self.convs[-1] else F.relu(x)
    return x


@pytest.mark.parametrize(
  ('scale', 'kernels', 'edges'), [(2, (9, 5, 5), 'cut'), (3, (9, 1, 5), 'mirror')]
)
def test_srcnn(scale, kernels, edges, rng):
  options = {'features': (8, 4), 'kernels': kernels}
  network = models.build('srcnn', options | {'edges': edges}, scale=scale)
  twin = SRCNN(Interpolation((5, 6), scale, edges), **options)
  agree(rng, network, twin, (2, 5, 6, 1), train=False)


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


@pytest.mark.parametrize(('scale', 'channels', 'edges'), [(2, 1, 'mirror'), (3, 3, 'cut')])
def test_vdsr(scale, channels, edges, rng):
  options = {'features': 8, 'blocks': 4}
  network = models.build('vdsr', options | {'edges': edges}, scale=scale, channels=channels)
  twin = VDSR(Interpolation((5, 6), scale, edges), channels, **options)
  agree(rng, network, twin, (2, 5, 6, channels), train=False)


class ResidualBlock(tn.Module):
  def __init__(self, features, scaling):
    super().__init__()
    self.scaling = scaling
    numbered(self, 'conv', (conv(features, features) for _ in range(2)))

  def forward(self, x):
    return x + self.scaling * self.conv_1(F.relu(self.conv_0(x)))


class EDSR(tn.Module):
  """`image` makes the image of the last features; `base` is what it is added to."""

  def __init__(self, image, *, channels=1, scaling=1.0, of=1, mean=0.0, base=None):
    super().__init__()
    self.range, self.mean = of, mean
    self.base = base or (lambda x: mean)
    self.head, self.body = conv(channels, 8), conv(8, 8)
    self.blocks = numbered(self, 'block', (ResidualBlock(8, scaling) for _ in range(2)))
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


def by_shuffles(scale, channels=1):
  return {'upsampler': Upsampler(scale, 8), 'tail': conv(8, channels)}


def directly(scale, channels=1):
  return {'tail': shuffled(8, channels, scale)}


FULL = {'residual_scaling': 0.1, 'image_range': 255.0, 'mean': (0.4488, 0.4371, 0.4040)}
CASES = {
  'baseline': (4, 1, {}, lambda: EDSR(by_shuffles(4))),
  'full': (3, 3, FULL, lambda: EDSR(by_shuffles(3, 3), channels=3, scaling=0.1, of=255, mean=MEAN)),
  'direct': (3, 1, {'upsampler': 'direct'}, lambda: EDSR(directly(3))),
  'light': (
    *(2, 3, FULL | {'upsampler': 'direct', 'bicubic_skip': True}),
    lambda: EDSR(
      directly(2, 3),
      **{'channels': 3, 'scaling': 0.1, 'of': 255, 'mean': MEAN, 'base': Interpolation((5, 6), 2)},
    ),
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_edsr(case, rng):
  scale, channels, options, twin = CASES[case]
  options = options | {'features': 8, 'blocks': 2}
  network = models.build('edsr', options, scale=scale, channels=channels)
  agree(rng, network, twin(), (2, 5, 6, channels), train=False)


@pytest.mark.parametrize('scaling', [1.0, 0.1])
def test_edsr_block(scaling, rng):
  block = edsr.ResidualBlock(8, scaling, jnp.float32)
  agree(rng, block, ResidualBlock(8, scaling), (2, 5, 6, 8))


@pytest.mark.parametrize('scale', models.SCALES)
def test_upsampler(scale, rng):
  agree(rng, layers.Upsampler(scale, 6), Upsampler(scale, 6), (1, 3, 4, 6))


def test_prelu(rng):
  agree(rng, layers.PReLU(), tn.PReLU(8), (2, 5, 6, 8))
