"""The names under which a state is saved: checkpoints that users have must stay readable."""

import jax
import pytest

from jaxsr import sharding
from jaxsr.checkpoint import Checkpoints, storage
from jaxsr.losses import TERMS
from jaxsr.training.setup import assemble
from runs import pack

# Written down on purpose: a name that changes here cannot be resumed from.
SAVED = {
  'step',
  'skipped',
  'skipped_in_row',
  'generator/params/head/kernel',
  'ema/params/head/kernel',
  'discriminator/params',
  'discriminator/batch_stats',
  'discriminator/opt_state',
  'watch/accuracy',
  'watch/alarms',
  'watch/factor',
  'adapters/params/teacher_0_point_0/kernel',
  'adapters/params/teacher_0_point_2/bias',
  'adapters/opt_state',
}


@pytest.fixture
def everything(tiny, tmp_path):
  """Build a run whose state has all optional parts."""
  options = {'name': 'edsr', 'features': 4, 'blocks': 1, 'upsampler': 'direct'}
  tiny.teacher.checkpoint = str(pack(tmp_path / 'teacher', options))
  tiny.loss = {name: 1e-3 * (name in ('mse', 'adversarial', 'distill_feature')) for name in TERMS}
  tiny.discriminator.update(features=4, hidden=8)
  return assemble(tiny, sharding.make_mesh(1))


def test_a_state_is_saved_under_the_names_of_earlier_versions(everything, tmp_path):
  kept = Checkpoints(tmp_path / 'checkpoints')
  kept.save(0, everything.init())
  kept.wait()
  names = storage.read_record(kept.path(0))['sums'].keys()
  missing = {saved for saved in SAVED if not any(name.startswith(saved) for name in names)}
  assert not missing
  tops = {name.split('/')[0] for name in names}
  assert tops == {saved.split('/')[0] for saved in SAVED}
  assert jax.tree.structure(kept.restore(everything.shapes)) == jax.tree.structure(
    everything.shapes
  )
