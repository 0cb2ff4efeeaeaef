"""Spatial partitioning: the rows of images are sharded over devices, which exchange halos.

XLA partitions all other operations by itself. It could partition the CPU convolutions, too, but
would send full images for their slices and stacks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

Pads = Sequence[tuple[int, int]]  # rows before and after, columns before and after
AXIS = 'rows'  # mesh axis along which the rows are sharded; set by `jax.set_mesh`


def parts() -> int:
  """Returns the number of devices over which rows are sharded in the current mesh."""
  return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def divide(
  convolve: Callable[[Array, Array, Pads], Array], x: Array, kernel: Array, pads: Pads
) -> Array:
  """Convolve images [b, h, w, c]: each device computes its rows, with a halo from its neighbors.

  The size of the halo is the padding of the rows. The first and the last device receive nothing at
  the border, which `ppermute` fills with zeros. The output must have as many rows as the input, and
  each device the same number.
  """
  last = parts() - 1
  (above, below), columns = pads

  def one(x: Array, kernel: Array) -> Array:
    seen = [x]
    if above:
      down = [(i, i + 1) for i in range(last)]
      seen.insert(0, lax.ppermute(x[:, -above:], AXIS, down))
    if below:
      up = [(i + 1, i) for i in range(last)]
      seen.append(lax.ppermute(x[:, :below], AXIS, up))
    return convolve(jnp.concatenate(seen, axis=1), kernel, ((0, 0), columns))

  rows = P(None, AXIS)
  return jax.shard_map(one, in_specs=(rows, P()), out_specs=rows, check_vma=False)(x, kernel)


def divides(x: Array, kernel: Array, pads: Pads) -> bool:
  """Whether `divide` supports these shapes."""
  even = x.shape[1] % parts() == 0 and sum(pads[0]) == kernel.shape[0] - 1
  return even and max(pads[0]) <= x.shape[1] // parts()


def interpolate(compute: Callable[[Array], Array], x: Array) -> Array:
  """Interpolate images: each device computes its rows of the result from the full image.

  Otherwise XLA would sum the contributions of each device's rows to the full result, and replicate
  it.
  """
  if parts() == 1 or x.shape[1] % parts():
    return compute(x)
  y = compute(lax.with_sharding_constraint(x, P()))
  return lax.with_sharding_constraint(y, P(None, AXIS)) if y.shape[1] % parts() == 0 else y


def apart(compute: Callable[..., Array], images: Any, *replicated: Any) -> Array:
  """Map `compute` over shards of `images` that are independent of each other."""
  if parts() == 1:
    return compute(images, *replicated)
  specs = (P(AXIS), *(P() for _ in replicated))
  mapped = jax.shard_map(compute, in_specs=specs, out_specs=P(AXIS), check_vma=False)
  return mapped(images, *replicated)
