"""A run that is killed again and again ends where an uninterrupted one does."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import final, rows, same

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = {'steps': 6000, 'eval': 3000, 'save': 250, 'log': 100, 'devices': 1}
OVERRIDES |= {'data.patch': 8, 'data.margin': 2, 'data.by_error': 0.5, 'data.val_count': 1}
OVERRIDES |= {'data.phantom.size': 128, 'data.phantom.count': 2, 'data.phantom.val_count': 1}
RUNS, KILLS = 5, 4


def command(folder, workers):
  overrides = [f'--config.{name}={value}' for name, value in OVERRIDES.items()]
  return [
    sys.executable,
    str(ROOT / 'main.py'),
    '--config=configs/quickstart.py:smoke',
    f'--workdir={folder}',
    f'--config.data.workers={workers}',
    *overrides,
  ]


def start(folder, workers):
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  return subprocess.Popen(
    command(folder, workers),
    cwd=ROOT,
    env=environment,
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(folder, workers):
  process = start(folder, workers)
  _, error = process.communicate(timeout=300)
  assert process.returncode == 0, error


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  finish(folder, workers=0)
  return folder


@pytest.fixture
def config():
  spec = importlib.util.spec_from_file_location('quickstart', ROOT / 'configs' / 'quickstart.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('smoke')
  config.update_from_flattened_dict(OVERRIDES)
  return config


@pytest.mark.slow
@pytest.mark.parametrize('number', range(RUNS))
def test_random_kills_change_nothing(whole, config, tmp_path, number):
  """Kill the process group at random, from its start to well into its steps; then let it end."""
  rng, workers = np.random.default_rng(number), 2 * (number % 2)
  for _ in range(KILLS):
    process = start(tmp_path, workers)
    time.sleep(rng.uniform(2, 8))
    assert process.poll() is None, 'it was done before its time came; give it more steps'
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
  finish(tmp_path, workers)
  assert same(final(config, tmp_path), final(config, whole))
  names = ('step', 'psnr', 'ssim', 'psnr_centre')
  table = lambda folder: [[row[name] for name in names] for row in rows(folder)]
  assert table(tmp_path) == table(whole)
  assert not list((tmp_path / 'checkpoints').glob('*.bad*'))


@pytest.mark.slow
def test_a_killed_trainer_leaves_no_worker_behind(tmp_path):
  process = start(tmp_path, workers=2)
  while not (tmp_path / 'checkpoints').is_dir():
    assert process.poll() is None
  tasks = Path(f'/proc/{process.pid}/task').glob('*/children')
  children = [child for task in tasks for child in task.read_text().split()]
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert len(children) >= 2
  for child in children:
    wait_for_death(int(child))


def wait_for_death(pid, seconds=10):
  for _ in range(10 * seconds):
    state = Path(f'/proc/{pid}/stat')
    if not state.exists() or state.read_text().rpartition(')')[2].split()[0] == 'Z':
      return
    time.sleep(0.1)
  pytest.fail(f'process {pid} outlived its trainer')
