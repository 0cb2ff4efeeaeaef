"""Which axes of which weights belong to one channel, found from the trace of a network.

At first every position on every axis of every weight has a label of its own. An operation that
adds, multiplies or contracts two axes merges their labels (Fang et al., DepGraph: Towards Any
Structural Pruning, CVPR 2023). Channels whose labels stay separate can be dropped independently.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsr.analysis import jaxpr
from jaxsr.compression.channel_labels import NO_PRODUCER, DisjointSets, Labels
from jaxsr.compression.channel_rules import follow


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
  leaves, tree = jax.tree.flatten(variables)
  return _read(network, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves), side)


@functools.lru_cache(maxsize=32)  # networks of several sizes are cut from the same one
def _read(network: Any, tree: Any, leaves: tuple[tuple[Any, Any], ...], side: int) -> Channels:
  variables = tree.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
  lr = jax.ShapeDtypeStruct((1, side, side, network.channels), np.float32)
  trace = jaxpr.trace(lambda v, x: network.apply(v, x, train=False), variables, lr)
  labels = Labels([shape for shape, _ in leaves])
  values = dict(zip(trace.inputs, labels.weights, strict=False))
  for instruction in trace.instructions:
    inputs = [values.get(n, (None,) * len(trace.shapes[n].shape)) for n in instruction.inputs]
    sizes = [trace.shapes[n].shape for n in instruction.inputs]
    results = [trace.shapes[n].shape for n in instruction.outputs]
    outputs = follow(labels, instruction, inputs, sizes, results)
    values.update(zip(instruction.outputs, outputs, strict=True))
  return _channels(labels)


def _channels(known: Labels) -> Channels:
  """Returns the channels, each label replaced by its root."""
  rooted = lambda x: np.array([known.sets.root(n) for n in x.tolist()], int)  # noqa: E731
  labels = [[rooted(axis.labels) for axis in axes if axis] for axes in known.weights]
  producers = np.array([*known.products, NO_PRODUCER])
  segments = [
    [producers[known.summed.get((w, a), np.full(len(x), NO_PRODUCER))] for a, x in enumerate(axes)]
    for w, axes in enumerate(labels)
  ]
  neighbors = DisjointSets()
  neighbors.new(len(known.sets.parents))
  for axes in labels:
    if axes:
      neighbors.unite(axes[-1][:-1], axes[-1][1:])
  lasts = {channel for axes in labels if axes for channel in axes[-1].tolist()}
  return Channels(labels, segments, {c: neighbors.root(c) for c in lasts})
