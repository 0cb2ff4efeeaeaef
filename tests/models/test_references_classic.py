"""SRCNN, VDSR, EDSR and shared layers against PyTorch references."""

from collections import OrderedDict

import flax.linen as nn
import jax.numpy as jnp
import pytest

from jaxsr import models
from jaxsr.models import edsr, layers
from models.references import F, agree, tn
from torch_reference.networks import (
  EDSR,
  MEAN,
  VDSR,
  Cubic,
  ResidualBlock,
  Upsampler,
  by_shuffles,
  conv,
  directly,
  numbered,
)


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
  reference = SRCNN(Cubic((5, 6), scale, edges), **options)
  agree(rng, network, reference, (2, 5, 6, 1), train=False)


@pytest.mark.parametrize(('scale', 'channels', 'edges'), [(2, 1, 'mirror'), (3, 3, 'cut')])
def test_vdsr(scale, channels, edges, rng):
  options = {'features': 8, 'blocks': 4}
  network = models.build('vdsr', options | {'edges': edges}, scale=scale, channels=channels)
  reference = VDSR(Cubic((5, 6), scale, edges), channels, **options)
  agree(rng, network, reference, (2, 5, 6, channels), train=False)


FULL = {'residual_scaling': 0.1, 'image_range': 255.0, 'mean': (0.4488, 0.4371, 0.4040)}
CASES = {
  'baseline': (4, 1, {}, lambda: EDSR(by_shuffles(4))),
  'full': (3, 3, FULL, lambda: EDSR(by_shuffles(3, 3), channels=3, scaling=0.1, of=255, mean=MEAN)),
  'direct': (3, 1, {'upsampler': 'direct'}, lambda: EDSR(directly(3))),
  'light': (
    *(2, 3, FULL | {'upsampler': 'direct', 'bicubic_skip': True}),
    lambda: EDSR(
      directly(2, 3),
      **{'channels': 3, 'scaling': 0.1, 'of': 255, 'mean': MEAN, 'base': Cubic((5, 6), 2)},
    ),
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_edsr(case, rng):
  scale, channels, options, reference = CASES[case]
  options = options | {'features': 8, 'blocks': 2}
  network = models.build('edsr', options, scale=scale, channels=channels)
  agree(rng, network, reference(), (2, 5, 6, channels), train=False)


@pytest.mark.parametrize('scaling', [1.0, 0.1])
def test_edsr_block(scaling, rng):
  block = edsr.ResidualBlock(8, scaling, jnp.float32)
  agree(rng, block, ResidualBlock(8, scaling), (2, 5, 6, 8))


@pytest.mark.parametrize('scale', models.SCALES)
def test_upsampler(scale, rng):
  agree(rng, layers.Upsampler(scale, 6), Upsampler(scale, 6), (1, 3, 4, 6))


def test_prelu(rng):
  agree(rng, layers.PReLU(), tn.PReLU(8), (2, 5, 6, 8))


class OfParts(nn.Module):
  @nn.compact
  def __call__(self, x):
    return layers.Join(5, name='join')(jnp.split(x, (1, 4), axis=-1))


def test_join(rng):
  agree(rng, OfParts(), tn.Sequential(OrderedDict(join=conv(8, 5, 1))), (2, 5, 6, 8))
