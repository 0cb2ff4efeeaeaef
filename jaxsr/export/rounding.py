"""Kernels in fewer bits: float16, or int8 with steps in float16.

A spatial kernel has one step per pair of an input and an output channel, other kernels have one per
output channel. The weights of a pair are rounded so that the sum of their errors is at most half a
step: neighboring pixels are alike, so that the errors nearly cancel (Guo et al., SQuant, ICLR
2022). On calibration films, `edsr_x4_small` changes 1.0 % of the pixels by up to 2 gray levels;
with steps per output channel and each weight rounded to the nearest it is 2.7 %, by up to 4.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr.compression.quantize import LEVELS, STEP

_OUTER = ('head', 'body', 'tail')  # the names of the convolutions around the residual blocks
_SPATIAL = 4  # taps of a kernel that has steps per pair of channels: fewer would not pay
_SMALLEST_STEP = 2.0**-17  # float16 is exact enough from here on: the largest weight is 127 steps


def round_weights(variables: Any, precision: str) -> Any:
  """Returns variables whose kernels are rounded to the values of a precision."""
  return variables if precision == 'float32' else restore(store(variables, precision))


def store(variables: Any, precision: str) -> dict[str, np.ndarray]:
  """Returns variables by path in the types that a precision stores; the names of steps end in STEP.

  With 'int8', the kernels of the layers around the residual blocks are float16.
  """
  found = {}
  for name, value in flatten_dict(variables, sep='/').items():
    x = np.asarray(value)
    kind = kind_of(name, precision) if x.ndim > 1 else 'float32'
    if kind == 'int8':
      spatial = is_spatial(x.shape[:-2])
      step = steps(x, tuple(range(x.ndim - (2 if spatial else 1))))
      found[name], found[name + STEP] = _round(x, step, spatial), step.astype(np.float16)
    else:
      found[name] = x.astype(kind)
  return found


def restore(stored: Mapping[str, np.ndarray]) -> Any:
  """Returns variables in float32, in the computation that is traced if there is one."""
  found = {}
  for name, x in stored.items():
    if not name.endswith(STEP):
      full, step = jnp.asarray(x).astype(jnp.float32), stored.get(name + STEP)
      found[name] = full if step is None else full * jnp.asarray(step).astype(jnp.float32)
  return unflatten_dict(found, sep='/')


def kind_of(name: str, precision: str) -> str:
  """Returns the type that a kernel is stored in, by its path.

  Rounding the layers around the residual blocks to int8 costs most and saves little.
  """
  is_outer = len(name.split('/')) > 1 and name.split('/')[-2] in _OUTER
  return 'float16' if precision == 'int8' and is_outer else precision


def is_spatial(taps: tuple[int, ...]) -> bool:
  """Whether a kernel with these spatial axes has steps per pair of channels."""
  return len(taps) == 2 and taps[0] * taps[1] >= _SPATIAL


def steps(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
  """Returns the steps of a kernel, equal along axes of length 1; those of a rounded one again."""
  peak = np.abs(x).max(axis=axes, keepdims=True)
  return np.maximum((peak / LEVELS).astype(np.float16).astype(np.float32), _SMALLEST_STEP)


def _round(x: np.ndarray, step: np.ndarray, spatial: bool) -> np.ndarray:
  """Round a kernel [..., in, out] to int8."""
  ratio = (x / step).reshape(-1, *x.shape[-2:]) if spatial else x / step
  found = np.clip(np.rint(ratio), -LEVELS, LEVELS)
  if spatial:
    error = ratio - found
    more = np.rint(error.sum(axis=0))  # steps by which the sum of the weights is off
    gain = np.where(np.abs(found) < LEVELS, error * np.sign(more), -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=0), axis=0)
    found += np.sign(more) * (rank < np.abs(more))
  return found.reshape(x.shape).astype(np.int8)
