"""Spatial partitioning: images whose rows lie on several devices, which exchange halos.

XLA divides everything else by itself. It would divide the ways in which CPUs convolve, too, but
sends whole images for what they cut and stack.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

Pads = Sequence[tuple[int, int]]  # rows before and after, columns before and after
AXIS = 'rows'  # of the mesh; `jax.set_mesh` says that images are divided along it


def parts() -> int:
  """Tell among how many devices the rows of images are divided where this is traced."""
  return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def divide(
  convolve: Callable[[Array, Array, Pads], Array], x: Array, kernel: Array, pads: Pads
) -> Array:
  """Convolve images [b, h, w, c]: each device its rows, with a halo of its neighbours'.

  The halo is as many rows as `pads` says. Nothing is sent to the first and the last, which is their
  zeros. There must be as many rows after as before, the same number on each device.
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
  """Tell whether `divide` can."""
  even = x.shape[1] % parts() == 0 and sum(pads[0]) == kernel.shape[0] - 1
  return even and max(pads[0]) <= x.shape[1] // parts()


def interpolate(compute: Callable[[Array], Array], x: Array) -> Array:
  """Interpolate images, each device the rows that it will have, from the whole.

  XLA alone would add up what every device's rows give all of the result, and leave it whole.
  """
  if parts() == 1 or x.shape[1] % parts():
    return compute(x)
  y = compute(lax.with_sharding_constraint(x, P()))
  return lax.with_sharding_constraint(y, P(None, AXIS)) if y.shape[1] % parts() == 0 else y


def apart(compute: Callable[..., Array], images: Any, *whole: Any) -> Array:
  """Compute for each device what depends on none of the others', where there are several."""
  if parts() == 1:
    return compute(images, *whole)
  specs = (P(AXIS), *(P() for _ in whole))
  return jax.shard_map(compute, in_specs=specs, out_specs=P(AXIS), check_vma=False)(images, *whole)
