"""Kernels in fewer bits: float16, or int8 with steps in float16.

A spatial kernel has one step per pair of an input and an output channel, other kernels have one per
output channel. Weights are rounded one by one, and the following ones of the same output channel
compensate for the error, in proportion to the moments of what the layer reads (Frantar et al.,
GPTQ, ICLR 2023). If the moments are not known, the weights of a pair are rounded so that the sum of
their errors is at most half a step: neighboring pixels are alike, so that the errors nearly cancel
(Guo et al., SQuant, ICLR 2022).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr.compression.quantize import LEVELS, STEP

_OUTER = ('head', 'body', 'tail')  # the names of the convolutions around the residual blocks
_SPATIAL = 4  # taps of a kernel that has steps per pair of channels: fewer would not pay
_DAMPING = 0.01  # of the mean square of the inputs, added to each: it limits compensation
_SMALLEST_STEP = 2.0**-17  # float16 is exact enough from here on: the largest weight is 127 steps


def store(
  variables: Any, precision: str, moments: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
  """Round variables to the types that a precision stores.

  Args:
    variables: The variables of a network.
    precision: 'float32', 'float16' or 'int8'. With 'int8', the kernels of the layers around the
      residual blocks are float16.
    moments: The moments of what layers read by the path of their kernel; see `drawn.moments`.

  Returns:
    Arrays by path, and the steps of the int8 kernels by path + STEP.
  """
  found = {}
  for name, value in flatten_dict(variables, sep='/').items():
    x = np.asarray(value)
    kind = kind_of(name, precision) if x.ndim > 1 else 'float32'
    if kind == 'int8':
      spatial = is_spatial(x.shape[:-2])
      step = steps(x, tuple(range(x.ndim - (2 if spatial else 1))))
      if spatial and moments is not None and name in moments:
        found[name] = _round_in_turn(x, step, moments[name])
      else:
        found[name] = _round(x, step, spatial)
      found[name + STEP] = step.astype(np.float16)
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


def _round_in_turn(x: np.ndarray, step: np.ndarray, moment: np.ndarray) -> np.ndarray:
  """Round a kernel [h, w, in, out] to int8 so that the layer's output changes little.

  The largest weight of each pair of channels stays LEVELS steps, from which `steps` finds the step;
  not if all weights of the pair are so small that they have the smallest step.

  Args:
    x: The kernel.
    step: Its steps [1, 1, in, out].
    moment: The moments [k, k] of what it is multiplied with, with k = in * h * w.
  """
  rows = x.transpose(2, 0, 1, 3)  # [in, h, w, out]
  taps = math.prod(x.shape[:2])
  weights = rows.reshape(-1, x.shape[-1]).astype(np.float64)
  scale = np.repeat(step[0, 0].astype(np.float64), taps, axis=0)
  pairs = np.abs(weights).reshape(-1, taps, x.shape[-1])
  is_largest = np.arange(taps)[None, :, None] == pairs.argmax(1, keepdims=True)
  is_kept = is_largest.reshape(weights.shape) & (scale > _SMALLEST_STEP)
  k = len(weights)
  damped = moment + _DAMPING * np.trace(moment) / k * np.eye(k)
  factor = np.linalg.cholesky(np.linalg.inv(damped)).T
  ends, found = LEVELS * np.sign(weights), np.zeros_like(weights)
  for i in range(k):
    rounded = np.clip(np.rint(weights[i] / scale[i]), -LEVELS, LEVELS)
    found[i] = np.where(is_kept[i], ends[i], rounded)
    error = (weights[i] - found[i] * scale[i]) / factor[i, i]
    weights[i + 1 :] -= np.outer(factor[i, i + 1 :], error)
  return found.reshape(rows.shape).transpose(1, 2, 0, 3).astype(np.int8)
