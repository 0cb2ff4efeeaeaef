"""What several tests ask of a run's folder."""

import csv

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import config as configs
from jaxsr import models, package, sharding
from jaxsr.checkpoint import Checkpoints
from jaxsr.experiment import assemble


def four_steps(config):
  """Shrink an experiment to four steps on the smallest phantoms."""
  config = configs.smoke(config)
  config.steps, config.log, config.eval, config.save = 4, 1, 2, 2
  config.optimizer.warmup = 1
  config.data.update(val_count=1, patch=8, margin=2, by_error=0.5)
  config.data.phantom.update(size=128, count=2, val_count=1)
  return config


def run(config, batch, *, devices=1, steps=1):
  """Take steps on one batch; return the last state and the scalars of each."""
  mesh = sharding.make_mesh(devices)
  built = assemble(config, mesh)
  state, found = built.init(), []
  for number in range(steps):
    state, scalars = built.step(number, state, sharding.put(batch, mesh))
    found.append(jax.device_get(scalars))
  return jax.device_get(state), found


def final(config, folder):
  """Restore the last state of a run."""
  run = assemble(config, sharding.make_mesh(config.devices))
  return jax.device_get(Checkpoints(folder / 'checkpoints').restore(run.shapes))


def same(a, b):
  """Compare two states to the bit."""
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def rows(folder):
  """Read metrics.csv."""
  with (folder / 'metrics.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def variables_of(network, seed=0):
  """Draw a network's variables, none of them at its first value."""
  lr = jnp.zeros((1, 16, 16, network.channels))
  found = jax.jit(lambda key: network.init(key, lr, train=False))(jax.random.key(seed))
  rng = np.random.default_rng(seed)
  move = lambda x: np.asarray(x) + 0.05 * rng.standard_normal(x.shape).astype(np.float32)
  kept = {
    name: jax.tree.map(move, found[name]) for name in ('params', 'batch_stats') if name in found
  }
  if 'batch_stats' in kept:  # of which half are variances
    kept['batch_stats'] = jax.tree.map(np.abs, kept['batch_stats'])
  return kept


def pack(folder, model, *, int8=False, **sections):
  """Pack a network that knows nothing; return the folder."""
  config = {'model': model, 'scale': 4, 'channels': 1, 'precision': 'float32', **sections}
  options = {k: v for k, v in model.items() if k != 'name'}
  variables = variables_of(models.build(model['name'], options, scale=4))
  made = package.Package(config, {'step': 1})
  package.write(folder, variables, made, metrics={}, card='{hashes}', int8=int8)
  return folder
