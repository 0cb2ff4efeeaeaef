import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.training.gan import CollapseMonitor, update_accuracy
from jaxsr.training.state import DiscriminatorStats, init_discriminator_stats


def stats_of(accuracy):
  return DiscriminatorStats(
    accuracy=jnp.float32(accuracy), alarms=jnp.int32(0), factor=jnp.float32(1)
  )


def check_all(monitor, accuracies):
  """Check one evaluation after the other; returns the statistics and the warning of each."""
  found, texts = stats_of(0.75), []
  for accuracy in accuracies:
    found, text = monitor.check(
      DiscriminatorStats(jnp.float32(accuracy), found.alarms, found.factor)
    )
    texts.append(text)
  return found, texts


MONITOR = CollapseMonitor(low=0.52, high=0.98, evaluations=3, action='warn')


@pytest.mark.parametrize(
  ('accuracy', 'remedy'),
  [(0.999, 'always wins.*norm=spectral'), (0.5, 'has failed.*form=relativistic')],
)
def test_a_collapse_is_reported_after_some_evaluations_in_a_row(accuracy, remedy):
  _, texts = check_all(MONITOR, [accuracy] * 4)
  assert texts[:2] == ['', ''] and texts[3]
  assert re.search(remedy, texts[2]), texts[2]


def test_a_good_evaluation_in_between_resets_the_count():
  found, texts = check_all(MONITOR, [0.999, 0.999, 0.8, 0.999, 0.999])
  assert not any(texts) and int(found.alarms) == 2


def test_lowering_halves_the_weight_each_time():
  found, texts = check_all(MONITOR._replace(action='lower'), [0.5] * 6)
  assert [bool(text) for text in texts] == [False, False, True] * 2
  assert float(found.factor) == 0.25 and 'multiplied by 0.25' in texts[-1]


def test_accuracy_is_averaged_from_a_plain_start():
  found = update_accuracy(init_discriminator_stats(), jnp.float32(0.6), jnp.int32(0))
  assert float(found.accuracy) == pytest.approx(0.6)
  for update in range(1, 500):
    found = update_accuracy(found, jnp.float32(0.9), jnp.int32(update))
  assert float(found.accuracy) == pytest.approx(0.9, abs=1e-3)
  assert np.isfinite(float(found.factor))
