"""Which axes of which weights belong to one channel, found from the trace of a network.

At first every position on every axis of every weight has a label of its own. An operation that
adds, multiplies or contracts two axes merges their labels (Fang et al., DepGraph: Towards Any
Structural Pruning, CVPR 2023). Channels whose labels stay separate can be dropped independently.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsr.analysis import jaxpr
from jaxsr.analysis.jaxpr import Instruction

NO_PRODUCER = -1


class Axis(NamedTuple):
  """The labels along an axis, and the number of the product that computed each position.

  `source` is the weight and its axis if this axis is still that of a weight.
  """

  labels: np.ndarray
  producers: np.ndarray
  source: tuple[int, int] | None = None


Axes = tuple[Axis | None, ...]  # of a value; None: an axis without channels, such as a row


class Channels(NamedTuple):
  """The channels of a network.

  Attributes:
    labels: `labels[w][a]` are the labels along axis `a` of weight `w` of the tree; equal labels
      are the same channel.
    segments: `segments[w][a]` are, for an axis that a product sums over, the weights that computed
      its positions, `NO_PRODUCER` for none.
    groups: The group of each channel. Channels of a group lie along the last axis of the same
      weights, so that any of them can be kept in place of another.
  """

  labels: list[list[np.ndarray]]
  segments: list[list[np.ndarray]]
  groups: dict[int, int]

  def members(self) -> dict[int, list[int]]:
    """Returns the channels of each group, in order."""
    found: dict[int, list[int]] = {}
    for channel in sorted(self.groups):
      found.setdefault(self.groups[channel], []).append(channel)
    return found


def read(network: Any, variables: Any, side: int = 16) -> Channels:
  """Find the channels of a network.

  Args:
    network: A network with an attribute `channels`, those of its images.
    variables: Its variables, or their shapes.
    side: Side of the image that is traced.

  Raises:
    ValueError: The channels cannot be followed through an operation.
  """
  lr = jax.ShapeDtypeStruct((1, side, side, network.channels), np.float32)
  trace = jaxpr.trace(lambda v, x: network.apply(v, x, train=False), variables, lr)
  shapes = [leaf.shape for leaf in jax.tree.leaves(variables)]
  reader = _Reader(shapes)
  values = dict(zip(trace.inputs, reader.weights, strict=False))
  for instruction in trace.instructions:
    inputs = [values.get(n, (None,) * len(trace.shapes[n].shape)) for n in instruction.inputs]
    sizes = [trace.shapes[n].shape for n in instruction.inputs]
    results = [trace.shapes[n].shape for n in instruction.outputs]
    outputs = reader.follow(instruction, inputs, sizes, results)
    values.update(zip(instruction.outputs, outputs, strict=True))
  return reader.result()


class _Sets:
  """Disjoint sets of numbers; the smallest number of a set is its root, which keeps the order."""

  def __init__(self) -> None:
    self.parents: list[int] = []

  def new(self, count: int) -> np.ndarray:
    start = len(self.parents)
    self.parents.extend(range(start, start + count))
    return np.arange(start, start + count)

  def root(self, label: int) -> int:
    while self.parents[label] != label:
      self.parents[label] = label = self.parents[self.parents[label]]
    return label

  def unite(self, one: np.ndarray, other: np.ndarray) -> None:
    for pair in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
      a, b = map(self.root, pair)
      self.parents[max(a, b)] = min(a, b)


class _Reader:
  """Follows channels through the operations of a trace."""

  def __init__(self, shapes: Sequence[tuple[int, ...]]):
    self.sets = _Sets()
    self.weights: list[Axes] = [
      tuple(self._fresh(n)._replace(source=(w, a)) for a, n in enumerate(shape))
      for w, shape in enumerate(shapes)
    ]
    self.products: list[int] = []  # the weight of each, in order
    self.summed: dict[tuple[int, int], np.ndarray] = {}
    self.rules: dict[str, Callable[..., list[Axes]]] = {
      'broadcast_in_dim': self._broadcast,
      'concatenate': self._concatenate,
      'conv_general_dilated': self._convolve,
      'dot_general': self._contract,
      'pad': self._pad,
      'reshape': self._reshape,
      'rev': self._pick,
      'slice': self._pick,
      'split': self._split,
      'squeeze': self._squeeze,
      'transpose': self._transpose,
      'unstack': self._unstack,
    }

  def result(self) -> Channels:
    """Returns the channels, each label replaced by its root."""
    rooted = lambda x: np.array([self.sets.root(n) for n in x.tolist()], int)  # noqa: E731
    labels = [[rooted(axis.labels) for axis in axes if axis] for axes in self.weights]
    producers = np.array([*self.products, NO_PRODUCER])
    segments = [
      [producers[self.summed.get((w, a), np.full(len(x), NO_PRODUCER))] for a, x in enumerate(axes)]
      for w, axes in enumerate(labels)
    ]
    neighbors = _Sets()
    neighbors.new(len(self.sets.parents))
    for axes in labels:
      if axes:
        neighbors.unite(axes[-1][:-1], axes[-1][1:])
    lasts = {channel for axes in labels if axes for channel in axes[-1].tolist()}
    return Channels(labels, segments, {c: neighbors.root(c) for c in lasts})

  def follow(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
  ) -> list[Axes]:
    """Returns the axes of the results of an operation."""
    if not any(axis for axes in inputs for axis in axes) or any(0 in shape for shape in results):
      return [(None,) * len(shape) for shape in results]
    if what.name in self.rules:
      return self.rules[what.name](what, inputs, sizes, results)
    if what.name.startswith('reduce_window'):
      return self._pad(what, inputs, sizes, results)
    if what.name.startswith(('reduce_', 'arg')):
      return [tuple(x for a, x in enumerate(inputs[0]) if a not in what.params['axes'])]
    if what.name == 'gather':  # the position biases of attention; its channels end here
      return [(None,) * len(shape) for shape in results]
    return [self._together(what, inputs, sizes, shape) for shape in results]

  def _fresh(self, count: int) -> Axis:
    return Axis(self.sets.new(count), np.full(count, NO_PRODUCER))

  def _together(self, what: Instruction, inputs: list[Axes], sizes: list[Any], shape: Any) -> Axes:
    """Follow an elementwise operation."""
    columns: list[list[Axis | None]] = [[] for _ in shape]
    for axes, size in zip(inputs, sizes, strict=True):
      if not any(axes):
        continue
      if len(size) != len(shape) or any(n not in (1, m) for n, m in zip(size, shape, strict=True)):
        raise ValueError(f'channels cannot be followed through {what.name}')
      for column, axis, n, m in zip(columns, axes, size, shape, strict=True):
        column.append(axis if n == m else None)
    return tuple(map(self._unite, columns))

  def _unite(self, axes: Sequence[Axis | None]) -> Axis | None:
    found = [axis for axis in axes if axis]
    for one, other in pairwise(found):
      self.sets.unite(one.labels, other.labels)
    if len(found) < 2:
      return found[0] if found else None
    producers = np.max([axis.producers for axis in found], axis=0)
    return Axis(found[0].labels, producers)

  def _sum(self, one: Axis | None, other: Axis | None) -> None:
    """Record that a product sums over two axes."""
    self._unite((one, other))
    for axis, beside in ((one, other), (other, one)):
      if axis and beside and axis.source:
        self.summed[axis.source] = beside.producers

  def _make(self, axis: Axis | None) -> Axis | None:
    """Returns an axis of a product that it does not sum over."""
    if axis is None or axis.source is None:
      return axis
    self.products.append(axis.source[0])
    return Axis(axis.labels, np.full(len(axis.labels), len(self.products) - 1))

  def _convolve(self, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
    numbers, groups = what.params['dimension_numbers'], what.params['feature_group_count']
    image, kernel = inputs
    batch, features, *places = numbers.lhs_spec
    made, summed = numbers.rhs_spec[:2]
    if groups == 1:
      self._sum(image[features], kernel[summed])
    else:
      axis = kernel[summed]
      if axis and len(axis.labels) > 1:
        raise ValueError('channels cannot be followed through a convolution in groups')
      self._unite((image[features], kernel[made]))
    result: list[Axis | None] = [None] * len(image)
    spec = numbers.out_spec
    result[spec[0]], result[spec[1]] = image[batch], self._make(kernel[made])
    for there, here in zip(spec[2:], places, strict=True):
      result[there] = image[here]
    return [tuple(result)]

  def _contract(self, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
    summed, batch = what.params['dimension_numbers']
    for one, other in zip(*summed, strict=True):
      self._sum(inputs[0][one], inputs[1][other])
    result = [self._unite((inputs[0][a], inputs[1][b])) for a, b in zip(*batch, strict=True)]
    for side, axes in enumerate(inputs):
      gone = (*summed[side], *batch[side])
      result += [self._make(axis) for a, axis in enumerate(axes) if a not in gone]
    return [tuple(result)]

  def _broadcast(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
  ) -> list[Axes]:
    result: list[Axis | None] = [None] * len(results[0])
    for a, there in enumerate(what.params['broadcast_dimensions']):
      result[there] = inputs[0][a] if sizes[0][a] == results[0][there] else None
    return [tuple(result)]

  def _concatenate(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
  ) -> list[Axes]:
    result: list[Axis | None] = []
    for a in range(len(results[0])):
      axes = [x[a] for x in inputs]
      if a != what.params['dimension'] or not any(axes):
        result.append(self._unite(axes))
        continue
      parts = [x or self._fresh(size[a]) for x, size in zip(axes, sizes, strict=True)]
      labels = np.concatenate([part.labels for part in parts])
      result.append(Axis(labels, np.concatenate([part.producers for part in parts])))
    return [tuple(result)]

  def _pad(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
  ) -> list[Axes]:
    pairs = zip(inputs[0], sizes[0], results[0], strict=True)
    return [tuple(axis if before == after else None for axis, before, after in pairs)]

  def _pick(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
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

  def _split(self, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
    along, start = what.params['axis'], 0
    outputs: list[Axes] = []
    for size in what.params['sizes']:
      axis = inputs[0][along]
      part = _at(axis, slice(start, start + size)) if axis else None
      outputs.append((*inputs[0][:along], part, *inputs[0][along + 1 :]))
      start += size
    return outputs

  def _squeeze(self, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
    return [tuple(x for a, x in enumerate(inputs[0]) if a not in what.params['dimensions'])]

  def _unstack(
    self, what: Instruction, inputs: list[Axes], _: Any, results: list[Any]
  ) -> list[Axes]:
    """Follow the unpacking of an axis, an operation of newer versions of JAX."""
    along = what.params['axis']
    return [(*inputs[0][:along], *inputs[0][along + 1 :])] * len(results)

  def _transpose(self, what: Instruction, inputs: list[Axes], *_: Any) -> list[Axes]:
    return [tuple(inputs[0][a] for a in what.params['permutation'])]

  def _reshape(
    self, what: Instruction, inputs: list[Axes], sizes: list[Any], results: list[Any]
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
        result[place] = self._last_part(axis, results[0][place])
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

  def _last_part(self, axis: Axis, size: int) -> Axis:
    if size == len(axis.labels):
      return axis
    labels, producers = axis.labels.reshape(-1, size), axis.producers.reshape(-1, size)
    for row in labels[1:]:
      self.sets.unite(labels[0], row)
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
