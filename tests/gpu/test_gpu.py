"""On an accelerator: the same results as on the CPU. Run: JAX_PLATFORMS=cuda,cpu pytest -m gpu.

Without an accelerator the tests compare the CPU with itself.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from PIL import Image

from jaxsr import config as configs
from jaxsr import models, sharding
from jaxsr.checkpoint import Checkpoints
from jaxsr.data.phantom import phantom
from jaxsr.inference import package
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.setup import assemble
from models.small import SMALL, draw
from runs import four_steps, same

pytestmark = pytest.mark.gpu
# With random weights SPAN's attention on [0, 255] is a step function, which no rounding survives.
OPTIONS = SMALL | {'span': {**SMALL['span'], 'image_range': 1.0}}
ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {'float32': 2e-4, 'bfloat16': 4e-2}  # of the largest value
if jax.default_backend() == 'cpu':
  del TOLERANCE['bfloat16']  # XLA sums bfloat16 in bfloat16 there, and nobody computes so


def mesh_of(device):
  return jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,), devices=[device])


@pytest.fixture(scope='module')
def devices():
  """Return the device to be tested and a CPU."""
  return jax.devices()[0], jax.devices('cpu')[0]


def close(found, wanted, precision):
  found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
  assert np.isfinite(found).all()
  largest = max(np.abs(wanted).max(), 1e-6)
  assert np.abs(found - wanted).max() <= TOLERANCE[precision] * largest


@pytest.mark.parametrize('name', SMALL)
def test_a_network_enlarges_as_on_the_cpu(name, devices, rng):
  x = rng.random((2, 24, 24, 1), dtype=np.float32)
  variables = draw(rng, models.build(name, OPTIONS[name], scale=4), x.shape, train=False)

  def enlarge(device, precision):
    network = models.build(name, OPTIONS[name], scale=4, precision=precision)
    apply = jax.jit(lambda variables, x: network.apply(variables, x, train=False))
    with jax.default_matmul_precision('highest'):
      y = apply(*jax.device_put((variables, x), device))
    assert y.devices() == {device}
    return y

  wanted = enlarge(devices[1], 'float32')
  for precision in TOLERANCE:
    close(enlarge(devices[0], precision), wanted, precision)


@pytest.mark.parametrize('name', SMALL)
def test_a_step_has_the_gradient_of_the_cpu(name, devices, rng):
  config = configs.base()
  config.model = configs.network(name, **OPTIONS[name])
  config.loss.mse = 1.0
  config.batch_size = 2
  config.optimizer.clip_norm = 0.0
  config.data.update(patch=16, margin=0)
  batch = {
    'lr': rng.integers(0, 256, (2, 16, 16, 1), np.uint8),
    'hr': rng.integers(0, 256, (2, 64, 64, 1), np.uint8),
    'mask': np.ones((2, 64, 64, 1), np.uint8),
  }
  start = jax.device_get(assemble(config, mesh_of(devices[1])).init())

  def step(device, precision):
    """Returns the first moments, which are a tenth of the gradient, and the scalars."""
    config.precision = precision
    mesh = mesh_of(device)
    with jax.default_matmul_precision('highest'):
      run = assemble(config, mesh)
      state = jax.device_put(start, sharding.replicated(mesh))
      state, scalars = CompiledSteps(run)(0, state, sharding.put(batch, mesh))
    moments = jax.tree.leaves(optax.tree.get(state.generator.opt_state, 'mu'))
    return np.concatenate([np.ravel(x) for x in jax.device_get(moments)]), scalars

  wanted, wanted_scalars = step(devices[1], 'float32')
  for precision, tolerance in TOLERANCE.items():
    found, scalars = step(devices[0], precision)
    for key in ('loss', 'grad_norm', 'psnr'):
      close(scalars[key], wanted_scalars[key], precision)
    cosine = np.vdot(found, wanted) / (np.linalg.norm(found) * np.linalg.norm(wanted))
    assert cosine > 1 - tolerance


def main(*arguments, **environment):
  """Run `main.py` on the device; returns the exit code and what it printed."""
  command = [sys.executable, 'main.py', *map(str, arguments)]
  env = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', **environment}
  done = subprocess.run(
    command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )
  return done.returncode, done.stdout


def deterministic():
  """Return the environment under which an accelerator repeats its sums."""
  if jax.default_backend() == 'cpu':
    return {}
  return {'XLA_FLAGS': '--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0'}


QUICK = (
  '--config=configs/quickstart.py:smoke',
  '--config.steps=20',
  '--config.save=10',
  '--config.eval=20',
  '--config.data.phantom.size=128',
  '--config.data.patch=8',
)


def final(folder):
  config = four_steps(configs.load('configs/quickstart.py'))
  config.model = configs.load('configs/quickstart.py:smoke').model
  config.data.patch = 8
  run = assemble(config, mesh_of(jax.devices()[0]))
  return jax.device_get(Checkpoints(folder / 'checkpoints').restore(run.shapes))


@pytest.mark.parametrize('cache', ['host', 'device'])
def test_a_run_resumes_to_the_bit(cache, tmp_path):
  flags = (*QUICK, f'--config.data.cache={cache}')
  code, text = main(*flags, f'--workdir={tmp_path / "a"}', **deterministic())
  assert code == 0, text[-2000:]
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  shutil.rmtree(tmp_path / 'b/checkpoints/20')
  code, text = main(*flags, f'--workdir={tmp_path / "b"}', **deterministic())
  assert code == 0 and 'resumed at step 10' in text, text[-2000:]
  assert same(final(tmp_path / 'a'), final(tmp_path / 'b'))


def test_films_on_the_device_give_the_same_run(tmp_path):
  states = []
  for cache in ('host', 'device'):
    folder = tmp_path / cache
    flags = (*QUICK, f'--config.data.cache={cache}', f'--workdir={folder}')
    options = (
      {} if jax.default_backend() == 'cpu' else {'XLA_FLAGS': '--xla_gpu_deterministic_ops=true'}
    )
    code, text = main(*flags, **options)
    assert code == 0, text[-2000:]
    states.append(final(folder))
  leaves = [jax.tree.leaves(state.ema) for state in states]
  for a, b in zip(*leaves, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize('name', [name for name in package.names() if 'x' in name])
def test_upscale_is_within_a_gray_level_of_the_cpu(name, tmp_path):
  Image.fromarray(phantom(1, 0, size=256)).save(tmp_path / 'film.png')
  code = 'import sys; from jaxsr.cli import main; sys.exit(main())'
  images = []
  for platform in (os.environ.get('JAX_PLATFORMS', 'cpu'), 'cpu'):
    out = tmp_path / f'{platform.replace(",", "_")}_{len(images)}.png'
    command = [sys.executable, '-c', code, 'upscale', str(tmp_path / 'film.png')]
    command += ['--checkpoint', name, '--output', str(out)]
    environment = {
      **os.environ,
      'JAX_PLATFORMS': platform,
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    }
    environment.pop('XLA_FLAGS', None)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    images.append(np.asarray(Image.open(out), np.int64))
  assert np.abs(images[0] - images[1]).max() <= 1
