"""Loss spikes, images without a PSNR, and the images of skipped steps."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.data import image_files
from jaxsr.evaluation.evaluate import evaluate
from jaxsr.inference.model import load
from jaxsr.training import loop, run_log, step
from jaxsr.training.spikes import RECENT, Spiked, SpikeMonitor
from jaxsr.training.state import Trainable
from jaxsr.training.train import train
from runs import final, rows, same


def test_a_fall_of_psnr_is_told_once_and_noise_is_not():
  rng, monitor = np.random.default_rng(0), SpikeMonitor()
  assert not any(monitor.crops(value) for value in rng.normal(30, 1.5, 500))
  assert monitor.crops(float('nan')) == ''
  assert 'to 10.0 dB' in monitor.crops(10.0)
  assert monitor.crops(9.0) == '' and len(monitor.recent) == RECENT
  assert monitor.crops(30.0) == ''
  assert monitor.crops(9.0)
  monitor.reset()
  assert not any(monitor.crops(9.0) for _ in range(9))


def test_a_fall_of_validation_is_told_once():
  monitor = SpikeMonitor()
  assert monitor.validation(30.0, []) == '' and monitor.validation(25.0, [30.0]) == ''
  assert 'fell from 30.0 to 23.0 dB' in monitor.validation(23.0, [28.0, 30.0])
  assert monitor.validation(22.0, [30.0, 23.0]) == ''


@pytest.fixture
def spiking(tiny, monkeypatch):
  """A run whose crops get worse at step 8, in the first order of the images only."""
  tiny.steps, tiny.eval, tiny.save = 10, 100, 2
  original = run_log.Log.scalars

  def scalars(self, number, found, *, waited):
    text = original(self, number, found, waited=waited)
    return 'loss spike: injected' if number == 8 and not run_dir.rollbacks(self._folder) else text

  monkeypatch.setattr(run_log.Log, 'scalars', scalars)
  return tiny


def test_a_spike_warns_stops_or_rolls_back(spiking, tmp_path, capsys):
  assert train(spiking, tmp_path / 'warn') == 0
  assert 'warning, step 8: loss spike' in capsys.readouterr().err
  spiking.on_spike = 'stop'
  with pytest.raises(Spiked, match='step 8: loss spike'):
    train(spiking, tmp_path / 'stop')
  assert Checkpoints(tmp_path / 'stop' / 'checkpoints').steps()[-1] <= 6
  spiking.on_spike = 'rollback'
  assert train(spiking, tmp_path / 'back') == 0
  back, checkpoints = (tmp_path / 'back'), tmp_path / 'back' / 'checkpoints'
  assert 'going back to step 6, with another order' in capsys.readouterr().out
  assert run_dir.rollbacks(back) == [{'spiked': 8, 'back_to': 6}]
  assert [row['step'] for row in rows(back)] == ['0', '10']
  assert not same(final(spiking, back), final(spiking, tmp_path / 'warn'))
  assert Checkpoints(checkpoints).steps()[-1] == 10


def test_the_images_of_skipped_steps_are_saved(tiny, tmp_path, monkeypatch):
  tiny.steps, tiny.eval, tiny.save, tiny.log = 6, 100, 100, 3
  call = loop.CompiledSteps.__call__

  def poisoned(self, number, state, batch):
    if number in (1, 4):
      batch = dict(batch, mask=batch['mask'] * 0)  # the mean over no pixel is not finite
    return call(self, number, state, batch)

  monkeypatch.setattr(loop.CompiledSteps, '__call__', poisoned)
  assert train(tiny, tmp_path) == 0
  with (tmp_path / run_dir.SKIPPED).open() as file:
    found = list(csv.DictReader(file))
  assert {row['step'] for row in found} == {'1', '4'}
  assert len(found) == 2 * tiny.batch_size
  assert {row['image'] for row in found} <= {'phantom_0_0000000.png', 'phantom_0_0000001.png'}


@pytest.mark.parametrize('value', [1.0, np.inf, np.nan])
def test_batchnorm_statistics_are_part_of_the_guard(value):
  network = Trainable({'a': jnp.ones(2)}, {'var': jnp.array([1, value])}, ())
  assert bool(step._finite({'loss': jnp.ones(())}, network)) == np.isfinite(value)


@pytest.mark.parametrize('films', [0, 1])
def test_images_that_bicubic_gives_exactly_are_not_compared(tiny, film, tmp_path, capsys, films):
  """A film that was not exposed is black, and any other network is infinitely worse there."""
  folder = tmp_path / 'films'
  folder.mkdir()
  image_files.write(folder / 'black.png', np.zeros((128, 128, 1), np.uint8))
  if films:
    image_files.write(folder / 'film.png', film)
  tiny.data.val, tiny.data.val_count, tiny.steps = str(folder), 0, 2
  assert train(tiny, tmp_path / 'run') == 0
  found = capsys.readouterr()
  assert found.err.count(f'bicubic gives 1 of {films + 1} image') == 1
  last = rows(tmp_path / 'run')[-1]
  if films:
    assert float(last['bicubic_psnr']) < 50 and 'left out' in found.err
  else:
    assert 'not compared with bicubic, which gives every' in found.out
    assert 'WORSE' not in found.out and '(constant?)' in found.err
    evaluate(load('bicubic'), folder)
    assert 'infinite there, and 100 dB are counted' in capsys.readouterr().err
