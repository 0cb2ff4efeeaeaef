import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import ops, sharding
from jaxsr.data.batch import normalize
from jaxsr.errors import UserError
from jaxsr.losses import TERMS
from jaxsr.losses.schedule import make_plan
from jaxsr.training.loop import ON_HOST, CompiledSteps
from jaxsr.training.optimizer import make_optimizer
from jaxsr.training.setup import assemble
from jaxsr.training.step import average
from runs import run


@pytest.fixture
def batch(rng):
  hr = rng.integers(0, 256, (4, 48, 48, 1), np.uint8)
  lr = rng.integers(0, 256, (4, 12, 12, 1), np.uint8)
  mask = np.zeros((4, 48, 48, 1), np.uint8)
  mask[:, 8:-8, 8:-8] = 1
  return {'lr': lr, 'hr': hr, 'mask': mask}


REFERENCE = {
  'l1': lambda e: np.abs(e).mean(),
  'mse': lambda e: (e**2).mean(),
  'charbonnier': lambda e: np.sqrt(e**2 + 1e-6).mean(),
}
GRADIENT = {'l1': 0.699581, 'mse': 0.529058, 'charbonnier': 0.703150}


@pytest.mark.parametrize('term', REFERENCE)
def test_first_step_is_golden(tiny, batch, term):
  """The network starts at bicubic, so the first loss is bicubic's, computed here by NumPy."""
  tiny.loss = {name: 3.0 * (name == term) for name in TERMS}
  _, (scalars,) = run(tiny, batch)
  bicubic = np.asarray(ops.upsample(jnp.asarray(batch['lr'], jnp.float32) / 255, 4))
  error = (bicubic - batch['hr'] / 255)[:, 8:-8, 8:-8]
  assert scalars['loss'] == pytest.approx(3 * REFERENCE[term](error), rel=1e-5)
  assert scalars[f'term/{term}'] == pytest.approx(REFERENCE[term](error), rel=1e-5)
  assert scalars[f'weighted/{term}'] == scalars['loss']
  clipped = (np.clip(bicubic, 0, 1) - batch['hr'] / 255)[:, 8:-8, 8:-8]
  assert scalars['psnr'] == pytest.approx(-10 * np.log10((clipped**2).mean()), rel=1e-5)
  assert scalars['grad_norm'] == pytest.approx(GRADIENT[term], rel=1e-4)


def test_step_lowers_the_loss(tiny, batch):
  tiny.steps, tiny.optimizer.learning_rate = 60, 5e-3
  _, scalars = run(tiny, batch, steps=60)
  assert scalars[-1]['loss'] < 0.9 * scalars[0]['loss']


def test_margin_does_not_matter(tiny, batch):
  other = dict(batch, hr=np.where(batch['mask'] == 1, batch['hr'], 255 - batch['hr']))
  (a, _), (b, _) = run(tiny, batch, steps=2), run(tiny, other, steps=2)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_four_devices_equal_one(tiny, batch):
  a, one = run(tiny, batch, steps=3)
  b, four = run(tiny, batch, steps=3, devices=4)
  assert one[-1]['loss'] == pytest.approx(four[-1]['loss'], rel=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a.ema, b.ema)


def test_bfloat16_trains_float32_parameters(tiny, batch):
  tiny.precision = 'bfloat16'
  state, scalars = run(tiny, batch, steps=2)
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(state.generator.params))
  assert np.isfinite(scalars[-1]['loss'])


def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny, batch):
  mesh = sharding.make_mesh(1)

  def poisoned(batch, _):
    floats = normalize(batch)
    floats['hr'] = jnp.where(batch['hr'][0, 0, 0, 0] == 0, jnp.nan, floats['hr'])
    return floats

  built = assemble(tiny, mesh)
  take = CompiledSteps(built, ON_HOST._replace(to_batch=poisoned))
  good = dict(batch, hr=batch['hr'].copy())
  good['hr'][0, 0, 0, 0] = 7
  bad = dict(batch, hr=batch['hr'].copy())
  bad['hr'][0, 0, 0, 0] = 0
  state, _ = take(0, built.init(), sharding.put(good, mesh))
  before = jax.device_get(state)
  for count in (1, 2):
    state, scalars = take(count, state, sharding.put(bad, mesh))
    assert int(scalars['skipped_in_row']) == count
  after = jax.device_get(state)
  jax.tree.map(np.testing.assert_array_equal, before.generator, after.generator)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.ema))
  assert int(after.step) == 3
  state, scalars = take(3, state, sharding.put(good, mesh))
  assert (int(scalars['skipped_in_row']), int(scalars['skipped'])) == (0, 2)


def test_average_starts_as_a_plain_mean():
  ema = average(jnp.float32(0.0), jnp.float32(1.0), jnp.int32(0), 0.999)
  assert float(ema) == pytest.approx(0.9)
  late = average(jnp.float32(0.0), jnp.float32(1.0), jnp.int32(100_000), 0.999)
  assert float(late) == pytest.approx(0.001, rel=1e-3)


def test_learning_rate_warms_up_and_falls_to_zero(tiny):
  options = {**tiny.optimizer, 'warmup': 10}
  del options['learning_rate']
  _, schedule = make_optimizer([(1.0, 100)], **options)
  rates = [float(schedule(step)) for step in range(101)]
  assert rates[0] == 0 and rates[10] == 1 and rates[100] == pytest.approx(0, abs=1e-6)
  assert np.argmax(rates) == 10 and np.all(np.diff(rates[10:]) <= 0)


NOTHING = {'start': {}, 'ramp': {}, 'pretrain_loss': {}}


def test_unknown_and_missing_losses_are_named():
  with pytest.raises(UserError, match="did you mean 'charbonnier'"):
    make_plan({'charbonier': 1.0}, **NOTHING)
  with pytest.raises(UserError, match='config.loss is empty'):
    make_plan({'l1': 0.0}, **NOTHING)
