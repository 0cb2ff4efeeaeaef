"""FSRCNN, RCAN, RRDB, SwinIR, SPAN and RLFN: what they cost, their shapes and their options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models, ops
from jaxsr.models import span

KEY = jax.random.key(0, impl='rbg')  # compiles faster than threefry
LIGHT = {'features': 60, 'depths': (6, 6, 6, 6), 'upsampler': 'direct'}
SMALL = {
  'fsrcnn': {'features': 8, 'shrunk': 4, 'blocks': 2},
  'rcan': {'features': 8, 'groups': 2, 'blocks': 2, 'reduction': 4},
  'rlfn': {'features': 8, 'blocks': 2, 'attention': 4},
  'rrdb': {'features': 8, 'growth': 4, 'blocks': 2},
  'span': {'features': 8, 'blocks': 2},
  'swinir': {'features': 12, 'depths': (2, 2), 'heads': 2, 'window': 4, 'tail_features': 8},
}


def variables_of(network, *, size=(12, 9)):
  lr = jax.ShapeDtypeStruct((2, *size, network.channels), jnp.float32)
  init = lambda x: network.init_with_output(KEY, x, train=False)
  return jax.eval_shape(init, lr)


def parameters(name, *, channels, scale=4, **options):
  network = models.build(name, options, scale=scale, channels=channels)
  return models.count_parameters(variables_of(network)[1])


def images(rng, *shape):
  return jnp.asarray(rng.random(shape, dtype=np.float32))


def test_fsrcnn_has_the_published_parameters():
  """The paper's 12,464 are weights without biases (209) and the slopes of PReLU (136)."""
  assert parameters('fsrcnn', channels=1) == 12_464 + 209 + 136
  assert parameters('fsrcnn', channels=3) == 24_683


def test_rcan_has_the_published_parameters():
  """Public counts of 15,592,379 hold two fixed 1x1 convolutions that shift by the mean: 24."""
  assert parameters('rcan', channels=3) == 15_592_379 - 24
  assert parameters('rcan', channels=1) == 15_590_049
  weights = 200 * (64 * 4 + 4 + 4 * 64 + 64)
  assert parameters('rcan', channels=3, attention=False) == 15_592_355 - weights


@pytest.mark.parametrize(
  ('name', 'options', 'count'),
  [
    ('rrdb', {}, 16_697_987),
    ('span', {'folded': True}, 426_288),  # the paper's 426 K
    ('span', {'folded': True, 'scale': 2}, 410_700),  # 411 K
    ('span', {'folded': True, 'features': 28}, 150_688),  # NTIRE 2024: 0.151 M
    ('rlfn', {}, 543_740),  # 543 K
    ('rlfn', {'scale': 2}, 526_856),  # 527 K
    ('rlfn', {'features': 48}, 470_208),  # RLFN-S: 470 K
    ('rlfn', {'features': 46, 'middle': 48, 'blocks': 4}, 317_218),  # NTIRE 2022: 0.317 M
    ('swinir', {}, 11_900_199),
  ],
)
def test_parameters_are_the_published_ones(name, options, count):
  assert parameters(name, channels=3, **options) == count


@pytest.mark.parametrize(('scale', 'published'), [(2, 878), (3, 886), (4, 897)])
def test_light_swinir_has_the_published_parameters(scale, published):
  """The paper's thousands leave out the tables of position bias."""
  tables = 24 * (2 * 8 - 1) ** 2 * 6
  count = parameters('swinir', channels=3, scale=scale, **LIGHT)
  assert round((count - tables) / 1e3) == published


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('scale', models.SCALES)
@pytest.mark.parametrize('channels', [1, 3])
def test_output_is_scale_times_the_input(name, scale, channels):
  size = {2: (2, 1), 3: (12, 9), 4: (33, 40), 8: (7, 8)}[scale]
  network = models.build(name, SMALL[name], scale=scale, channels=channels)
  sr, _ = variables_of(network, size=size)
  assert sr.shape == (2, size[0] * scale, size[1] * scale, channels)
  assert sr.dtype == jnp.float32


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_computes_low_and_keeps_float32_outside(name, rng):
  lr = images(rng, 1, 12, 12, 3)
  full = models.build(name, SMALL[name], scale=2, channels=3)
  low = models.build(name, SMALL[name], scale=2, channels=3, precision='bfloat16')
  variables = jax.jit(lambda x: low.init(KEY, x, train=False))(lr)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables['params']))
  a = jax.jit(lambda v, x: full.apply(v, x, train=False))(variables, lr)
  b, features = jax.jit(lambda v, x: low.apply(v, x, train=False, mutable=['features']))(
    {'params': variables['params']}, lr
  )
  assert b.dtype == jnp.float32
  assert len(features['features']['trunk']) >= 2
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(features))
  np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.abs(a).max()))


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('channels', [1, 3])
def test_with_a_skip_training_starts_at_bicubic(name, channels, rng):
  lr = images(rng, 1, 8, 8, channels)
  options = SMALL[name] | {'bicubic_skip': True}
  network = models.build(name, options, scale=2, channels=channels)
  init = lambda x: network.init_with_output(KEY, x, train=False)[0]
  sr = jax.jit(init)(lr)
  np.testing.assert_array_equal(sr, ops.upsample(lr, 2))


@pytest.mark.parametrize(
  ('name', 'options'),
  [('rcan', {'groups': 1, 'blocks': 1}), ('rrdb', {'blocks': 1}), ('swinir', {'depths': (1,)})],
)
def test_remat_changes_no_parameter_and_no_value(name, options, rng):
  lr = images(rng, 1, 4, 4, 1)
  plain = models.build(name, SMALL[name] | options, scale=2)
  again = models.build(name, SMALL[name] | options | {'remat': True}, scale=2)

  def run(network):
    params = network.init(KEY, lr, train=True)['params']
    return params, jax.grad(lambda p: (network.apply({'params': p}, lr, train=True) ** 2).mean())(
      params
    )

  (a, b), (c, d) = jax.jit(run, static_argnums=0)(plain), jax.jit(run, static_argnums=0)(again)
  jax.tree.map(np.testing.assert_array_equal, a, c)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), b, d)
  assert 'remat' not in str(jax.make_jaxpr(run, static_argnums=0)(plain))
  assert 'remat' in str(jax.make_jaxpr(run, static_argnums=0)(again))


@pytest.mark.parametrize('channels', [1, 3])
def test_folding_span_keeps_its_output(channels, rng):
  lr = images(rng, 2, 9, 7, channels)
  trained = models.build('span', SMALL['span'], scale=2, channels=channels)
  folded = models.build('span', SMALL['span'] | {'folded': True}, scale=2, channels=channels)
  noise = lambda x: x + jnp.asarray(rng.normal(0, 0.05, x.shape).astype(np.float32))
  params = trained.init(KEY, lr, train=False)['params']
  params = jax.tree.map(noise, params)  # biases as well, which start at zero
  small = span.fold(params)
  expected = folded.init(KEY, lr, train=False)['params']
  assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
  a = trained.apply({'params': params}, lr, train=False)
  b = folded.apply({'params': small}, lr, train=False)
  size = float(jnp.abs(a).max())
  np.testing.assert_allclose(b / size, a / size, atol=1e-5)


def test_span_folds_where_nothing_is_left_to_fold(rng):
  lr = images(rng, 1, 5, 5, 1)
  folded = models.build('span', SMALL['span'] | {'folded': True}, scale=2)
  params = folded.init(KEY, lr, train=False)['params']
  jax.tree.map(np.testing.assert_array_equal, span.fold(params), params)


def test_heads_that_do_not_divide_are_refused():
  network = models.build('swinir', SMALL['swinir'] | {'heads': 5}, scale=2)
  with pytest.raises(ValueError, match='features=12 is no multiple of heads=5'):
    variables_of(network)
