"""How each operation of a trace carries the labels of channels from its inputs to its results."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsr.analysis.jaxpr import Instruction
from jaxsr.compression.channel_labels import Axes, Axis, Labels


def follow(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  """Returns the axes of the results of an operation."""
  if not any(axis for axes in inputs for axis in axes) or any(0 in shape for shape in results):
    return [(None,) * len(shape) for shape in results]
  if what.name in RULES:
    return RULES[what.name](known, what, inputs, sizes, results)
  if what.name.startswith('reduce_window'):
    return _pad(known, what, inputs, sizes, results)
  if what.name.startswith(('reduce_', 'arg')):
    return [tuple(x for a, x in enumerate(inputs[0]) if a not in what.params['axes'])]
  if what.name == 'gather':  # the position biases of attention; its channels end here
    return [(None,) * len(shape) for shape in results]
  return [_together(known, what, inputs, sizes, shape) for shape in results]


def _together(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], shape: Any
) -> Axes:
  """Follow an elementwise operation."""
  columns: list[list[Axis | None]] = [[] for _ in shape]
  for axes, size in zip(inputs, sizes, strict=True):
    if not any(axes):
      continue
    if len(size) != len(shape) or any(n not in (1, m) for n, m in zip(size, shape, strict=True)):
      raise ValueError(f'channels cannot be followed through {what.name}')
    for column, axis, n, m in zip(columns, axes, size, shape, strict=True):
      column.append(axis if n == m else None)
  return tuple(map(known.unite, columns))


def _convolve(known: Labels, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
  numbers, groups = what.params['dimension_numbers'], what.params['feature_group_count']
  image, kernel = inputs
  batch, features, *places = numbers.lhs_spec
  made, summed = numbers.rhs_spec[:2]
  if groups == 1:
    known.record_sum(image[features], kernel[summed])
  else:
    axis = kernel[summed]
    if axis and len(axis.labels) > 1:
      raise ValueError('channels cannot be followed through a convolution in groups')
    known.unite((image[features], kernel[made]))
  result: list[Axis | None] = [None] * len(image)
  spec = numbers.out_spec
  result[spec[0]], result[spec[1]] = image[batch], known.produce(kernel[made])
  for there, here in zip(spec[2:], places, strict=True):
    result[there] = image[here]
  return [tuple(result)]


def _contract(known: Labels, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
  summed, batch = what.params['dimension_numbers']
  for one, other in zip(*summed, strict=True):
    known.record_sum(inputs[0][one], inputs[1][other])
  result = [known.unite((inputs[0][a], inputs[1][b])) for a, b in zip(*batch, strict=True)]
  for side, axes in enumerate(inputs):
    gone = (*summed[side], *batch[side])
    result += [known.produce(axis) for a, axis in enumerate(axes) if a not in gone]
  return [tuple(result)]


def _broadcast(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  result: list[Axis | None] = [None] * len(results[0])
  for a, there in enumerate(what.params['broadcast_dimensions']):
    result[there] = inputs[0][a] if sizes[0][a] == results[0][there] else None
  return [tuple(result)]


def _concatenate(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  result: list[Axis | None] = []
  for a in range(len(results[0])):
    axes = [x[a] for x in inputs]
    if a != what.params['dimension'] or not any(axes):
      result.append(known.unite(axes))
      continue
    parts = [x or known.new_axis(size[a]) for x, size in zip(axes, sizes, strict=True)]
    labels = np.concatenate([part.labels for part in parts])
    result.append(Axis(labels, np.concatenate([part.producers for part in parts])))
  return [tuple(result)]


def _pad(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  pairs = zip(inputs[0], sizes[0], results[0], strict=True)
  return [tuple(axis if before == after else None for axis, before, after in pairs)]


def _pick(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  """Follow a slice, or the reversal of axes."""
  result: list[Axis | None] = []
  for a, axis in enumerate(inputs[0]):
    if what.name == 'rev':
      chosen = slice(None, None, -1) if a in what.params['dimensions'] else slice(None)
    else:
      steps = what.params['strides'] or (1,) * len(sizes[0])
      chosen = slice(what.params['start_indices'][a], what.params['limit_indices'][a], steps[a])
    result.append(_at(axis, chosen) if axis else None)
  return [tuple(result)]


def _split(known: Labels, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
  along, start = what.params['axis'], 0
  outputs: list[Axes] = []
  for size in what.params['sizes']:
    axis = inputs[0][along]
    part = _at(axis, slice(start, start + size)) if axis else None
    outputs.append((*inputs[0][:along], part, *inputs[0][along + 1 :]))
    start += size
  return outputs


def _squeeze(known: Labels, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
  return [tuple(x for a, x in enumerate(inputs[0]) if a not in what.params['dimensions'])]


def _unstack(
  known: Labels, what: Instruction, inputs: list[Axes], _: Any, results: list[Any]
) -> list[Axes]:
  """Follow the unpacking of an axis, an operation of newer versions of JAX."""
  along = what.params['axis']
  return [(*inputs[0][:along], *inputs[0][along + 1 :])] * len(results)


def _transpose(known: Labels, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
  return [tuple(inputs[0][a] for a in what.params['permutation'])]


def _reshape(
  known: Labels, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
) -> list[Axes]:
  """Follow the splitting and joining of axes.

  An axis that is split, for a pixel shuffle or for the heads of attention, has its channels along
  the last part; positions that differ only in other parts are one channel.
  """
  result: list[Axis | None] = [None] * len(results[0])
  for before, after in _groups(sizes[0], results[0]):
    found = [a for a in before if inputs[0][a]]
    if not found:
      continue
    axis = inputs[0][found[0]]
    if len(found) > 1 or axis is None:
      raise ValueError('channels cannot be followed through a reshape that joins two of them')
    rest = [a for a in before if sizes[0][a] != 1]
    into = [a for a in after if results[0][a] != 1]
    if len(rest) <= 1:  # split
      place = into[-1] if into else after[-1]
      result[place] = _last_part(known, axis, results[0][place])
    elif len(into) == 1:  # joined
      around = [sizes[0][a] for a in before]
      shape = [n if a == found[0] else 1 for a, n in zip(before, around, strict=True)]
      spread = lambda x: np.broadcast_to(x.reshape(shape), around).ravel()  # noqa: E731, B023
      result[into[0]] = Axis(spread(axis.labels), spread(axis.producers))
    elif rest[-1] == found[0] and results[0][into[-1]] == sizes[0][found[0]]:
      result[into[-1]] = axis
    else:
      raise ValueError('channels cannot be followed through a reshape')
  return [tuple(result)]


def _last_part(known: Labels, axis: Axis, size: int) -> Axis:
  if size == len(axis.labels):
    return axis
  labels, producers = axis.labels.reshape(-1, size), axis.producers.reshape(-1, size)
  for row in labels[1:]:
    known.sets.unite(labels[0], row)
  return Axis(labels[0], producers.max(axis=0))


def _at(axis: Axis, chosen: slice) -> Axis:
  full = chosen.indices(len(axis.labels)) == (0, len(axis.labels), 1)
  return axis if full else Axis(axis.labels[chosen], axis.producers[chosen])


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """Pair the smallest groups of axes of two shapes that have equally many elements."""
  groups, i, j = [], 0, 0
  while i < len(before) and j < len(after):
    one, other = [i], [j]
    sizes = [before[i], after[j]]
    while sizes[0] != sizes[1]:
      if sizes[0] < sizes[1]:
        i += 1
        one.append(i)
        sizes[0] *= before[i]
      else:
        j += 1
        other.append(j)
        sizes[1] *= after[j]
    groups.append((one, other))
    i, j = i + 1, j + 1
  if groups:  # axes of length 1 that are left over
    groups[-1][0].extend(range(i, len(before)))
    groups[-1][1].extend(range(j, len(after)))
  return groups


RULES: dict[str, Callable[..., list[Axes]]] = {
  'broadcast_in_dim': _broadcast,
  'concatenate': _concatenate,
  'conv_general_dilated': _convolve,
  'dot_general': _contract,
  'pad': _pad,
  'reshape': _reshape,
  'rev': _pick,
  'slice': _pick,
  'split': _split,
  'squeeze': _squeeze,
  'transpose': _transpose,
  'unstack': _unstack,
}
