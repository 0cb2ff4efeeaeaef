import jax.numpy as jnp
import pytest

from jaxsr.errors import UserError
from jaxsr.losses.schedule import Phase, Weight, make_plan


def plan(loss, **options):
  options = {'start': {}, 'ramp': {}, 'pretrain_loss': {}} | options
  return make_plan(loss, **options)


def names(phase):
  return [name for name, _ in phase.weights]


def test_a_plain_run_has_one_phase():
  found = plan({'mse': 1.0, 'l1': 0.0})
  assert found.at(0) == found.at(10**6) == Phase((('mse', Weight(1.0)),))
  assert found.adversarial is None


def test_stages_follow_each_other():
  found = plan(
    {'mse': 1.0, 'adversarial': 1e-3, 'tv': 1e-8},
    pretrain=100,
    pretrain_loss={'l1': 1.0},
    start={'adversarial': 50, 'tv': 20},
  )
  assert names(found.at(99)) == ['l1']
  assert names(found.at(100)) == ['mse']
  assert names(found.at(120)) == ['mse', 'tv']
  assert names(found.at(149)) == ['mse', 'tv']
  assert names(found.at(150)) == ['adversarial', 'mse', 'tv']
  assert found.adversarial == 150
  assert not found.at(149).discriminator and found.at(150).discriminator


def test_a_weight_grows_over_its_ramp():
  weight = Weight(2.0, begin=100, ramp=4)
  found = [float(weight.at(jnp.int32(step))) for step in (100, 101, 103, 104, 1000)]
  assert found == [0.5, 1.0, 2.0, 2.0, 2.0]
  assert float(Weight(2.0, begin=100).at(jnp.int32(100))) == 2.0


@pytest.mark.parametrize(
  ('every', 'expected'),
  [
    ((1, 1), [(1, 1)] * 4),
    ((2, 1), [(1, 1), (0, 1)] * 2),
    ((1, 2), [(1, 1), (1, 0)] * 2),
    ((2, 2), [(1, 1), (1, 0)] * 2),  # a step that updates nothing would be a waste
  ],
)
def test_ratio_of_updates(every, expected):
  found = plan({'adversarial': 1.0}, generator_every=every[0], discriminator_every=every[1])
  assert [tuple(map(int, found.at(step)[1:])) for step in range(4)] == expected


@pytest.mark.parametrize('every', [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize('start', [0, 7])
@pytest.mark.parametrize('steps', [12, 40])
def test_updates_are_counted(every, start, steps):
  """The learning rate schedules use these counts, so they must match the run."""
  found = plan(
    {'l1': 1.0, 'adversarial': 1.0},
    pretrain=10,
    pretrain_loss={'l1': 1.0},
    start={'adversarial': start},
    generator_every=every[0],
    discriminator_every=every[1],
  )
  phases = [found.at(step) for step in range(10, steps)]
  counted = sum(p.generator for p in phases), sum(p.discriminator for p in phases)
  assert found.updates(steps) == counted


@pytest.mark.parametrize(
  ('loss', 'options', 'message'),
  [
    ({}, {}, 'config.loss is empty'),
    ({'l1': 1.0}, {'pretrain': 5}, 'config.pretrain.loss is empty'),
    ({'l1': 1.0}, {'start': {'l1': 5}}, 'every term of config.loss starts late'),
    (
      {'l1': 1.0},
      {'pretrain': 5, 'pretrain_loss': {'adversarial': 1.0}},
      'the first stage has no discriminator',
    ),
  ],
)
def test_what_is_no_plan_is_refused(loss, options, message):
  with pytest.raises(UserError, match=message):
    plan(loss, **options)
