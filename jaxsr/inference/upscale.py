"""Whole images, enlarged at once, partitioned spatially: their rows are divided among devices."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.typing import ArrayLike

from jaxsr import sharding
from jaxsr.inference.predict import make_predict
from jaxsr.metrics import quantise
from jaxsr.models import count_parameters

_LEAST = 32  # rows of low resolution that each device has
_SMALL = 100_000  # parameters, below which devices wait for as long as they gain


def make_enlarge(
  network: nn.Module, *, ensemble: bool = False, devices: Sequence[Any] = ()
) -> Callable[[Any, ArrayLike, ArrayLike], jax.Array]:
  """Build what enlarges images [b, h, w, c] in [0, 1], given variables and the levels they have.

  What comes out is rounded to the levels. `ensemble` is that of `make_predict`. Rows are divided
  among as many of the devices as can have the same number of them, 32 or more, to which variables
  are copied once. With fewer than two, or a small network, all is computed where the variables are.
  """
  predict = make_predict(network, ensemble=ensemble)
  compute = jax.jit(lambda variables, lr, levels: quantise(predict(variables, lr), levels))
  devices = devices if getattr(network, 'DIVISIBLE', True) else ()
  copies: dict[int, Any] = {}  # of the last variables, by how many devices have them

  def enlarge(variables: Any, lr: Any, levels: ArrayLike) -> jax.Array:
    if copies.get(0) is not variables:
      copies.clear()
      copies[0] = variables
    count = parts(lr.shape[1], len(devices))
    if count == 1 or count_parameters(variables) < _SMALL:
      return compute(variables, lr, levels)
    mesh = sharding.make_rows(devices[:count])
    if count not in copies:
      copies[count] = jax.device_put(variables, sharding.replicated(mesh))
    with jax.set_mesh(mesh):
      return compute(copies[count], jax.device_put(lr, sharding.by_rows(mesh)), levels)

  return enlarge


def parts(rows: int, devices: int) -> int:
  """Tell among how many devices an image's rows are divided."""
  fit = (n for n in range(devices, 1, -1) if rows % n == 0 and rows // n >= _LEAST)
  return next(fit, 1)
