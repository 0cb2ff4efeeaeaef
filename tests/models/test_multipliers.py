"""`width` and `depth`: smaller networks of the same kind."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from jaxsr import config as configs
from jaxsr import models, ops
from jaxsr.errors import UserError
from models.small import FREE, TRAINABLE

NARROW = {'rcan': {'groups': 2}}  # the number of groups is not scaled, and tracing ten takes long
TUPLES = [('srcnn', 'features'), ('swinir', 'depths')]


@cache
def parameters(name, **options):
  network = models.build(name, NARROW.get(name, {}) | options, scale=4)
  lr = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
  init = lambda x: network.init_with_output(jax.random.key(0), x, train=False)
  with ops.plain():  # which is quicker to trace
    sr, variables = jax.eval_shape(init, lr)
  assert sr.shape == (1, 64, 64, 1)
  return models.count_parameters(variables)


@pytest.mark.parametrize('name', TRAINABLE)
@pytest.mark.parametrize('depth', [0.25, 0.5])
def test_every_network_shrinks_in_both(name, depth):
  counts = [parameters(name, width=width, depth=depth) for width in (0.25, 0.5, 0.75)]
  assert counts == sorted(set(counts))
  assert counts[-1] < parameters(name)
  if models.MODELS[name].depth_fields:
    assert counts[0] < parameters(name, width=0.25)


@pytest.mark.parametrize('name', TRAINABLE)
def test_what_is_multiplied_exists_and_one_leaves_it(name):
  kind = models.MODELS[name]
  assert kind.width_fields and (kind.depth_fields or name == 'srcnn')
  assert {*kind.width_fields, *kind.depth_fields} <= set(models.fields(name))
  assert not {'width_fields', 'depth_fields'} & set(models.fields(name))
  for field in (*kind.width_fields, *kind.depth_fields):
    assert isinstance(getattr(kind(), field), tuple if (name, field) in TUPLES else int)
  assert models.build(name, {'width': 1.0, 'depth': 1}, scale=4) == models.build(name, scale=4)


@pytest.mark.parametrize(
  ('name', 'options', 'expected'),
  [
    ('edsr', {'width': 0.5, 'depth': 0.5}, {'features': 32, 'blocks': 8}),
    ('edsr', {'width': 0.53}, {'features': 32, 'blocks': 16}),  # 33.92
    ('edsr', {'width': 0.54}, {'features': 36, 'blocks': 16}),  # 34.56
    ('edsr', {'width': 0.01, 'depth': 0.01}, {'features': 8, 'blocks': 1}),
    ('edsr', {'width': 0.5, 'features': 6}, {'features': 6}),
    ('edsr', {'width': 0.9, 'features': 9}, {'features': 8}),
    ('edsr', {'depth': 0.5, 'blocks': 5}, {'blocks': 3}),  # a half is rounded up
    ('srcnn', {'width': 0.25, 'depth': 0.25}, {'features': (16, 8), 'kernels': (9, 5, 5)}),
    ('srcnn', {'width': 0.5, 'features': [16, 20]}, {'features': (8, 12)}),
    ('rcan', {'depth': 0.25}, {'groups': 10, 'blocks': 5}),
    ('swinir', {'width': 0.5, 'depth': 0.25}, {'features': 96, 'depths': (2,) * 6, 'heads': 6}),
    ('swinir', {'width': 0.01}, {'features': 12, 'tail_features': 12}),
    ('fsrcnn', {'width': 0.5}, {'features': 28, 'shrunk': 8}),
  ],
)
def test_rounding_is_as_stated(name, options, expected):
  network = models.build(name, options, scale=4)
  assert {k: getattr(network, k) for k in expected} == expected


@pytest.mark.parametrize('option', ['width', 'depth'])
@pytest.mark.parametrize('value', [0, -1, 1.5, float('nan'), 'half'])
def test_a_multiplier_out_of_range_is_refused(option, value):
  with pytest.raises(UserError, match=rf'{option} .* is not in \(0, 1\]'):
    models.build('edsr', {option: value}, scale=4)


@pytest.mark.parametrize('name', FREE)
def test_what_has_no_parameters_has_none(name):
  assert not {'width', 'depth'} & set(models.fields(name))
  with pytest.raises(UserError, match="has no option 'width'"):
    models.build(name, {'width': 0.5}, scale=4)


@pytest.mark.parametrize('name', ['bicubic', 'lanczos'])
def test_interpolation_has_no_options(name):
  assert models.fields(name) == []
  with pytest.raises(UserError, match='it has no options'):
    models.build(name, {'width': 0.5}, scale=4)


@pytest.mark.parametrize('name', TRAINABLE)
def test_a_config_lists_them(name):
  config = configs.base()
  config.model = configs.network(name)
  assert (config.model.width, config.model.depth) == (1.0, 1.0)
  config.model.width, config.model.depth = 0.5, 0.5
  assert configs.build_network(config) == models.build(name, {'width': 0.5, 'depth': 0.5}, scale=4)
