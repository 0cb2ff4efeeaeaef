"""Device meshes and shardings.

Training splits batches over the axis `data` and keeps parameters on all devices. Inference splits
the rows of an image over the axis of `jaxsr.ops.cpu.halo`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsr.errors import UserError
from jaxsr.ops.cpu import halo


def make_mesh(devices: int = 0) -> Mesh:
  """Returns a mesh of `devices` devices (0: all devices of all processes) along the axis `data`.

  The axis is Auto: with JAX's default, Explicit, the reshape in pixel shuffle fails.
  """
  known = jax.devices()
  if devices > len(known):
    raise UserError(f'config.devices={devices}: found {len(known)}; set 0 to use all')
  if devices and jax.process_count() > 1:
    raise UserError(f'config.devices={devices}: several hosts use all their devices; set 0')
  chosen = known[: devices or None]
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def make_rows(devices: Sequence[Any]) -> Mesh:
  """Returns a mesh of devices along the axis that the rows of an image are split over."""
  kinds = (AxisType.Auto,)
  return jax.make_mesh((len(devices),), (halo.AXIS,), axis_types=kinds, devices=devices)


def by_rows(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the rows of images [b, h, w, c]."""
  return NamedSharding(mesh, P(None, halo.AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that keeps a full copy on each device."""
  return NamedSharding(mesh, P())


def split(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first axis."""
  return NamedSharding(mesh, P('data'))


def check_batch(batch_size: int, mesh: Mesh) -> None:
  """Raise UserError if a batch cannot be split evenly."""
  if batch_size % mesh.size:
    raise UserError(
      f'batch_size {batch_size} cannot be split over {mesh.size} devices: choose a multiple, '
      'or set config.devices'
    )


def put(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Send this process's share of a batch to its devices, without waiting."""
  sharding = split(mesh)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def put_everywhere(arrays: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Copy arrays, which every process holds in full, to each device."""
  sharding = replicated(mesh)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in arrays.items()}


def wait_for_all(what: str) -> None:
  """Wait until every host has reached this call; `what` names it in errors."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
