"""Upscale full images on several devices by spatial partitioning: each computes some rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsr import sharding
from jaxsr.data.batch import quantize
from jaxsr.inference import agreement
from jaxsr.inference.agreement import Reduction
from jaxsr.inference.predict import make_predict
from jaxsr.models import Network, count_parameters

_MIN_ROWS = 32  # low-resolution rows per device
_MIN_PARAMETERS = 100_000  # smaller networks lose as much time to communication as they gain


def make_upscale(
  network: Network,
  *,
  ensemble: bool = False,
  devices: Sequence[Any] = (),
  reduction: Reduction | None = None,
  rounded: bool = True,
) -> Callable[..., jax.Array]:
  """Build a compiled function that upscales images and rounds them to gray levels.

  Args:
    network: the Flax module.
    ensemble: average over flips and quarter turns, as in `make_predict`.
    devices: devices that rows are divided among, as many as can get the same number of rows, 32 or
      more. Variables are copied to them once. With fewer than two, or a small network, everything
      is computed on the device of the variables.
    reduction: how the images were made. Results are projected, so that this reduction of them is
      within 0.2 gray levels of the images; None does not.
    rounded: round the results to gray levels.

  Returns:
    A function of variables, images [b, h, w, c] in [0, 1], the largest level (255 or 65535) and how
    far from the images their reduction may be in any case, in levels (default 0). It returns images
    [b, scale * h, scale * w, c] in [0, 1].
  """
  predict = make_predict(network, ensemble=ensemble)

  @jax.jit
  def compute(variables: Any, lr: Any, levels: Any, width: Any) -> jax.Array:
    sr = predict(variables, lr)
    if reduction is not None:
      sr = agreement.project(sr, lr, levels, reduction, width=width)
    return quantize(sr, levels) if rounded else jnp.clip(sr, 0.0, 1.0)

  devices = devices if network.row_shardable else ()
  copies: dict[int, Any] = {}  # of the last variables, by the number of devices

  def upscale(variables: Any, lr: Any, levels: ArrayLike, width: ArrayLike = 0.0) -> jax.Array:
    if copies.get(0) is not variables:
      copies.clear()
      copies[0] = variables
    count = partitions(lr.shape[1], len(devices))
    if count == 1 or count_parameters(variables) < _MIN_PARAMETERS:
      return compute(variables, lr, levels, width)
    mesh = sharding.make_rows(devices[:count])
    if count not in copies:
      copies[count] = jax.device_put(variables, sharding.replicated(mesh))
    with jax.set_mesh(mesh):
      return compute(copies[count], jax.device_put(lr, sharding.by_rows(mesh)), levels, width)

  return upscale


def partitions(rows: int, devices: int) -> int:
  """Returns the number of devices that an image's rows are divided among."""
  fit = (n for n in range(devices, 1, -1) if rows % n == 0 and rows // n >= _MIN_ROWS)
  return next(fit, 1)
