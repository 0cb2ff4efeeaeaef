import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models, ops
from jaxsr.errors import UserError

TRAINABLE = ('edsr', 'srcnn', 'vdsr')  # the others have tests of their own
SMALL = {
  'edsr': {'features': 8, 'blocks': 2},
  'srcnn': {'features': (8, 4)},
  'vdsr': {'features': 8, 'blocks': 3},
}


def parameters(name, *, channels=1, scale=4, **options):
  network = models.build(name, options, scale=scale, channels=channels)
  lr = jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), lr)
  return models.count_parameters(variables)


@pytest.mark.parametrize(
  ('name', 'options', 'count'),
  [
    ('srcnn', {'kernels': (9, 1, 5)}, 8_129),
    ('srcnn', {'kernels': (9, 3, 5)}, 24_513),
    ('srcnn', {}, 57_281),
    ('srcnn', {'channels': 3}, 69_251),
    ('vdsr', {}, 664_704 + 1_217),
    ('edsr', {'channels': 3}, 1_517_571),
    ('bicubic', {}, 0),
    ('lanczos', {}, 0),
  ],
)
def test_parameters_are_the_published_ones(name, options, count):
  assert parameters(name, **options) == count


def test_full_edsr_has_43_million_parameters():
  count = parameters('edsr', channels=3, features=256, blocks=32, residual_scaling=0.1)
  assert round(count / 1e6, 1) == 43.1


@pytest.mark.parametrize('name', (*TRAINABLE, 'bicubic', 'lanczos'))
@pytest.mark.parametrize('scale', models.SCALES)
@pytest.mark.parametrize('channels', [1, 3])
def test_output_is_scale_times_the_input(name, scale, channels):
  network = models.build(name, SMALL.get(name), scale=scale, channels=channels)
  lr = jax.ShapeDtypeStruct((2, 12, 9, channels), jnp.float32)
  sr, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), lr)
  assert sr.shape == (2, 12 * scale, 9 * scale, channels)
  assert sr.dtype == jnp.float32


@pytest.mark.parametrize('name', TRAINABLE)
def test_bfloat16_computes_low_and_keeps_float32_outside(name, rng):
  lr = jnp.asarray(rng.random((1, 12, 12, 1), dtype=np.float32))
  full = models.build(name, SMALL[name], scale=2)
  low = models.build(name, SMALL[name], scale=2, precision='bfloat16')
  variables = low.init(jax.random.key(0), lr, train=False)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables['params']))
  a, b = full.apply(variables, lr, train=False), low.apply(variables, lr, train=False)
  assert b.dtype == jnp.float32
  _, features = low.apply(variables, lr, train=False, mutable=['features'])
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(features))
  np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('vdsr', {}),
    ('edsr', {'bicubic_skip': True, 'upsampler': 'direct'}),
    ('edsr', {'bicubic_skip': True}),
  ],
)
def test_a_network_with_a_skip_starts_at_bicubic(name, options, rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  network = models.build(name, SMALL[name] | options, scale=4)
  sr, _ = network.init_with_output(jax.random.key(0), lr, train=False)
  np.testing.assert_array_equal(sr, ops.upsample(lr, 4))


@pytest.mark.parametrize('name', TRAINABLE)
def test_features_are_sown_only_when_asked_for(name, rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  network = models.build(name, SMALL[name], scale=2)
  variables = {'params': network.init(jax.random.key(0), lr, train=False)['params']}
  _, found = network.apply(variables, lr, train=False, mutable=['features'])
  assert len(found['features']['trunk']) >= 2
  assert isinstance(network.apply(variables, lr, train=False), jax.Array)


@pytest.mark.parametrize('name', TRAINABLE)
def test_far_pixels_do_not_matter(name, rng):
  """A convolutional network commutes with cutting, away from the border."""
  lr = rng.random((1, 40, 40, 1), dtype=np.float32)
  network = models.build(name, SMALL[name], scale=2)
  variables = network.init(jax.random.key(1), jnp.asarray(lr), train=False)
  whole = network.apply(variables, jnp.asarray(lr), train=False)
  part = network.apply(variables, jnp.asarray(lr[:, 8:, 4:]), train=False)
  np.testing.assert_allclose(whole[:, 40:60, 40:60], part[:, 24:44, 32:52], atol=1e-5)


def test_what_is_unknown_is_named_with_the_nearest():
  with pytest.raises(UserError, match="did you mean 'edsr'"):
    models.build('edsrr', scale=4)
  with pytest.raises(UserError, match="did you mean 'blocks'"):
    models.build('vdsr', {'block': 3}, scale=4)
  with pytest.raises(UserError, match='scale 5 is not built'):
    models.build('vdsr', scale=5)
  with pytest.raises(UserError, match="did you mean 'bfloat16'"):
    models.build('vdsr', scale=4, precision='bf16loat')
