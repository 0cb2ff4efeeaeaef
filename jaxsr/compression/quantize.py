"""Weights in eight bits: a fourth of the size.

Kernels are rounded to 255 levels around zero, with a step of its own for each place of the last
axis, which is the output channel; vectors stay float32. What is computed with is floats again.
"""

from collections.abc import Mapping

import numpy as np

LEVELS = 127
STEP = ':step'  # what the name of a kernel's steps ends in

Tensors = dict[str, np.ndarray]


def quantize(tensors: Mapping[str, np.ndarray]) -> Tensors:
  """Round the kernels among named float tensors to int8, with their steps beside them."""
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
  """Turn what was rounded into floats; other tensors stay as they are."""
  found = {}
  for name, x in tensors.items():
    if not name.endswith(STEP):
      step = tensors.get(name + STEP)
      found[name] = x if step is None else x.astype(np.float32) * step
  return found
