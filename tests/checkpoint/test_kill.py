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

from runs import environment, final, rows, same

ROOT = Path(__file__).resolve().parents[2]
SHARED = {'eval': 3000, 'save': 250, 'log': 100, 'devices': 1}
SHARED |= {'data.patch': 8, 'data.margin': 2, 'data.by_error': 0.5, 'data.val_count': 1}
SHARED |= {'data.phantom.size': 128, 'data.phantom.count': 2, 'data.phantom.val_count': 1}
GAN = {'steps': 3000, 'save': 100, 'pretrain.steps': 20, 'start.vgg19': 0, 'batch_size': 2}
GAN |= {'model.features': 8, 'model.blocks': 1, 'content.vgg19.layer': 'conv1_1'}
GAN |= {'discriminator.features': 4, 'discriminator.hidden': 8, 'adversarial.noise': 0.05}
OVERRIDES = {'quickstart': SHARED | {'steps': 6000}, 'srgan': SHARED | GAN}
RUNS, KILLS = 5, 4
SECONDS = {'quickstart': (2, 8), 'srgan': (5, 25)}  # to a kill; starting alone takes some


def command(name, folder, workers):
  overrides = [f'--config.{key}={value}' for key, value in OVERRIDES[name].items()]
  return [
    sys.executable,
    str(ROOT / 'main.py'),
    f'--config=configs/{name}.py:smoke',
    f'--workdir={folder}',
    f'--config.data.workers={workers}',
    *overrides,
  ]


def start(name, folder, workers):
  # what is compiled is kept (see conftest), or a run would always be killed while it compiles
  return subprocess.Popen(
    command(name, folder, workers),
    cwd=ROOT,
    env=environment(),
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(name, folder, workers):
  process = start(name, folder, workers)
  _, error = process.communicate(timeout=600)
  assert process.returncode == 0, error


@pytest.fixture(scope='module', params=OVERRIDES)
def whole(tmp_path_factory, request):
  """Run without interruption; give the config's name and the folder."""
  folder = tmp_path_factory.mktemp(request.param)
  finish(request.param, folder, workers=0)
  return request.param, folder


@pytest.fixture
def config(whole):
  name = whole[0]
  spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('smoke')
  config.update_from_flattened_dict(OVERRIDES[name])
  return config


@pytest.mark.slow
@pytest.mark.parametrize('number', range(RUNS))
def test_random_kills_change_nothing(whole, config, tmp_path, number):
  """Kill the process group at random, from its start to well into its steps; then let it end."""
  rng, workers = np.random.default_rng(number), 2 * (number % 2)
  name, uninterrupted = whole
  killed = 0
  for _ in range(KILLS):
    process = start(name, tmp_path, workers)
    time.sleep(rng.uniform(*SECONDS[name]))
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      killed += 1
    process.communicate()
  assert killed >= KILLS // 2, 'it was done before its time came; give it more steps'
  finish(name, tmp_path, workers)
  assert same(final(config, tmp_path), final(config, uninterrupted))
  names = ('step', 'psnr', 'ssim', 'psnr_centre')
  table = lambda folder: [[row[name] for name in names] for row in rows(folder)]
  assert table(tmp_path) == table(uninterrupted)
  assert not list((tmp_path / 'checkpoints').glob('*.bad*'))


@pytest.mark.slow
def test_a_killed_trainer_leaves_no_worker_behind(tmp_path):
  process = start('quickstart', tmp_path, workers=2)
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
