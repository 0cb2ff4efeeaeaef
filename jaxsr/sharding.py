"""The only file that makes a mesh, of one axis: `data`, along which a batch is split, or `rows`.

What is trained is on all devices.
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
  """Lay `devices` devices (0: all, of all processes) along the axis `data`.

  The axis is Auto: under JAX's default, Explicit, pixel shuffle cannot reshape.
  """
  known = jax.devices()
  if devices > len(known):
    raise UserError(f'config.devices={devices}: there are {len(known)}')
  if devices and jax.process_count() > 1:
    raise UserError(f'config.devices={devices}: several hosts take all their devices, give 0')
  chosen = known[: devices or None]
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def make_rows(devices: Sequence[Any]) -> Mesh:
  """Lay devices along the axis over which the rows of an image are divided."""
  kinds = (AxisType.Auto,)
  return jax.make_mesh((len(devices),), (halo.AXIS,), axis_types=kinds, devices=devices)


def by_rows(mesh: Mesh) -> NamedSharding:
  """Divide the rows of images [b, h, w, c]."""
  return NamedSharding(mesh, P(None, halo.AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Keep a whole copy on each device."""
  return NamedSharding(mesh, P())


def split(mesh: Mesh) -> NamedSharding:
  """Split the first axis over the devices."""
  return NamedSharding(mesh, P('data'))


def check_batch(batch_size: int, mesh: Mesh) -> None:
  """Raise UserError where a batch cannot be split evenly."""
  if batch_size % mesh.size:
    raise UserError(
      f'batch_size {batch_size} cannot be split over {mesh.size} devices: make it a multiple, '
      'or set config.devices'
    )


def put(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Send this process's share of a batch to its devices, without waiting."""
  sharding = split(mesh)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def put_everywhere(arrays: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Send a whole copy, which every process has, to each device."""
  sharding = replicated(mesh)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in arrays.items()}


def wait_for_all(what: str) -> None:
  """Wait until every host has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
