"""Images whose rows are divided among devices: the same as undivided."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import cli, models, ops, runtime, sharding
from jaxsr.data import sources
from jaxsr.data.phantom import phantom
from jaxsr.evaluation import evaluator
from jaxsr.inference import upscale
from jaxsr.inference.model import Model
from jaxsr.inference.predict import make_predict
from jaxsr.ops.cpu import halo
from models.small import TRAINABLE, build
from runs import variables_of

LEVELS = np.float32(2**20)
CLOSE = 1e-5  # two thirds of a level of 16 bit; means over all rows are added in another order
WIDE = {'features': 32}  # enough channels for Winograd's tiles


@pytest.fixture
def divided(monkeypatch):
  """Divide small networks and images, too."""
  monkeypatch.setattr(upscale, '_MIN_PARAMETERS', 0)
  monkeypatch.setattr(upscale, '_MIN_ROWS', 8)


def lr_image(height=32, width=24):
  return np.random.default_rng(0).random((1, height, width, 1)).astype(np.float32)


def test_parts_are_even_and_not_too_small():
  assert upscale.partitions(256, 4) == 4 and upscale.partitions(256, 64) == 8  # of 32 rows
  assert upscale.partitions(255, 4) == 3 and upscale.partitions(254, 4) == 2
  assert (
    upscale.partitions(251, 4)
    == upscale.partitions(63, 8)
    == upscale.partitions(256, 1)
    == upscale.partitions(256, 0)
    == 1
  )


@pytest.mark.parametrize('name', ['lanczos', *TRAINABLE])
def test_every_network_gives_the_same(name, divided):
  options = {'image_range': 1.0, **WIDE} if name == 'span' else WIDE if name == 'edsr' else {}
  network = models.build(name, scale=2) if name == 'lanczos' else build(name, options)
  variables, lr = variables_of(network), lr_image()
  apart = upscale.make_upscale(network, devices=jax.devices())(variables, lr, LEVELS)
  devices = apart.sharding.device_set
  assert len(devices) == (jax.device_count() if network.row_shardable else 1)
  undivided = upscale.make_upscale(network)(variables, lr, LEVELS)
  np.testing.assert_allclose(apart, undivided, atol=CLOSE)


@pytest.mark.parametrize(
  ('size', 'pads', 'channels', 'outputs'),
  [
    ((3, 3), ((1, 1), (1, 1)), 32, 32),  # Winograd's tiles
    ((3, 3), ((2, 0), (0, 2)), 32, 32),
    ((1, 1), ((0, 0), (0, 0)), 32, 8),  # a product
    ((9, 9), ((4, 4), (4, 4)), 32, 1),  # four pixels together
    ((3, 3), ((0, 2), (1, 1)), 32, 1),  # sums of shifts
    ((5, 5), ((2, 2), (2, 2)), 32, 32),  # XLA's own
    ((3, 3), ((0, 0), (0, 0)), 32, 32),  # fewer rows than it gets
    ((19, 3), ((9, 9), (1, 1)), 32, 1),  # more rows of a neighbor than there are
  ],
)
def test_convolutions_see_their_neighbors(size, pads, channels, outputs):
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 32, 24, channels)).astype(np.float32)
  kernel = rng.standard_normal((*size, channels, outputs)).astype(np.float32) / channels
  convolve = jax.jit(lambda x, k: ops.convolve(x, k, (1, 1), pads, dimension_numbers=ops.NHWC))
  undivided = convolve(x, kernel)
  mesh = sharding.make_rows(jax.devices())
  with jax.set_mesh(mesh):
    apart = convolve(jax.device_put(x, sharding.by_rows(mesh)), kernel)
  np.testing.assert_allclose(apart, undivided, atol=CLOSE * np.abs(undivided).max())


@pytest.mark.parametrize('name', ['edsr', 'span', 'swinir', 'swift_srgan', 'vdsr'])
@pytest.mark.usefixtures('uncached')
def test_no_features_are_gathered(name):
  """Neighbours send some rows; nobody sends all, but for the image to those that interpolate."""
  network = build(name, WIDE if name in ('edsr', 'span') else {})
  mesh = sharding.make_rows(jax.devices())
  lr = jax.device_put(lr_image(), sharding.by_rows(mesh))
  variables = jax.device_put(variables_of(network), sharding.replicated(mesh))
  with jax.set_mesh(mesh):
    text = jax.jit(make_predict(network)).lower(variables, lr).compile().as_text()
  sent = re.findall(
    r'= f32\[([\d,]+)\]\S* (all-gather|all-reduce|all-to-all|reduce-scatter)\(', text
  )
  assert all(shape == '1,32,24,1' and kind == 'all-gather' for shape, kind in sent)
  assert 'collective-permute' in text


def test_new_variables_are_not_mistaken_for_the_last(divided):
  network = build('edsr')
  enlarge = upscale.make_upscale(network, devices=jax.devices())
  first = variables_of(network)
  second = jax.tree.map(lambda x: x + 0.1, first)
  made = [np.asarray(enlarge(v, lr_image(), LEVELS)) for v in (first, second, first)]
  undivided = upscale.make_upscale(network)(second, lr_image(), LEVELS)
  np.testing.assert_allclose(made[1], undivided, atol=CLOSE)
  assert (made[0] == made[2]).all() and (made[0] != made[1]).any()


def test_small_networks_and_uneven_images_stay_whole(monkeypatch):
  network = build('edsr')
  enlarge = upscale.make_upscale(network, devices=jax.devices())
  lr = lr_image(128)
  assert len(enlarge(variables_of(network), lr, LEVELS).sharding.device_set) == 1
  monkeypatch.setattr(upscale, '_MIN_PARAMETERS', 0)
  assert len(enlarge(variables_of(network), lr, LEVELS).sharding.device_set) == 4
  assert len(enlarge(variables_of(network), lr[:, 1:], LEVELS).sharding.device_set) == 1
  assert len(enlarge(variables_of(network), lr[:, :99], LEVELS).sharding.device_set) == 3


def test_what_users_call_divides(divided, monkeypatch, folder, tmp_path):
  network = build('edsr')
  model = Model('edsr', network, variables_of(network), 2, 1, None)
  image = phantom(0, 0, size=64)[..., None]
  assert halo.parts() == 1
  apart = model.upscale(image)
  seen = []
  original = sharding.make_rows
  monkeypatch.setattr(sharding, 'make_rows', lambda d: seen.append(len(d)) or original(d))
  assert (model.upscale(image, ensemble=True) > 0).any() and seen == [4]
  with monkeypatch.context() as alone:
    alone.setattr(jax, 'local_devices', lambda: jax.devices()[:1])
    assert np.abs(dataclasses.replace(model).upscale(image).astype(int) - apart).max() <= 1

  source = sources.Phantoms(seed=0, start=0, count=1, size=128, bits=8)
  figures = [
    evaluator.Evaluator(network, source, scale=2, devices=devices).measure(model.variables, 0)[0]
    for devices in (jax.devices(), ())
  ]
  assert seen == [4, 4]
  assert abs(figures[0]['psnr'] - figures[1]['psnr']) < 1e-3
  options = ['--checkpoint', 'edsr_x4_tiny', '--output', str(tmp_path / 'out')]
  for command in (['evaluate', '--data'], ['upscale']):
    seen.clear()
    with pytest.raises(SystemExit) as end:
      cli.main([*command, str(folder / 'a.png'), *options])
    assert end.value.code == 0 and seen


@pytest.mark.parametrize('given', [{}, {'JAX_NUM_CPU_DEVICES': '3'}])
def test_cores_become_devices(given):
  code = (
    'import json; from jaxsr import runtime; runtime.use_cpu_devices(); import jax; '
    'print(json.dumps([jax.device_count(), runtime.cpu_count()]))'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | given
  done = subprocess.run(
    (sys.executable, '-c', code), env=environment, capture_output=True, text=True, check=True
  )
  devices, cores = json.loads(done.stdout.splitlines()[-1])
  assert devices == (int(given['JAX_NUM_CPU_DEVICES']) if given else min(cores, 8))


def test_the_console_command_makes_cores_devices(monkeypatch):
  called = []
  monkeypatch.setattr(runtime, 'keep_freed_memory', lambda: None)
  monkeypatch.setattr(runtime, 'use_cpu_devices', lambda: called.append(True))
  monkeypatch.setattr(runtime, 'leave', sys.exit)
  monkeypatch.setattr(sys, 'argv', ['jaxsr', 'upscale', 'missing.png'])
  with pytest.raises(SystemExit):
    cli.main()
  assert called


def test_interpolation_of_uneven_rows_stays_whole():
  x = jnp.asarray(lr_image(30))
  with jax.set_mesh(sharding.make_rows(jax.devices())):
    made = jax.jit(lambda x: ops.upsample(x, 2))(x)
  np.testing.assert_allclose(made, ops.upsample(x, 2), atol=1e-6)
