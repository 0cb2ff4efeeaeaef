"""A run that is killed again and again ends where an uninterrupted one does."""

import contextlib
import importlib.util
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runs import environment, final, rows, run_command, same

ROOT = Path(__file__).resolve().parents[2]
SHARED = {'steps': 400, 'eval': 100, 'save': 20, 'log': 5, 'devices': 1}
SHARED |= {'model.features': 8, 'model.blocks': 1}
SHARED |= {'data.patch': 8, 'data.margin': 2, 'data.by_error': 0.5, 'data.val_count': 1}
SHARED |= {'data.phantom.size': 128, 'data.phantom.count': 2, 'data.phantom.val_count': 1}
GAN = {'pretrain.steps': 20, 'start.vgg19': 0, 'batch_size': 2}
GAN |= {'content.vgg19.layer': 'conv1_1'}
GAN |= {'discriminator.features': 4, 'discriminator.hidden': 8, 'adversarial.noise': 0.05}
OVERRIDES = {'quickstart': SHARED, 'srgan': SHARED | GAN}
KILLS = 10  # of a run
QUIET = 'ignore:resource_tracker:UserWarning'  # of what killed workers leave
EARLY = 0.3  # share of the kills before the first step
MOST_LINES = 12  # of output until a kill: up to 60 steps, which are three checkpoints


@pytest.fixture(scope='module', autouse=True)
def forkserver():
  """End the process that trainers are forked from, so that its time is counted, too."""
  yield
  multiprocessing.forkserver._forkserver._stop()


def arguments(name, folder, workers):
  overrides = [f'--config.{key}={value}' for key, value in OVERRIDES[name].items()]
  return [
    f'--config={ROOT}/configs/{name}.py:smoke',
    f'--workdir={folder}',
    f'--config.data.workers={workers}',
    *overrides,
  ]


def start(name, folder, workers):
  """Start a trainer from a process that has imported all; most of a start would be that."""
  if QUIET not in sys.warnoptions:
    sys.warnoptions.append(QUIET)
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['jaxsr.commands.train', 'jaxsr.training.train'])
  output = folder.with_name(f'{folder.name}.out')
  output.write_text('')
  # what is compiled is kept (see conftest), or a run would always be killed while it compiles
  process = context.Process(
    target=run_command, args=(['train', *arguments(name, folder, workers)], output, environment())
  )
  process.start()
  return process, output


def finish(name, folder, workers):
  """Let a run end; returns the seconds to its first step."""
  begun, (process, output) = time.monotonic(), start(name, folder, workers)
  first = await_lines(process, output, 1) - begun
  process.join(600)
  assert process.exitcode == 0, output.read_text()
  return first


def await_lines(process, output, number):
  """Wait for a number of lines about steps; returns the time."""
  while process.is_alive() and output.read_text().count('\nstep ') < number:
    time.sleep(0.002)
  return time.monotonic()


@pytest.fixture(scope='module', params=OVERRIDES)
def whole(tmp_path_factory, request):
  """Run without interruption; returns the config's name, the folder and the seconds to a step."""
  folder = tmp_path_factory.mktemp(request.param)
  return request.param, folder, finish(request.param, folder, workers=0)


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
@pytest.mark.parametrize('workers', [0, 2])
def test_random_kills_change_nothing(whole, config, tmp_path, workers):
  """Kill the process group at random, from its start to well into its steps; then let it end.

  Steps are counted by the output, so that a busy machine is killed at the same places.
  """
  name, uninterrupted, seconds = whole
  rng = np.random.default_rng([workers, len(name)])
  for _ in range(KILLS):
    process, output = start(name, tmp_path, workers)
    if rng.random() < EARLY:
      time.sleep(rng.uniform(0, seconds))
    else:
      await_lines(process, output, rng.integers(1, MOST_LINES))
      time.sleep(rng.uniform(0, 0.05))
    kill_group(process.pid)
    process.join(60)
    # 0: it was done before its time came; give it more steps
    assert process.exitcode == -signal.SIGKILL, output.read_text()[-2000:]
  finish(name, tmp_path, workers)
  assert same(final(config, tmp_path), final(config, uninterrupted))
  names = ('step', 'psnr', 'ssim', 'psnr_centre')
  table = lambda folder: [[row[name] for name in names] for row in rows(folder)]
  assert table(tmp_path) == table(uninterrupted)
  assert not list((tmp_path / 'checkpoints').glob('*.bad*'))


def kill_group(number):
  with contextlib.suppress(ProcessLookupError):  # it has ended, or leads no group yet
    os.kill(number, signal.SIGKILL)
    os.killpg(number, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_trainer_leaves_no_worker_behind(tmp_path):
  process = subprocess.Popen(
    [sys.executable, str(ROOT / 'main.py'), *arguments('quickstart', tmp_path, workers=2)],
    cwd=ROOT,
    env=environment(),
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while not (tmp_path / 'checkpoints').is_dir():
    assert process.poll() is None
    time.sleep(0.01)
  tasks = Path(f'/proc/{process.pid}/task').glob('*/children')
  children = [child for task in tasks for child in task.read_text().split()]
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
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
