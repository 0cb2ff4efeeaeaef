import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxsr import config as configs
from jaxsr import files
from jaxsr.checkpoint import Checkpoints, storage
from jaxsr.config import compatibility
from jaxsr.errors import UserError
from jaxsr.inference.model import load
from jaxsr.training import loop, preemption
from jaxsr.training.loop import Diverged
from jaxsr.training.train import train
from runs import environment, final, rows, same, stop_at

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
  'step psnr ssim bicubic_psnr bicubic_ssim psnr_centre bicubic_psnr_centre loss images_per_second'
)


def copied(finished, tmp_path):
  """Returns the config of a finished run, and a copy of its folder, both to change."""
  config, folder = finished
  shutil.copytree(folder, tmp_path / 'copy')
  return configs.copy(config), tmp_path / 'copy'


def test_a_run_leaves_table_config_and_curves(finished):
  config, folder = finished
  table = rows(folder)
  assert (folder / 'metrics.csv').read_text().splitlines()[0].split(',') == COLUMNS.split()
  assert [row['step'] for row in table] == ['0', '2', '4']
  assert all(float(row['bicubic_psnr']) == float(table[0]['bicubic_psnr']) for row in table)
  assert float(table[0]['psnr']) == pytest.approx(float(table[0]['bicubic_psnr']), abs=0.05)
  saved = json.loads((folder / 'config.json').read_text())
  assert saved['config'] == configs.to_dict(config)
  assert saved['environment']['jax'] == jax.__version__
  events = EventAccumulator(str(folder)).Reload()
  tags = events.Tags()
  expected = {
    'train/loss',
    'train/psnr',
    'train/learning_rate',
    'train/grad_norm',
    'term/mse',
    'weighted/mse',
    'train/images_per_second',
    'val/psnr',
    'val/psnr_centre',
  }
  assert expected <= set(tags['scalars'])
  assert len(events.Scalars('train/loss')) == 4
  assert len(tags['images']) == 1
  assert '_hparams_/session_start_info' in events.summary_metadata


def test_the_same_command_again_says_that_it_is_finished(finished, capsys):
  config, folder = finished
  before = (folder / 'metrics.csv').read_bytes()
  assert train(config, folder) == 0
  assert 'is finished: step 4 of 4' in capsys.readouterr().out
  assert (folder / 'metrics.csv').read_bytes() == before


@pytest.mark.parametrize(
  ('workers', 'optimizer'),
  [(1, 'muon'), pytest.param(0, 'adamw', marks=pytest.mark.slow)],
)
def test_resume_is_exact_to_the_bit(finished, tmp_path, workers, optimizer, capsys):
  config = finished[0].copy_and_resolve_references()
  config.steps, config.eval, config.save = 30, 10, 10
  config.optimizer.name = optimizer
  assert train(config, tmp_path / 'whole') == 0
  config.data.workers = workers
  assert stop_at(config, tmp_path / 'halves', step=10) == preemption.EXIT
  capsys.readouterr()
  assert train(config, tmp_path / 'halves') == 0
  assert 'resumed at step' in capsys.readouterr().out
  assert same(final(config, tmp_path / 'halves'), final(config, tmp_path / 'whole'))
  drop = lambda table: [
    {k: v for k, v in r.items() if k[:4] not in ('loss', 'imag')} for r in table
  ]
  assert drop(rows(tmp_path / 'halves')) == drop(rows(tmp_path / 'whole'))


@pytest.mark.parametrize(
  ('scale', 'channels'), [(2, 3), (3, 1), pytest.param(8, 1, marks=pytest.mark.slow)]
)
def test_every_scale_trains(tiny, tmp_path, scale, channels):
  tiny.scale, tiny.channels, tiny.steps = scale, channels, 2
  tiny.data.patch = 4
  assert train(tiny, tmp_path) == 0
  last = rows(tmp_path)[-1]
  assert float(last['psnr']) > float(last['bicubic_psnr']) - 0.5


def test_a_second_trainer_is_refused(finished):
  config, folder = finished
  with files.locked(folder), pytest.raises(UserError, match=f'process {os.getpid()} on .* since'):
    train(config, folder)


def test_a_killed_trainers_lock_is_free(tmp_path):
  (tmp_path / 'lock').write_text('process 1 on elsewhere since long ago')
  with files.locked(tmp_path):
    pass


def test_a_run_that_stays_not_finite_stops_and_keeps_the_last_good(finished, tmp_path):
  tiny, tmp_path = copied(finished, tmp_path)
  good = final(tiny, tmp_path)
  tiny.steps, tiny.max_skipped, tiny.optimizer.learning_rate = 50, 3, 1e38
  with pytest.raises(Diverged, match='not finite in the last .* lower config.optimizer'):
    train(tiny, tmp_path, allow_config_change=True)
  assert same(final(tiny, tmp_path), good)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(good))


def test_a_change_of_config_is_seen(finished, tmp_path):
  config, folder = finished
  saved = configs.to_dict(config)
  change = config.copy_and_resolve_references()
  change.steps = 8
  assert compatibility.check_change(saved, configs.to_dict(change), allowed=False) == [
    'config.steps was 4, is now 8: the learning rate follows a new cosine from here on'
  ]
  change.optimizer.learning_rate = 0.5
  with pytest.raises(UserError, match='learning_rate was .* --allow-config-change'):
    train(change, folder)
  assert len(compatibility.check_change(saved, configs.to_dict(change), allowed=True)) == 2
  change.model.features = 16
  with pytest.raises(UserError, match='features was 8, is now 16: this is another network'):
    train(change, folder)


def test_more_steps_go_on(finished, tmp_path):
  more, tmp_path = copied(finished, tmp_path)
  more.steps = 6
  assert train(more, tmp_path) == 0
  assert [row['step'] for row in rows(tmp_path)] == ['0', '2', '4', '6']


def test_a_damaged_checkpoint_costs_steps_not_the_run(finished, tmp_path, capsys):
  folder = finished[1]
  config, tmp_path = copied(finished, tmp_path)
  for file in (tmp_path / 'checkpoints' / '4' / 'state').rglob('*'):
    if file.is_file():
      file.write_bytes(b'')
  assert train(config, tmp_path) == 0
  streams = capsys.readouterr()
  assert 'set aside as 4.bad' in streams.err and 'resumed at step 2' in streams.out
  assert same(final(config, tmp_path), final(config, folder))


def test_a_run_can_be_loaded_for_use(finished):
  _, folder = finished
  model = load(str(folder))
  assert (model.architecture, model.scale, model.channels, model.step) == ('edsr', 4, 1, 4)
  assert load(str(folder), step='2').step == 2
  assert load(str(folder), step='best').step in (2, 4)
  for options, message in (
    ({'step': '3'}, 'choose one of: latest, best, 2, 4'),
    ({'scale': 2}, 'was trained for scale 4'),
  ):
    with pytest.raises(UserError, match=message):
      load(str(folder), **options)


def test_another_architecture_is_said_in_one_line(finished, tmp_path):
  config, folder = finished
  other = json.loads((folder / 'config.json').read_text())
  other['config']['model']['features'] = 9
  copy = tmp_path / 'copy'
  copy.mkdir()
  (copy / 'checkpoints').symlink_to(folder / 'checkpoints')
  (copy / 'config.json').write_text(json.dumps(other))
  with pytest.raises(UserError, match='config.model.features=8, but .* has 9') as caught:
    load(str(copy))
  assert '\n' not in str(caught.value)


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def start_two_hosts(config, folder, seconds):
  """Start two local processes, each with half of every batch."""
  command = [sys.executable, str(ROOT / 'tests' / 'two_hosts.py'), str(folder)]
  command += [json.dumps(configs.to_dict(config)), str(free_port())]
  return [
    subprocess.Popen(
      [*command, str(i), str(seconds)],
      env=environment(PYTHONPATH=str(ROOT)),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]


@pytest.mark.parametrize('cache', ['host', pytest.param('device', marks=pytest.mark.slow)])
def test_two_hosts_end_where_one_does(finished, tmp_path, cache):
  config, folder = finished
  config = configs.copy(config)
  config.data.cache = cache
  hosts = start_two_hosts(config, tmp_path, 60)
  outputs = [host.communicate(timeout=240) for host in hosts]
  assert [host.returncode for host in hosts] == [0, 0], outputs
  a, b = final(config, tmp_path), final(config, folder)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a.ema, b.ema)
  assert [row['step'] for row in rows(tmp_path)] == ['0', '2', '4']


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_if_one_of_two_hosts_is_killed_the_other_ends_with_one_line(finished, tmp_path, killed):
  config = configs.copy(finished[0])
  config.steps, config.eval, config.save, config.log = 100_000, 100_000, 20, 10
  hosts = start_two_hosts(config, tmp_path, 10)
  while not (tmp_path / 'checkpoints' / '20').is_dir():
    assert [host.poll() for host in hosts] == [None, None]
    time.sleep(0.1)
  hosts[killed].kill()
  _, error = hosts[1 - killed].communicate(timeout=60)
  assert hosts[1 - killed].returncode == preemption.EXIT
  (line,) = error.splitlines()
  assert line.startswith(f'host {killed}') and 'start all hosts again' in line
  hosts[killed].communicate()


def test_a_run_that_is_stopped_in_its_last_validation_makes_up_for_it(tiny, tmp_path, monkeypatch):
  original = loop._validate

  def stopped(step, state, run, **options):
    if step == tiny.steps:
      run.stop.signal = signal.SIGTERM
    return original(step, state, run, **options)

  monkeypatch.setattr(loop, '_validate', stopped)
  assert train(tiny, tmp_path) == preemption.EXIT
  assert [row['step'] for row in rows(tmp_path)] == ['0', '2']
  kept = Checkpoints(tmp_path / 'checkpoints')
  assert storage.read_record(kept.path(4))['psnr'] is None
  monkeypatch.setattr(loop, '_validate', original)
  assert train(tiny, tmp_path) == 0
  assert [row['step'] for row in rows(tmp_path)] == ['0', '2', '4']
  psnr = storage.read_record(kept.path(4))['psnr']  # which the best step is chosen by
  assert psnr == pytest.approx(float(rows(tmp_path)[-1]['psnr']), abs=1e-3)
