"""Generator and discriminator in one step, and the two stages of a run."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxsr import config as configs
from jaxsr import sharding
from jaxsr.checkpoint import run_dir
from jaxsr.config import validate
from jaxsr.errors import UserError
from jaxsr.losses import adversarial
from jaxsr.perceptual import weights
from jaxsr.training import preemption
from jaxsr.training.loop import Collapsed, CompiledSteps
from jaxsr.training.setup import assemble
from jaxsr.training.train import train
from runs import final, four_steps, rows, run, same, stop_at


def configure(config):
  """Set a pixel, a content, an adversarial and a TV term, and networks with BatchNorm."""
  config.model = configs.network('srresnet', features=8, blocks=1, bicubic_skip=True)
  config.loss.update(mse=1.0, mobilenet_v2=1e-2, adversarial=1e-2, tv_squared=1e-4)
  config.content.mobilenet_v2.update(weights=weights.RANDOM, layer='block_0')
  config.discriminator.update(features=4, hidden=8)
  config.optimizer.warmup = 0
  return config


@pytest.fixture
def gan(tiny):
  """Returns a config of adversarial training."""
  return configure(tiny)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  hr = rng.integers(0, 256, (4, 48, 48, 1), np.uint8)
  lr = rng.integers(0, 256, (4, 12, 12, 1), np.uint8)
  return {'lr': lr, 'hr': hr, 'mask': np.ones((4, 48, 48, 1), np.uint8)}


class Taken(NamedTuple):
  """Three steps: of both networks, of the generator alone, of the discriminator alone."""

  built: Any
  take: CompiledSteps
  states: list  # before the first, and after each
  scalars: list


@pytest.fixture(scope='module')
def taken(batch):
  config = configure(four_steps(configs.base()))
  config.devices = 1
  config.adversarial.update(discriminator_every=2, generator_every=3)
  built = assemble(config, sharding.make_mesh(1))
  take, state = CompiledSteps(built), built.init()
  states, found = [jax.device_get(state)], []
  for number in range(3):
    state, scalars = take(number, state, sharding.put(batch, built.mesh))
    states.append(jax.device_get(state))
    found.append(jax.device_get(scalars))
  return Taken(built, take, states, found)


def moved(a, b):
  return not same(a, b)


def test_first_step_is_golden(taken, batch):
  """The losses of generator and discriminator, computed here from the networks alone."""
  built, (state, after, *_), (scalars, *_) = taken.built, taken.states, taken.scalars
  network, first = built.components.discriminator.network, state.discriminator
  lr, hr = (jnp.asarray(batch[name], jnp.float32) / 255 for name in ('lr', 'hr'))
  sr, of_generator = jax.jit(built.components.generator.apply)(
    state.generator.params, state.generator.batch_stats, lr
  )
  inner, apply = np.s_[:, 8:-8, 8:-8], jax.jit(network.apply)
  real, stats = apply(first.params, first.batch_stats, hr[inner])
  fake, stats = apply(first.params, stats, sr[inner])
  expected = adversarial.discriminator_loss(real, fake, form='bce').mean()
  assert scalars['discriminator/loss'] == pytest.approx(float(expected), rel=1e-4)
  assert scalars['discriminator/logit_real'] == pytest.approx(float(real.mean()), abs=1e-4)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, after.discriminator.batch_stats, stats)  # of true, then of generated films
  jax.tree.map(close, after.generator.batch_stats, of_generator)
  logits = lambda x: apply(after.discriminator.params, stats, x)[0]
  expected = adversarial.generator_loss(logits(hr[inner]), logits(sr[inner]), form='bce').mean()
  assert scalars['term/adversarial'] == pytest.approx(float(expected), rel=1e-3)
  assert scalars['loss'] == pytest.approx(
    sum(v for k, v in scalars.items() if k.startswith('weighted/')), rel=1e-5
  )
  for term in ('mse', 'mobilenet_v2', 'adversarial', 'tv_squared'):
    assert scalars[f'gradient/{term}'] > 0


def test_both_sides_learn_and_keep_their_statistics(taken):
  first, state = taken.states[0], taken.states[2]
  for side in ('generator', 'discriminator'):
    before, after = getattr(first, side), getattr(state, side)
    assert moved(before.params, after.params) and moved(before.batch_stats, after.batch_stats)
  assert moved(first.ema['batch_stats'], state.ema['batch_stats'])
  assert moved(state.ema['params'], state.generator.params)


def test_the_generators_pass_leaves_the_discriminator_alone(taken):
  """In a step of the generator only, parameters and statistics of the discriminator stay."""
  before, state, scalars = taken.states[1], taken.states[2], taken.scalars[1]
  assert same(before.discriminator, state.discriminator)
  assert moved(before.generator.params, state.generator.params)
  assert 'term/adversarial' in scalars and 'discriminator/loss' not in scalars


def test_a_step_of_the_discriminator_alone_leaves_the_generator(taken):
  before, state, scalars = taken.states[2], taken.states[3], taken.scalars[2]
  assert same(before.generator, state.generator)
  assert moved(before.discriminator.params, state.discriminator.params)
  assert 'loss' not in scalars and 'psnr' in scalars


def test_four_devices_equal_one(gan, taken, batch):
  """BatchNorm statistics and scalars are those of the global batch.

  Parameters are not compared: the gradient of a bias before BatchNorm is only rounding, which Adam
  scales up to full steps.
  """
  a, x = taken.states[1], taken.scalars[0]
  b, (y,) = run(gan, batch, devices=4)
  assert x.keys() == y.keys()
  for name in x:
    assert x[name] == pytest.approx(y[name], rel=2e-3, abs=1e-6), name
  close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5)
  for side in ('generator', 'discriminator'):
    jax.tree.map(close, getattr(a, side).batch_stats, getattr(b, side).batch_stats)


def test_a_step_that_is_not_finite_keeps_both_sides(taken, batch):
  """The discriminator's loss is finite, and its update is not."""
  first = taken.states[0]
  spoil = lambda x: np.full_like(x, np.inf) if x.dtype == np.float32 else x
  opt_state = jax.tree.map(spoil, first.discriminator.opt_state)
  bad = dataclasses.replace(first.discriminator, opt_state=opt_state)
  first = dataclasses.replace(first, discriminator=bad)
  state = jax.device_put(first, sharding.replicated(taken.built.mesh))
  state, scalars = taken.take(0, state, sharding.put(batch, taken.built.mesh))
  assert np.isfinite(scalars['discriminator/loss'])
  state = dataclasses.replace(state, step=state.step * 0)  # again a step of both
  state, scalars = taken.take(0, state, sharding.put(batch, taken.built.mesh))
  assert scalars['skipped_in_row'] == 2
  state = jax.device_get(state)
  assert same(first.discriminator, state.discriminator)
  assert same(first.generator, state.generator) and same(first.watch, state.watch)


@pytest.mark.parametrize(
  'options',
  [
    {'adversarial.r1': 10.0, 'adversarial.noise': 0.1, 'adversarial.noise_steps': 4},
    pytest.param(
      {'discriminator.norm': 'spectral', 'adversarial.form': 'hinge'}, marks=pytest.mark.slow
    ),
    pytest.param(
      {
        'discriminator.separable': True,
        'adversarial.form': 'relativistic',
        'precision': 'bfloat16',
      },
      marks=pytest.mark.slow,
    ),
  ],
  ids=str,
)
def test_options_train(gan, batch, options):
  gan.update_from_flattened_dict(options)
  state, scalars = run(gan, batch, steps=3)
  assert state.skipped == 0
  if 'adversarial.r1' in options:
    assert scalars[0]['discriminator/r1'] > 0
  if 'adversarial.noise' in options:
    assert [float(s['discriminator/noise']) for s in scalars] == pytest.approx([0.1, 0.075, 0.05])
  if options.get('discriminator.norm') == 'spectral':
    assert 'batch_stats' in state.discriminator.variables
    assert jax.tree.leaves(state.discriminator.batch_stats)  # the singular vectors


def two_stages(config):
  config.steps, config.eval, config.save, config.log = 30, 10, 10, 1
  config.pretrain.update(steps=12)
  config.pretrain.loss.mse = 1.0
  config.start.adversarial = 4
  config.optimizer.warmup = 1
  return config


@pytest.mark.slow
def test_two_stages_resume_to_the_bit_in_either(gan, tmp_path):
  config = two_stages(gan)
  assert train(config, tmp_path / 'whole') == 0
  for step in (10, 20):
    folder = tmp_path / f'from_{step}'
    assert stop_at(config, folder, step=step) == preemption.EXIT
    assert train(config, folder) == 0
    assert same(final(config, folder), final(config, tmp_path / 'whole'))
  tags = EventAccumulator(str(tmp_path / 'whole')).Reload()
  assert len(tags.Scalars('term/mse')) == 30
  assert [tags.Scalars('term/adversarial')[i].step for i in (0, -1)] == [17, 30]
  assert tags.Scalars('term/mobilenet_v2')[0].step == 13
  for name in ('discriminator/accuracy', 'discriminator/logit_real', 'gradient/tv_squared'):
    assert name in tags.Tags()['scalars']
  assert 'val/feature_distance' in tags.Tags()['scalars']
  rates = [event.value for event in tags.Scalars('train/learning_rate')]
  assert rates[11] < rates[1] and rates[14] > rates[11]  # a cosine for each stage


def test_a_run_starts_from_another(gan, tmp_path):
  gan.loss.update(mobilenet_v2=0.0, adversarial=0.0)
  assert train(gan, tmp_path / 'first') == 0
  gan.init_from = str(tmp_path / 'first')
  assert train(gan, tmp_path / 'second') == 0
  first, second = rows(tmp_path / 'first'), rows(tmp_path / 'second')
  assert second[0]['psnr'] == first[-1]['psnr']


@pytest.mark.parametrize(
  ('options', 'path', 'message'),
  [
    ({'scale': 2}, '{run}', 'its scale is 4, not 2'),
    ({'model.bicubic_skip': False}, '{run}', 'its bicubic_skip is True, not False'),
    ({}, '{run}/gone', 'is neither the folder of a run'),
  ],
)
def test_what_cannot_be_started_from_is_refused(tiny, tmp_path, options, path, message):
  run = tmp_path / 'run'
  run_dir.write_config(make(run), configs.to_dict(tiny))
  tiny.update_from_flattened_dict(options)
  tiny.init_from = path.format(run=run)
  with pytest.raises(UserError, match=message):
    train(tiny, tmp_path / 'new')


def make(folder):
  folder.mkdir()
  return folder


def collapsing(config):
  """Configure a discriminator that does not learn, so that its accuracy stays at chance."""
  config.steps, config.eval, config.save = 6, 2, 2
  config.discriminator.optimizer.learning_rate = 1e-12
  config.adversarial.alarm.update(low=0.99, high=0.995, evaluations=2)
  return config


@pytest.mark.slow
def test_a_collapse_is_reported_and_the_lowered_weight_is_resumed(gan, tmp_path, capsys):
  collapsing(gan).adversarial.alarm.action = 'lower'
  gan.steps = 12
  assert train(gan, tmp_path / 'whole') == 0
  error = capsys.readouterr().err
  assert 'warning, step 4: the discriminator has failed' in error
  assert 'warning, step 2' not in error
  state = final(gan, tmp_path / 'whole')
  assert float(state.watch.factor) == 0.5**3  # at every second of six evaluations
  assert stop_at(gan, tmp_path / 'halves', step=4) == preemption.EXIT
  assert train(gan, tmp_path / 'halves') == 0
  assert same(final(gan, tmp_path / 'halves'), state)


def test_a_collapse_stops_where_so_configured(gan, tmp_path):
  collapsing(gan).adversarial.alarm.action = 'stop'
  with pytest.raises(Collapsed, match='step 4: the discriminator has failed'):
    train(gan, tmp_path)


def test_missing_weights_stop_before_anything_is_compiled(gan, tmp_path, monkeypatch):
  gan.content.mobilenet_v2.weights = str(tmp_path / 'gone.safetensors')
  monkeypatch.setattr(jax, 'jit', lambda *a, **k: pytest.fail('something was compiled'))
  with pytest.raises(UserError, match='gone.safetensors: no such file'):
    train(gan, tmp_path / 'run')


@pytest.mark.parametrize(
  ('option', 'value', 'message'),
  [
    ('adversarial.form', 'bec', "did you mean 'bce'"),
    ('discriminator.norm', 'layer', 'batch'),
    ('adversarial.alarm.action', 'shout', 'warn'),
    ('adversarial.alarm.low', 0.99, 'must be less than alarm.high'),
    ('content.vgg19.layer', 'conv9_1', "vgg19 has no layer 'conv9_1'"),
    ('content.vgg19.distance', 'l3', "did you mean 'l1'"),
    ('content.vgg16.variant', 'coffee', "did you mean 'caffe'"),
    ('pretrain.steps', 4, 'must be less than config.steps=4, so that the main stage'),
    ('adversarial.generator_every', 0, 'must be at least 1'),
  ],
)
def test_bad_options_are_named(gan, option, value, message):
  gan.update_from_flattened_dict({option: value})
  with pytest.raises(UserError, match=message):
    validate.check(gan)
