"""Helpers for tests that train: configs, steps and run folders."""

import csv
import os
import signal
import sys
import threading

import jax
import numpy as np

from jaxsr import cli, models, sharding
from jaxsr import config as configs
from jaxsr.checkpoint import Checkpoints
from jaxsr.inference import package
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.setup import assemble
from jaxsr.training.train import train


def four_steps(config):
  """Returns an experiment's config reduced to four steps on the smallest phantoms."""
  config = configs.smoke(config)
  config.steps, config.log, config.eval, config.save = 4, 1, 2, 2
  config.optimizer.warmup = 1
  config.data.update(val_count=1, patch=8, margin=2, by_error=0.5)
  config.data.phantom.update(size=128, count=2, val_count=1)
  return config


def run(config, batch, *, devices=1, steps=1):
  """Take steps on one batch; returns the last state and the scalars of each step."""
  mesh = sharding.make_mesh(devices)
  built = assemble(config, mesh)
  take = CompiledSteps(built)
  state, found = built.init(), []
  for number in range(steps):
    state, scalars = take(number, state, sharding.put(batch, mesh))
    found.append(jax.device_get(scalars))
  return jax.device_get(state), found


def final(config, folder):
  """Restore the last state of a run."""
  run = assemble(config, sharding.make_mesh(config.devices))
  return jax.device_get(Checkpoints(folder / 'checkpoints').restore(run.shapes))


def same(a, b):
  """Whether two states are equal to the bit."""
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def rows(folder):
  """Returns the rows of metrics.csv."""
  with (folder / 'metrics.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def environment(**variables):
  """Returns the environment of a process with one CPU device and the flags of the tests."""
  flags = [f for f in os.environ.get('XLA_FLAGS', '').split() if 'device_count' not in f]
  return {**os.environ, 'XLA_FLAGS': ' '.join(flags), **variables}


def run_command(arguments, output, variables):
  """Run the console command in this process, which was forked for it; the output goes to a file."""
  os.setsid()
  os.environ.clear()
  os.environ.update(variables)
  file = os.open(output, os.O_WRONLY | os.O_APPEND)
  for number in (1, 2):
    os.dup2(file, number)
  sys.stdout, sys.stderr = (os.fdopen(number, 'w', 1) for number in (1, 2))
  sys.argv = ['jaxsr', *arguments]
  cli.main()


def variables_of(network, seed=0):
  """Draw a network's variables at random, without running it."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    noise = rng.standard_normal(x.shape).astype(np.float32)
    if x.ndim > 1:
      return noise / np.float32(np.sqrt(np.prod(x.shape[:-1])))
    around = {'scale': 1.0, 'var': 1.0, 'negative_slope': 0.25}.get(path[-1].key, 0.0)
    return np.asarray(around + 0.1 * noise, np.float32)

  return jax.tree_util.tree_map_with_path(draw, models.shapes(network))


def pack(folder, model, *, int8=False, **sections):
  """Write a package of an untrained network; returns its folder."""
  config = {'model': model, 'scale': 4, 'channels': 1, 'precision': 'float32', **sections}
  options = {k: v for k, v in model.items() if k != 'name'}
  variables = variables_of(models.build(model['name'], options, scale=4))
  made = package.Package(config, {'step': 1})
  package.write(folder, variables, made, metrics={}, card='{hashes}', int8=int8)
  return folder


def stop_at(config, folder, *, step):
  """Train, and send SIGTERM once a step is on disk."""
  pid, over = os.getpid(), threading.Event()

  def watch():
    while not (folder / 'checkpoints' / str(step)).is_dir():
      if over.wait(0.01):
        return
    os.kill(pid, signal.SIGTERM)

  original = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  thread = threading.Thread(target=watch)
  thread.start()
  try:
    return train(config, folder)
  finally:
    over.set()
    thread.join()
    signal.signal(signal.SIGTERM, original)
