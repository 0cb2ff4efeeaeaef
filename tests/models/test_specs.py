"""A new network needs a file, a line in MODELS and a spec; a missing spec is reported."""

from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import specs
from jaxsr import models, ops
from jaxsr.models.layers import Conv, finish, tail_init
from models.small import shapes

HERE = Path(__file__).parent


class Toy(models.Network):
  """One convolution and a pixel shuffle, added to a bicubic upsampling."""

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ('blocks',)

  features: int = 16
  blocks: int = 2
  bicubic_skip: bool = True

  @nn.compact
  def __call__(self, lr, *, train):
    x = lr
    for i in range(self.blocks):
      x = nn.relu(Conv(self.features, (3, 3), dtype=self.dtype, name=f'conv_{i}')(x))
      self.sow('features', 'trunk', x)
    init = tail_init(self.bicubic_skip)
    x = Conv(self.channels * self.scale**2, (3, 3), kernel_init=init, name='tail')(x)
    image = ops.pixel_shuffle(x, self.scale)
    return finish(image, lr, scale=self.scale, bicubic_skip=self.bicubic_skip)


TOY = specs.Spec(
  small={'features': 8, 'blocks': 2},
  sliceable={'features': 16, 'blocks': 4},
  counts=((1, {}, 160 + 2_320 + 2_320),),
  reference='test_specs',
)


def check(name, spec):
  """Check the properties that every network has."""
  for scale in models.SCALES:
    network = models.build(name, spec.small, scale=scale)
    sr, variables = shapes(network, (1, 12, 9, 1), train=False)
    assert sr.shape == (1, 12 * scale, 9 * scale, 1) and sr.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables['params']))
    assert variables['features']['trunk']
  for channels, options, count in spec.counts:
    network = models.build(name, options, scale=4, channels=channels)
    assert models.count_parameters(models.shapes(network)) == count
  large = models.build(name, spec.sliceable, scale=2)
  small = models.build(name, {**spec.sliceable, 'width': 0.5, 'depth': 0.5}, scale=2)
  counts = [models.count_parameters(models.shapes(network)) for network in (small, large)]
  assert counts[0] < counts[1]


def test_every_network_has_a_complete_spec():
  assert specs.missing() == []


@pytest.mark.parametrize('name', specs.SPECS)
def test_the_reference_of_a_spec_exists(name):
  path = HERE / f'{specs.SPECS[name].reference}.py'
  assert path.is_file() and f"'{name}'" in path.read_text(encoding='utf-8')


@pytest.mark.parametrize('name', specs.SPECS)
def test_broadcasts_are_explicit(name):
  """A vector that meets an image without `ops.per_channel` could run along the wrong axis."""
  network = models.build(name, specs.SPECS[name].small, scale=2)
  with jax.numpy_rank_promotion('raise'):
    shapes(network, (1, 24, 16, 1), train=True)


def test_a_new_network_is_a_class_a_line_and_a_spec(monkeypatch):
  monkeypatch.setitem(models.MODELS, 'toy', Toy)
  monkeypatch.setitem(specs.SPECS, 'toy', TOY)
  assert specs.missing() == []
  check('toy', TOY)


def test_a_network_without_a_spec_is_named(monkeypatch):
  monkeypatch.setitem(models.MODELS, 'toy', Toy)
  assert specs.missing() == ['toy: no Spec in tests/specs.py']
  monkeypatch.setitem(specs.SPECS, 'toy', TOY._replace(counts=()))
  assert specs.missing() == ['toy: its Spec in tests/specs.py lacks counts']


def test_the_check_fails_for_a_wrong_count(monkeypatch):
  monkeypatch.setitem(models.MODELS, 'toy', Toy)
  with pytest.raises(AssertionError):
    check('toy', TOY._replace(counts=((1, {}, 1),)))
