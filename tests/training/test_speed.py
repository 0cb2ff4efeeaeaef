"""Causes of a slow run, counted rather than timed."""

import concurrent.futures

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import analysis, sharding
from jaxsr import config as configs
from jaxsr.ops import NHWC, convolution, join
from jaxsr.ops.cpu import winograd
from jaxsr.training import loop, setup, train
from runs import four_steps

pytestmark = pytest.mark.internal

COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture
def compilations():
  """Record the compilations of XLA during a test."""
  found = []

  def listen(event, duration, **_):
    if event == COMPILED:
      found.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


def programs_of(config, folder, compilations):
  before = len(compilations)
  assert train.train(config, folder) == 0
  return len(compilations) - before


def test_more_steps_compile_no_more_programs(tmp_path, compilations):
  counts = []
  for steps in (4, 8):
    config = four_steps(configs.load('configs/quickstart.py'))
    config.steps = config.eval = config.save = steps
    programs_of(config, tmp_path / f'first_{steps}', compilations)  # what JAX caches in the process
    counts.append(programs_of(config, tmp_path / f'{steps}', compilations))
  assert 0 < counts[0] == counts[1]


@pytest.mark.parametrize('devices', [1, 2])
def test_a_step_that_was_prepared_compiles_nothing(compilations, devices):
  config = four_steps(configs.load('configs/quickstart.py'))
  config.batch_size = 2
  mesh = sharding.make_mesh(devices)
  built, side = setup.assemble(config, mesh), 8
  sides = {'lr': side, 'hr': side * config.scale, 'mask': side * config.scale}
  batch = sharding.put({k: np.ones((2, n, n, 1), np.uint8) for k, n in sides.items()}, mesh)
  state, take = built.init(), loop.CompiledSteps(built)
  concurrent.futures.wait([take.prepare(0, batch)])
  before = len(compilations)
  jax.block_until_ready(take(0, state, batch))
  assert len(compilations) == before


def test_the_host_waits_for_scalars_only_when_it_logs(tmp_path, monkeypatch):
  fetched = []
  get = jax.device_get
  keep = lambda x: fetched.append(list(x) if isinstance(x, list) else x)  # the loop clears its own
  monkeypatch.setattr(train.jax, 'device_get', lambda x: keep(x) or get(x))
  config = four_steps(configs.load('configs/quickstart.py'))
  config.steps = config.eval = config.save = 8
  config.log = 4
  assert train.train(config, tmp_path / 'run') == 0
  rows = [x for x in fetched if isinstance(x, list) and x and isinstance(x[0], dict)]
  assert [len(x) for x in rows] == [4, 4]


@pytest.mark.usefixtures('uncached')
@pytest.mark.parametrize('upsampler', ['shuffle', 'direct'])
def test_a_step_is_a_pass_forward_and_two_back(monkeypatch, upsampler):
  """Counted by XLA for its own convolutions on a CPU; one more forward pass would make it four."""
  monkeypatch.setattr(convolution, '_choose_algorithm', lambda *_: None)
  config = configs.base()
  config.model = configs.network('edsr', features=16, blocks=4, upsampler=upsampler)
  config.loss.l1, config.batch_size, config.data.patch, config.data.margin = 1.0, 2, 24, 0
  built = setup.assemble(config, sharding.make_mesh(1))
  sides = {'lr': 24, 'hr': 96, 'mask': 96}
  batch = {k: jax.ShapeDtypeStruct((2, n, n, 1), 'uint8') for k, n in sides.items()}
  take = loop.CompiledSteps(built)
  program = take.program(built.plan.at(0)).lower(built.shapes, batch, *take.arrays).compile()
  forward = 2 * analysis.measure(built.network).macs * 2 * 24**2 / 256**2
  assert 2.7 < program.cost_analysis()['flops'] / forward < 3.3


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='XLA convolves by itself elsewhere')
@pytest.mark.usefixtures('uncached')
@pytest.mark.parametrize(('kernel', 'groups'), [((3, 3, 32, 32), 1), ((9, 9, 1, 32), 32)])
def test_more_layers_need_no_more_memory(kernel, groups):
  """XLA allocates a loop's output that does not depend on the input for all layers at once."""
  kernel = jnp.ones(kernel)

  def network(x, layers):
    for _ in range(layers):
      x = nn.relu(
        convolution.convolve(
          x, kernel, (1, 1), 'SAME', feature_group_count=groups, dimension_numbers=NHWC
        )
      )
    return x

  image = jax.ShapeDtypeStruct((1, 256, 256, 32), 'float32')
  few, many = (
    jax.jit(network, static_argnums=1).lower(image, layers).compile().memory_analysis()
    for layers in (2, 6)
  )
  assert many.temp_size_in_bytes < 1.2 * few.temp_size_in_bytes


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='XLA convolves by itself elsewhere')
@pytest.mark.usefixtures('uncached')
def test_an_activation_is_not_kept_beside_its_padding():
  def network(x, kernel):
    for _ in range(3):
      x = nn.silu(winograd.convolve(x, kernel, ((1, 1), (1, 1))))
    return x

  image, kernel = jnp.zeros((1, 512, 512, 32)), jnp.zeros((3, 3, 32, 32))
  memory = jax.jit(network).lower(image, kernel).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 2 * image.nbytes


def test_kernels_are_transformed_without_products():
  """As products of 6x3 by 3x3, the transform took half of the time of a small convolution."""
  image, kernel = jnp.zeros((8, 24, 24, 64)), jnp.zeros((3, 3, 64, 64))
  traced = str(jax.make_jaxpr(winograd.convolve, static_argnums=2)(image, kernel, ((1, 1), (1, 1))))
  assert traced.count('dot_general[') == 1  # that of the tiles


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='for CPUs only')
@pytest.mark.usefixtures('uncached')
def test_features_are_joined_without_being_put_side_by_side():
  parts, kernel = [jnp.zeros((1, 64, 64, 48))] * 4, jnp.zeros((1, 1, 192, 48))
  assert 'concatenate' not in jax.jit(join).lower(parts, kernel).compile().as_text()
