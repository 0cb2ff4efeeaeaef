"""What several tests ask of a run's folder."""

import csv

import jax
import numpy as np

from jaxsr import sharding
from jaxsr.checkpoint import Checkpoints
from jaxsr.experiment import assemble


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
