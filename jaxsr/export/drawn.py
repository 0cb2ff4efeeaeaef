"""The error that rounded weights cause, measured on drawn images.

Phantoms stand for radiographs. Noise and rectangles of few grays stand for letters and the borders
of devices, where a rounded network differs most.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr.compression.quantize import STEP
from jaxsr.data.phantom import phantom
from jaxsr.export import rounding

_SIDE = 64  # pixels of an image
_EACH = 2  # images of each kind
_SHARE = 0.05  # of the moments of noise and of rectangles, beside those of the phantoms
_RECTANGLES = 150  # in an image
_LONGEST = 8  # pixels of a rectangle
_LIMIT = 2.0  # gray levels by which 'int8' may change a pixel
_ROUNDS = 16  # in which layers are added to those that stay float16
_WHITE = 255


def store(network: Any, variables: Any, precision: str) -> dict[str, np.ndarray]:
  """Round variables; with 'int8', layers that change drawn images too much stay float16.

  Args:
    network: The network, with float32 computation.
    variables: Its variables.
    precision: 'float32', 'float16' or 'int8'.

  Returns:
    What `rounding.store` returns. With 'int8', no pixel of the drawn images changes by more than
    two of 255 gray levels, unless float16 changes one by more.
  """
  if precision != 'int8':
    return rounding.store(variables, precision)
  stored = rounding.store(variables, precision, moments(network, variables))
  full = flatten_dict(variables, sep='/')
  apply = jax.jit(lambda lr, x: jnp.clip(network.apply(x, lr, train=False), 0, 1))
  films = [lr[None] for _, kind in images(network.channels) for lr in kind]
  expected = [apply(lr, variables) for lr in films]
  order: list[str] | None = None
  while True:
    rounded = rounding.restore(stored)
    off = [abs(apply(lr, rounded) - sr).max() for lr, sr in zip(films, expected, strict=True)]
    if not _WHITE * max(off) > _LIMIT:
      return stored
    if order is None:
      worst = films[int(np.argmax(off))]
      order = _by_effect(partial(apply, worst), variables, stored)
      at_once = -(-len(order) // _ROUNDS)
    if not order:
      return stored
    for name in order[:at_once]:
      del stored[name + STEP]
      stored[name] = np.asarray(full[name]).astype(np.float16)
    order = order[at_once:]


def _by_effect(apply: Any, variables: Any, stored: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the int8 kernels, those that change an image most when only they are rounded first."""
  full, expected = flatten_dict(variables, sep='/'), apply(variables)
  rounded = flatten_dict(rounding.restore(stored), sep='/')
  names = [name for name in stored if name + STEP in stored]
  alone = lambda name: apply(unflatten_dict({**full, name: rounded[name]}, sep='/'))  # noqa: E731
  effect = {name: float(np.square(alone(name) - expected).sum()) for name in names}
  return sorted(names, key=lambda name: -effect[name])


def moments(network: Any, variables: Any) -> dict[str, np.ndarray]:
  """Compute the mean outer products of the patches that convolutions multiply with their kernels.

  Returns:
    By the path of the kernel, as in 'params/block_0/conv/kernel', an array [k, k] with
    k = input channels * height * width of the kernel, in this order. Convolutions with groups,
    strides or dilation are left out, as are those that read only zeros or what is not finite.
  """
  full: Any = flatten_dict(variables, sep='/')
  found: dict[str, np.ndarray] = {}

  def record(share: float, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    conv = context.module
    name = '/'.join(('params', *conv.path, 'kernel'))
    if isinstance(conv, nn.Conv) and _is_plain(conv, full[name].shape):
      patches = _patches(np.asarray(args[0], np.float32), full[name].shape[:2])
      moment = patches.T @ patches * np.float32(share / len(patches))
      found[name] = found[name] + moment if name in found else moment
    return call(*args, **kwargs)

  for share, lr in images(network.channels):
    with nn.intercept_methods(partial(record, share)):
      network.apply(variables, jnp.asarray(lr), train=False)
  return {name: x for name, x in found.items() if 0 < np.trace(x) < np.inf}


def images(channels: int) -> list[tuple[float, np.ndarray]]:
  """Returns images [b, h, w, c] of each kind with their share."""
  rng = np.random.default_rng(0)
  shape = (_EACH, _SIDE, _SIDE, 1)
  films = np.stack([phantom(0, i, size=128)[::2, ::2, None] for i in range(_EACH)])
  rectangles = np.zeros(shape, np.float32)
  for image in rectangles:
    for _ in range(_RECTANGLES):
      (top, left), (h, w) = rng.integers(0, _SIDE, 2), rng.integers(1, _LONGEST + 1, 2)
      image[top : top + h, left : left + w] = rng.choice([0, 1, rng.uniform()])
  kinds = (1.0, films / np.float32(255)), (_SHARE, rng.uniform(size=shape)), (_SHARE, rectangles)
  return [(share, np.repeat(x, channels, axis=-1).astype(np.float32)) for share, x in kinds]


def _is_plain(conv: nn.Conv, shape: tuple[int, ...]) -> bool:
  """Whether each output pixel is a sum over the pixels around it, of all channels."""
  whole = conv.strides in (None, 1, (1, 1)) and conv.kernel_dilation in (None, 1, (1, 1))
  odd = len(shape) == 4 and all(n % 2 for n in shape[:2])
  return whole and odd and conv.feature_group_count == 1 and conv.padding == 'SAME'


def _patches(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """Returns the patches of images [b, h, w, c] around every second pixel, as [n, c * h * w]."""
  pads = [(n // 2, n // 2) for n in size]
  padded = np.pad(x, [(0, 0), *pads, (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))[:, ::2, ::2]
  return windows.reshape(-1, x.shape[-1] * size[0] * size[1])
