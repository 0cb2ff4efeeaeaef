"""Upscale single images on all devices of this process, large ones in tiles."""

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, UInt

from jaxsr import sharding
from jaxsr.inference import agreement, tiling
from jaxsr.inference.agreement import Reduction
from jaxsr.inference.upscale import make_upscale

if TYPE_CHECKING:
  from jaxsr.inference.model import Model


def make_upscaler(
  model: 'Model', ensemble: bool, tile: int, reduction: Reduction | None
) -> Callable[..., np.ndarray]:
  """Build the function that upscales a uint8 or uint16 image to floats in [0, 1].

  Its arguments are the image, its white, and for agreement within noise the width of that.

  The rows of an image are divided among the devices of this process. Images with a side of more
  than `tile` low-resolution pixels are upscaled in tiles, one per device at a time, if the
  network's receptive field is bounded. Threads that call the function take turns.
  """
  network = model.network
  options: dict[str, Any] = {'ensemble': ensemble, 'reduction': reduction, 'rounded': False}
  full = make_upscale(network, devices=jax.local_devices(), **options)
  tiled = make_upscale(network, **options)
  mesh = sharding.make_mesh()
  replicated = sharding.replicated(mesh)
  variables = functools.cache(lambda: jax.device_put(model.variables, replicated))
  margin_of = functools.cache(lambda: tiling.margin(network))  # tracing takes seconds
  turn = threading.Lock()

  def compute(lr: np.ndarray, levels: np.float32, width: np.float32) -> np.ndarray:
    margin = margin_of() if max(lr.shape) > tile else None
    if margin is None:
      found = full(model.variables, lr[None], levels, width)
      return np.asarray(found)[0]  # JAX would compile `[0]`
    return tiling.upscale(
      lambda images: tiled(variables(), sharding.put({'lr': images}, mesh)['lr'], levels, width),
      lr,
      scale=model.scale,
      side=tile,
      margin=margin if reduction is None else max(margin, agreement.MARGIN),
      multiple=network.tile_multiple or 1,
      batch_size=mesh.size,
    )

  def upscale(
    image: UInt[np.ndarray, 'h w c'], white: int, width: float = 0.0
  ) -> Float[np.ndarray, 'sh sw c']:
    levels = np.float32(white)
    lr: Float[np.ndarray, 'h w c'] = image.astype(np.float32) / levels
    with turn:
      return compute(lr, levels, np.float32(width))

  return upscale
