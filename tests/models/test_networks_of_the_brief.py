"""RDN, SRDenseNet, SRResNet, Swift-SRGAN and the discriminators, against what was published."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from PIL import Image

from jaxsr import models, ops
from jaxsr.models.discriminator import Discriminator

SMALL = {
  'rdn': {'features': 8, 'blocks': 2, 'layers': 2, 'growth': 4},
  'srdensenet': {'growth': 4, 'blocks': 2, 'layers': 3, 'bottleneck': 8},
  'srresnet': {'features': 8, 'blocks': 2},
  'swift_srgan': {'features': 8, 'blocks': 2},
}


def shapes(network, image):
  """Trace a network: the shape of its output and of its variables."""
  spec = jax.ShapeDtypeStruct(image, jnp.float32)
  initialise = lambda x: network.init_with_output(jax.random.key(0), x, train=False)
  return jax.eval_shape(initialise, spec)


def fill(network, lr, rng):
  """Draw variables without compiling an initialisation."""
  _, variables = shapes(network, lr.shape)
  draw = lambda x: jnp.asarray(rng.uniform(-0.2, 0.2, x.shape), x.dtype)
  filled = {k: jax.tree.map(draw, v) for k, v in variables.items() if k != 'features'}
  positive = lambda path, x: 1 + x if path[-1].key == 'var' else x
  return jax.tree_util.tree_map_with_path(positive, filled)


@pytest.mark.parametrize(
  ('name', 'channels', 'options', 'count'),
  [
    ('rdn', 1, {}, 22_268_801),
    ('rdn', 3, {}, 22_271_107),
    ('rdn', 1, {'blocks': 5, 'layers': 3, 'features': 32, 'growth': 32}, 395_841),
    ('rdn', 1, {'remat': True}, 22_268_801),
    ('srdensenet', 1, {}, 2_659_585),
    ('srdensenet', 1, {'variant': 'prelu'}, 2_003_467),
    ('srresnet', 3, {}, 1_549_462),
    ('swift_srgan', 3, {}, 201_209),
    ('swift_srgan', 1, {}, 200_787),
  ],
)
def test_parameters_are_the_published_ones(name, channels, options, count):
  network = models.build(name, options, scale=4, channels=channels)
  _, variables = shapes(network, (1, 16, 16, channels))
  assert models.count_parameters(variables) == count


@pytest.mark.parametrize(
  ('separable', 'count'),
  [(False, 23_565_505), (True, 19_413_279)],
)
def test_discriminators_have_the_published_parameters(separable, count):
  logits, variables = shapes(Discriminator(separable=separable), (2, 96, 96, 3))
  assert models.count_parameters(variables) == count
  assert (logits.shape, logits.dtype) == ((2, 1), jnp.float32)


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('image', [(2, 96, 96, 1), (1, 100, 71, 3), (1, 32, 32, 1)])
def test_discriminators_take_any_size(separable, image):
  small = Discriminator(features=4, hidden=8, separable=separable, dtype=jnp.bfloat16)
  logits, _ = shapes(small, image)
  assert (logits.shape, logits.dtype) == ((image[0], 1), jnp.float32)


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('scale', models.SCALES)
@pytest.mark.parametrize('channels', [1, 3])
def test_output_is_scale_times_the_input(name, scale, channels):
  network = models.build(name, SMALL[name], scale=scale, channels=channels)
  sr, _ = shapes(network, (2, 12, 9, channels))
  assert sr.shape == (2, 12 * scale, 9 * scale, channels)
  assert sr.dtype == jnp.float32


@pytest.mark.parametrize('variant', ['prelu', 'dense'])
@pytest.mark.parametrize('scale', models.SCALES)
def test_variants_of_srdensenet_enlarge_by_the_scale(variant, scale):
  options = SMALL['srdensenet'] | {'variant': variant}
  sr, _ = shapes(models.build('srdensenet', options, scale=scale), (1, 5, 7, 1))
  assert sr.shape == (1, 5 * scale, 7 * scale, 1)


def test_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="variant 'al' is not one of 'all', 'prelu', 'dense'"):
    shapes(models.build('srdensenet', {'variant': 'al'}, scale=4), (1, 8, 8, 1))


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_computes_low_and_keeps_float32_outside(name, rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  full = models.build(name, SMALL[name], scale=2)
  low = models.build(name, SMALL[name], scale=2, precision='bfloat16')
  variables = fill(low, lr, rng)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  predict = lambda network: jax.jit(
    lambda x: network.apply(variables, x, train=False, mutable=['features'])
  )(lr)
  (a, _), (b, sown) = predict(full), predict(low)
  assert b.dtype == jnp.float32
  assert len(sown['features']['trunk']) == SMALL[name]['blocks']
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(sown))
  np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.parametrize('name', ['srresnet', 'swift_srgan'])
def test_running_averages_stay_float32_in_bfloat16_training(name, rng):
  lr = jnp.asarray(rng.random((2, 8, 8, 1), dtype=np.float32))
  network = models.build(name, SMALL[name], scale=2, precision='bfloat16')
  train = lambda x: network.init_with_output(jax.random.key(0), x, train=True)
  sr, variables = jax.eval_shape(train, lr)
  assert sr.dtype == jnp.float32
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables['batch_stats']))


@pytest.mark.parametrize('name', ['rdn', 'srdensenet', 'srresnet'])
def test_a_network_with_a_skip_starts_at_bicubic(name, rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  network = models.build(name, SMALL[name] | {'bicubic_skip': True}, scale=2)
  initial = jax.jit(lambda x: network.init(jax.random.key(0), x, train=False)['params']['tail'])
  variables = fill(network, lr, rng)
  variables['params']['tail'] = initial(lr)
  sr = jax.jit(lambda x: network.apply(variables, x, train=False))(lr)
  np.testing.assert_allclose(sr, ops.upsample(lr, 2), atol=1e-6)


def test_remat_changes_neither_paths_nor_values(rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  plain, remat = (
    models.build('rdn', SMALL['rdn'] | {'remat': on}, scale=2) for on in (False, True)
  )
  block = lambda x, network: network.init(jax.random.key(0), x, train=False)['params']['block_1']
  first, again = (jax.jit(block, static_argnums=1)(lr, network) for network in (plain, remat))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert shapes(plain, lr.shape) == shapes(remat, lr.shape)
  variables = fill(plain, lr, rng)

  def gradient(network):
    loss = lambda params: network.apply({'params': params}, lr, train=True).sum()
    return jax.jit(jax.value_and_grad(loss))(variables['params'])

  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, gradient(plain), gradient(remat))


@pytest.mark.parametrize(('on', 'kept'), [(False, 0), (True, 2)])
def test_remat_wraps_each_block(on, kept):
  network = models.build('rdn', SMALL['rdn'] | {'remat': on}, scale=2)
  _, variables = shapes(network, (1, 8, 8, 1))
  predict = lambda v, x: network.apply(v, x, train=True)
  text = str(jax.make_jaxpr(predict)(variables, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)))
  assert text.count('checkpoint[') + text.count('remat2[') == kept


@pytest.mark.parametrize('name', SMALL)
def test_multipliers_name_fields(name):
  network = models.MODELS[name]
  assert network.WIDTH and network.DEPTH
  for field in (*network.WIDTH, *network.DEPTH):
    assert field in models.fields(name)
    assert isinstance(getattr(network(), field), int)
  assert not {'WIDTH', 'DEPTH'} & set(models.fields(name))


def test_swift_srgan_reproduces_its_authors_sample(shared):
  """Load weights that others trained; their picture is truncated to 8 bit."""
  weights = shared / 'reference' / 'swift_srgan_nih.safetensors'
  if not weights.is_file():
    pytest.skip(f'{weights} is absent')
  load = pytest.importorskip('safetensors.numpy', reason='published weights').load_file
  variables = published(load(weights))
  network = models.build('swift_srgan', scale=4, channels=3)
  samples = shared / 'reference' / 'swift_srgan_sample'
  lr = np.asarray(Image.open(samples / 'sample_lr_input.png').convert('RGB'), np.float32) / 255
  theirs = np.asarray(Image.open(samples / 'sample_sr_output.png').convert('RGB'), int)
  _, expected = shapes(network, (1, *lr.shape))
  describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert describe(variables) == describe({k: expected[k] for k in variables})
  sr = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, lr[None])
  ours = np.clip(np.asarray(sr[0]) * 255, 0, 255).astype(int)  # cuts off
  assert np.abs(ours - theirs).max() <= 1
  assert (ours == theirs).mean() > 0.999


AUTHORS = [  # their names of modules to ours
  (r'initial\.cnn', r'head'),
  (r'initial\.act', r'prelu'),
  (r'residual\.(\d+)\.block1\.act', r'block_\1.prelu'),
  (r'residual\.(\d+)\.block2\.act', r'block_\1.unused'),
  (r'residual\.(\d+)\.block1\.cnn', r'block_\1.conv_0'),
  (r'residual\.(\d+)\.block2\.cnn', r'block_\1.conv_1'),
  (r'residual\.(\d+)\.block1\.bn', r'block_\1.norm_0'),
  (r'residual\.(\d+)\.block2\.bn', r'block_\1.norm_1'),
  (r'convblock\.cnn', r'body'),
  (r'convblock\.bn', r'norm'),
  (r'convblock\.act', r'unused'),
  (r'upsampler\.(\d)\.conv', r'upsampler_\1'),
  (r'upsampler\.(\d)\.act', r'prelu_\1'),
  (r'final_conv', r'tail'),
]


def published(tensors):
  """Turn the authors' names and layouts into ours."""
  found = {'params': {}, 'batch_stats': {}}
  for name, x in tensors.items():
    for theirs, ours in AUTHORS:
      name = re.sub(f'^{theirs}', ours, name)
    *module, leaf = name.split('.')
    if x.ndim == 4:
      leaf, x = 'kernel', x.transpose(2, 3, 1, 0)
    if module[-1] == 'pointwise' and module[0].startswith('upsampler'):  # channel to space first
      x = x.reshape(*x.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(x.shape)
    if module[-1] == 'unused':
      module, leaf = module[:-1], 'unused_slope'
    if module and module[-1].startswith('prelu'):
      leaf = 'negative_slope'
    leaf = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}.get(leaf, leaf)
    if leaf != 'num_batches_tracked':
      found['batch_stats' if leaf in ('mean', 'var') else 'params'][(*module, leaf)] = x
  return {kind: unflatten_dict(flat) for kind, flat in found.items()}
