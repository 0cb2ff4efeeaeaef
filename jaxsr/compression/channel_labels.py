"""Labels of channels along the axes of arrays, and which of them are the same channel."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

NO_PRODUCER = -1  # in place of the number of a product


class Axis(NamedTuple):
  """The labels along an axis, and the number of the product that computed each position.

  `source` is the weight and its axis if this axis is still that of a weight.
  """

  labels: np.ndarray
  producers: np.ndarray
  source: tuple[int, int] | None = None


Axes = tuple[Axis | None, ...]  # of an array; None: an axis without channels, such as a row


class DisjointSets:
  """Disjoint sets of numbers; the smallest number of a set is its root, which keeps the order."""

  def __init__(self) -> None:
    self.parents: list[int] = []

  def new(self, count: int) -> np.ndarray:
    """Add numbers, each a set of its own, and return them."""
    start = len(self.parents)
    self.parents.extend(range(start, start + count))
    return np.arange(start, start + count)

  def root(self, label: int) -> int:
    """Returns the smallest number in the set of a number."""
    while self.parents[label] != label:
      self.parents[label] = label = self.parents[self.parents[label]]
    return label

  def unite(self, one: np.ndarray, other: np.ndarray) -> None:
    """Merge the sets of the numbers at equal positions."""
    for pair in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
      a, b = map(self.root, pair)
      self.parents[max(a, b)] = min(a, b)


class Labels:
  """The labels of a network's weights, which operations of its trace merge.

  Attributes:
    sets: Labels of one set are the same channel.
    weights: The axes of each weight.
    products: The weight of each product, in order.
    summed: By weight and axis, the products that computed the positions that a product sums over.
  """

  def __init__(self, shapes: Sequence[tuple[int, ...]]):
    self.sets = DisjointSets()
    self.weights: list[Axes] = [
      tuple(self.new_axis(n)._replace(source=(w, a)) for a, n in enumerate(shape))
      for w, shape in enumerate(shapes)
    ]
    self.products: list[int] = []
    self.summed: dict[tuple[int, int], np.ndarray] = {}

  def new_axis(self, count: int) -> Axis:
    """Returns an axis of new labels."""
    return Axis(self.sets.new(count), np.full(count, NO_PRODUCER))

  def unite(self, axes: Sequence[Axis | None]) -> Axis | None:
    """Merge the labels of axes, position by position; returns one axis for all of them."""
    found = [axis for axis in axes if axis]
    for one, other in pairwise(found):
      self.sets.unite(one.labels, other.labels)
    if len(found) < 2:
      return found[0] if found else None
    producers = np.max([axis.producers for axis in found], axis=0)
    return Axis(found[0].labels, producers)

  def record_sum(self, one: Axis | None, other: Axis | None) -> None:
    """Record that a product sums over two axes."""
    self.unite((one, other))
    for axis, beside in ((one, other), (other, one)):
      if axis and beside and axis.source:
        self.summed[axis.source] = beside.producers

  def produce(self, axis: Axis | None) -> Axis | None:
    """Returns an axis of a product that it does not sum over."""
    if axis is None or axis.source is None:
      return axis
    self.products.append(axis.source[0])
    return Axis(axis.labels, np.full(len(axis.labels), len(self.products) - 1))
