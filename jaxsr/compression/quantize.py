"""Weights in eight bits, a fourth of the size.

Kernels are rounded to 255 levels around zero, with one step size per output channel (the last
axis); vectors stay float32. Weights are converted back to float32 before they are used.
"""

from collections.abc import Mapping

import numpy as np

LEVELS = 127
STEP = ':step'  # suffix of the name under which the step sizes of a kernel are stored

Tensors = dict[str, np.ndarray]


def quantize(tensors: Mapping[str, np.ndarray]) -> Tensors:
  """Round the kernels among named float32 tensors to int8; returns their step sizes as well."""
  found: Tensors = {}
  for name, x in tensors.items():
    if x.ndim < 2:
      found[name] = x
      continue
    peak = np.abs(x).max(axis=tuple(range(x.ndim - 1)))
    step = np.where(peak > 0, peak / LEVELS, 1.0).astype(np.float32)
    found[name] = np.rint(x / step).astype(np.int8)
    found[name + STEP] = step
  return found


def restore(tensors: Mapping[str, np.ndarray]) -> Tensors:
  """Convert rounded tensors back to float32; other tensors stay unchanged."""
  found = {}
  for name, x in tensors.items():
    if not name.endswith(STEP):
      step = tensors.get(name + STEP)
      found[name] = x if step is None else x.astype(np.float32) * step
  return found
