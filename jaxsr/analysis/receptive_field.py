"""The receptive field of a program: the values that depend on one pixel.

One pixel is marked, and the program is run on marks (arrays of booleans) instead of numbers: a
value is marked if any of its operands is. Values that do not depend on the image, such as an
interpolation's weights, are computed, so that weights of zero pass no marks; parameters may have
any value.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from jaxsr.analysis.jaxpr import Instruction, Program

Marks = Any  # an array of booleans
_UNKNOWN = (  # primitives that are not elementwise and have no rule
  *('cumsum', 'cumprod', 'cummax', 'cummin', 'cumlogsumexp', 'sort', 'fft', 'gather'),
  'dynamic_update_slice',
)


def run(program: Program, marks: dict[int, Marks]) -> list[Marks]:
  """Returns the marks of a program's outputs for the marks of some of its inputs.

  Raises:
    ValueError: If a primitive has no rule.
  """
  known: dict[int, Any] = dict(program.constants)
  marked = dict(marks)
  last = {i: time for time, each in enumerate(program.instructions) for i in each.inputs}
  for time, instruction in enumerate(program.instructions):
    if any(i in marked for i in instruction.inputs):
      marked |= _mark(program, instruction, marked, known)
    elif all(i in known for i in instruction.inputs):
      found = instruction.bind(*(known[i] for i in instruction.inputs), **instruction.params)
      found = found if isinstance(found, list | tuple) else [found]
      known |= dict(zip(instruction.outputs, found, strict=True))
    for i in {*instruction.inputs} - {*program.outputs}:
      if last[i] == time:
        marked.pop(i, None)
  empty = lambda i: np.zeros(program.shapes[i].shape, bool)  # noqa: E731
  return [marked.get(i, empty(i)) for i in program.outputs]


def _mark(
  program: Program, instruction: Instruction, marked: dict[int, Marks], known: dict[int, Any]
) -> dict[int, Marks]:
  """Returns the marks of an instruction's outputs."""
  shapes = [program.shapes[i].shape for i in instruction.inputs]
  operands = [
    marked.get(i, np.zeros(shape, bool))
    for i, shape in zip(instruction.inputs, shapes, strict=True)
  ]
  output, *others = instruction.outputs
  shape, name = program.shapes[output].shape, instruction.name
  if name == 'unstack':
    parts = np.moveaxis(operands[0], instruction.params['axis'], 0)
    return dict(zip(instruction.outputs, parts, strict=True))
  if name == 'dot_general':
    weights = [_weights(i, marked, known) for i in instruction.inputs]
    found = _contract(operands, weights, instruction.params)
  elif name in _RULES:
    found = _RULES[name](operands, instruction.params | {'shape': shape})
  elif name in _UNKNOWN or others or not _broadcast_to(shapes, shape):
    raise ValueError(f'the receptive field of the primitive {name!r} is not known')
  else:
    found = np.logical_or.reduce(np.broadcast_arrays(*operands))
  return {output: found}


def _broadcast_to(shapes: Sequence[Sequence[int]], target: tuple[int, ...]) -> bool:
  """Whether an elementwise primitive can map these shapes to `target`."""
  fit = all(len(each) in (0, len(target)) for each in shapes)
  fit = fit and all(n in (1, m) for s in shapes for n, m in zip(s, target, strict=False))
  return fit and np.broadcast_shapes(*shapes) == target


def is_elementwise(name: str) -> bool:
  """Whether a primitive computes each element from the elements at the same position only."""
  return name not in ('dot_general', 'unstack', *_RULES, *_UNKNOWN)


def _weights(i: int, marked: dict[int, Marks], known: dict[int, Any]) -> np.ndarray | None:
  """Returns the elements of an operand that can be nonzero; None means all of them."""
  return np.asarray(known[i]) != 0 if i in known and i not in marked else None


def _contract(
  operands: Sequence[Marks], weights: Sequence[np.ndarray | None], params: dict[str, Any]
) -> Marks:
  """Mark the sums of a product in which a marked element is multiplied by a possible nonzero."""
  (left, right), (batch_left, batch_right) = params['dimension_numbers']
  a, groups, rows = _as_matrices(operands[0], left, batch_left)
  b, _, columns = _as_matrices(operands[1], right, batch_right)

  def reached(marks: Marks, other: np.ndarray | None, contracted: Any, batch: Any) -> Marks:
    if other is None or not marks.any():
      return marks.any(-1)[..., None]
    matrix, _, _ = _as_matrices(other, contracted, batch)
    return marks.astype(np.float32) @ matrix.swapaxes(-1, -2).astype(np.float32) > 0

  found = reached(a, weights[1], right, batch_right)
  found = found | reached(b, weights[0], left, batch_left).swapaxes(-1, -2)
  found = np.broadcast_to(found, (found.shape[0], a.shape[1], b.shape[1]))
  return found.reshape(*groups, *rows, *columns)


def _as_matrices(
  x: np.ndarray, contracted: Sequence[int], batch: Sequence[int]
) -> tuple[np.ndarray, list[int], list[int]]:
  """Returns `x` as [groups, rows, contracted], and the shapes of groups and rows."""
  rest = [i for i in range(x.ndim) if i not in (*contracted, *batch)]
  groups, rows = ([x.shape[i] for i in axes] for axes in (batch, rest))
  x = x.transpose((*batch, *rest, *contracted))
  return x.reshape(int(np.prod(groups)), int(np.prod(rows)), -1), groups, rows


def _convolve(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  x, kernel = operands
  numbers, groups = params['dimension_numbers'], params['feature_group_count']
  x = x.transpose(numbers.lhs_spec)  # images, channels, rows, columns
  x = x.reshape(x.shape[0], groups, -1, *x.shape[2:]).any(2)
  none = (1, 1)
  x = _slide(
    x,
    sizes=(1, 1, *(kernel.shape[i] for i in numbers.rhs_spec[2:])),
    strides=(*none, *params['window_strides']),
    padding=((0, 0), (0, 0), *params['padding']),
    spacing=(*none, *params['lhs_dilation']),
    dilation=(*none, *params['rhs_dilation']),
  )
  channels = kernel.shape[numbers.rhs_spec[0]]
  x = x.repeat(channels // groups, axis=1)
  return x.transpose(np.argsort(numbers.out_spec))


def _reduce_window(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  return _slide(
    operands[0],
    sizes=params['window_dimensions'],
    strides=params['window_strides'],
    padding=params['padding'],
    spacing=params['base_dilation'],
    dilation=params['window_dilation'],
  )


def _slide(
  x: Marks,
  *,
  sizes: Sequence[int],
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  spacing: Sequence[int],
  dilation: Sequence[int],
) -> Marks:
  """Mark the positions whose window contains a mark; `spacing` is the dilation of the input."""
  config = [(low, high, gap - 1) for (low, high), gap in zip(padding, spacing, strict=True)]
  x = _pad([x, np.zeros((), bool)], {'padding_config': config})
  reach = [(size - 1) * step for size, step in zip(sizes, dilation, strict=True)]
  length = [n - far for n, far in zip(x.shape, reach, strict=True)]
  found: Any = False
  for offsets in product(*map(range, sizes)):
    start = [o * d for o, d in zip(offsets, dilation, strict=True)]
    part = tuple(slice(s, s + n, k) for s, n, k in zip(start, length, strides, strict=True))
    found = found | x[part]
  return found


def _pad(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  x = operands[0]
  for axis, (low, high, gap) in enumerate(params['padding_config']):
    length = x.shape[axis] + gap * max(0, x.shape[axis] - 1)
    spaced = np.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), bool)
    spaced[(slice(None),) * axis + (slice(None, None, gap + 1),)] = x
    around = [(0, 0)] * x.ndim
    around[axis] = (max(0, low), max(0, high))
    x = np.pad(spaced, around)
    x = x.take(range(max(0, -low), x.shape[axis] - max(0, -high)), axis)
  return x


def _broadcast(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  kept = dict(zip(params['broadcast_dimensions'], operands[0].shape, strict=True))
  shape = params['shape']
  return np.broadcast_to(operands[0].reshape([kept.get(i, 1) for i in range(len(shape))]), shape)


def _slice(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  strides = params['strides'] or (1,) * operands[0].ndim
  bounds = zip(params['start_indices'], params['limit_indices'], strides, strict=True)
  return operands[0][tuple(slice(*bound) for bound in bounds)]


def _reduce(operands: Sequence[Marks], params: dict[str, Any]) -> Marks:
  return operands[0].any(tuple(params['axes']))


_RULES: dict[str, Callable[[Sequence[Marks], dict[str, Any]], Marks]] = {
  'broadcast_in_dim': _broadcast,
  'concatenate': lambda operands, params: np.concatenate(operands, params['dimension']),
  'conv_general_dilated': _convolve,
  'expand_dims': lambda operands, params: operands[0].reshape(params['shape']),
  'pad': _pad,
  'reduce_and': _reduce,
  'reduce_max': _reduce,
  'reduce_min': _reduce,
  'reduce_or': _reduce,
  'reduce_prod': _reduce,
  'reduce_sum': _reduce,
  'reduce_window_max': _reduce_window,
  'reduce_window_min': _reduce_window,
  'reduce_window_sum': _reduce_window,
  'reshape': lambda operands, params: operands[0].reshape(params['shape']),
  'rev': lambda operands, params: np.flip(operands[0], params['dimensions']),
  'slice': _slice,
  'squeeze': lambda operands, params: operands[0].reshape(params['shape']),
  'transpose': lambda operands, params: operands[0].transpose(params['permutation']),
}
