"""One network at several sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import config as configs
from jaxsr import models, sharding
from jaxsr.compression import slimmable
from jaxsr.errors import UserError
from jaxsr.inference.model import load
from jaxsr.training import distillation
from jaxsr.training.setup import assemble
from runs import pack, run, variables_of

MODEL = {'name': 'edsr', 'features': 32, 'blocks': 4, 'upsampler': 'direct'}
SIZES = {'widths': [0.25, 0.5, 1.0], 'depths': [0.5, 1.0]}


@pytest.fixture
def slim(tiny):
  tiny.model = configs.network('edsr', features=32, blocks=4, upsampler='direct')
  tiny.loss.slimmable = 1.0
  tiny.slimmable = {'widths': (0.25, 0.5, 1.0), 'depths': (0.5, 1.0)}
  tiny.optimizer.warmup = 0
  return tiny


@pytest.fixture
def batch(rng):
  lr = rng.integers(0, 256, (2, 12, 12, 1), np.uint8)
  hr = rng.integers(0, 256, (2, 48, 48, 1), np.uint8)
  return {'lr': lr, 'hr': hr, 'mask': np.ones((2, 48, 48, 1), np.uint8)}


def test_sizes_go_from_the_smallest_to_all_but_the_full_one(slim):
  built = assemble(slim, sharding.make_mesh(1))
  found = [(size.width, size.depth) for size in built.components.distiller.sizes]
  assert found == [(0.25, 0.5), (0.25, 1.0), (0.5, 0.5), (0.5, 1.0), (1.0, 0.5)]
  assert found[0] == min(found)


def test_the_term_is_the_error_of_the_smaller_sizes(slim, batch):
  """The value in the step, against plain smaller networks with weights cut by hand."""
  slim.loss.mse = 1e-9
  built = assemble(slim, sharding.make_mesh(1))
  first = jax.device_get(built.init())
  params, lr = first.generator.params, jnp.asarray(batch['lr'], jnp.float32) / 255
  whole = np.asarray(built.network.apply({'params': params}, lr, train=True))

  def small(width, blocks):
    n = int(32 * width)
    narrow = lambda x: x[..., :n, :n] if x.ndim == 4 else x[:n]
    kept = {
      'head': {'kernel': params['head']['kernel'][..., :n], 'bias': params['head']['bias'][:n]}
    }
    kept['tail'] = {'kernel': params['tail']['kernel'][:, :, :n], 'bias': params['tail']['bias']}
    kept['body'] = jax.tree.map(narrow, params['body'])
    for i, block in enumerate(blocks):
      kept[f'block_{i}'] = jax.tree.map(narrow, params[f'block_{block}'])
    options = {'features': n, 'blocks': len(blocks), 'upsampler': 'direct'}
    network = models.build('edsr', options, scale=4)
    return np.asarray(network.apply({'params': kept}, lr, train=True))

  differ = lambda sr: np.square(sr - whole).mean()
  _, (scalars,) = run(slim, batch)
  expected = (differ(small(0.25, (0, 3))) + differ(small(0.25, (0, 1, 2, 3)))) / 2
  assert scalars['term/slimmable'] == pytest.approx(float(expected), rel=1e-4)


def test_every_size_is_trained(slim, batch):
  slim.ema = 0.0
  state, found = run(slim, batch, steps=8)
  first = jax.device_get(assemble(slim, sharding.make_mesh(1)).init())
  assert all(np.isfinite(one['loss']) for one in found)
  a, b = first.generator.params['block_0'], state.generator.params['block_0']
  assert all(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_sizes_are_picked_by_name(tmp_path):
  folder = str(pack(tmp_path / 'slim', MODEL, slimmable=SIZES))
  whole = load(folder)
  small = load(folder, width=0.25, depth=0.5)
  assert small.network.features == 8 and small.network.blocks == 2
  assert small.parameters < whole.parameters / 8
  np.testing.assert_array_equal(
    small.variables['params']['block_1']['conv_0']['kernel'],
    whole.variables['params']['block_3']['conv_0']['kernel'][..., :8, :8],
  )
  with pytest.raises(UserError, match=r'width 0.3: .* width 0.25, 0.5, 1.0 only'):
    load(folder, width=0.3)
  plain = str(pack(tmp_path / 'plain', MODEL))
  with pytest.raises(UserError, match=r'width 0.5: .* width 1.0 only'):
    load(plain, width=0.5)


def test_batch_norm_is_refused():
  network = models.build('srresnet', {'features': 8, 'blocks': 2}, scale=4)
  with pytest.raises(UserError, match='has BatchNorm'):
    slimmable.make_sizes(network, {'name': 'srresnet'}, widths=(0.5, 1.0), depths=(1.0,))


def test_the_full_network_is_the_plain_one(slim, batch):
  """At full size a slimmable network equals the plain one."""
  built = assemble(slim, sharding.make_mesh(1))
  plain = models.build('edsr', {k: v for k, v in MODEL.items() if k != 'name'}, scale=4)
  variables, lr = variables_of(plain), jnp.asarray(batch['lr'], jnp.float32) / 255
  outputs, _ = distillation.forward(
    {'smaller'},
    built.components.distiller,
    built.components.generator,
    (variables['params'], {}, {}),
    lr,
    step=jnp.int32(0),
  )
  np.testing.assert_array_equal(outputs.sr, plain.apply(variables, lr, train=True))
