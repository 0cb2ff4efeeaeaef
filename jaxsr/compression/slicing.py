"""Initial weights of a small network, cut from a larger one of the same architecture.

Channels are ranked by importance, their share of the squared norm of the weights that use them
(after Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017), consistently across layers
that share them. Blocks are kept at even distances, including the first and the last. At full width
and depth the result is the large network.
"""

import dataclasses
import re
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr import models
from jaxsr.compression import channel_groups
from jaxsr.compression.channel_groups import Channels
from jaxsr.errors import UserError
from jaxsr.models import Network

Path = tuple[str, ...]
_IRRELEVANT = ('dtype', 'remat', 'parent', 'name')  # fields that parameters do not depend on
_NUMBERED = re.compile(r'(.*)_(\d+)$')


class Cut(NamedTuple):
  """Where each weight of the small network comes from: a path in the large one, and indices."""

  sources: dict[Path, tuple[Path, tuple[np.ndarray, ...]]]

  def take(self, variables: Any) -> Any:
    """Cut the variables of the small network from those of the large one."""
    flat: dict[Any, Any] = flatten_dict(variables)
    return unflatten_dict(
      {path: _select(flat[source], places) for path, (source, places) in self.sources.items()}
    )


def _select(x: Any, places: tuple[np.ndarray, ...]) -> Any:
  for axis, chosen in enumerate(places):
    if len(chosen) < x.shape[axis] or (chosen != np.arange(len(chosen))).any():
      run = chosen[0] + np.arange(len(chosen))
      if (chosen == run).all():
        x = jax.lax.slice_in_dim(x, int(chosen[0]), int(chosen[-1]) + 1, axis=axis)
      else:
        x = jnp.take(x, chosen, axis=axis)
  return x


def differences(small: Network, large: Network) -> list[str]:
  """Returns the differences other than width and depth, which prevent cutting, as texts."""
  if type(small) is not type(large):
    return [f'it is a {type(large).__name__}, not a {type(small).__name__}']
  sizes = (*small.width_fields, *small.depth_fields)
  found = []
  for field in dataclasses.fields(small):
    here, there = getattr(small, field.name), getattr(large, field.name)
    if field.name in _IRRELEVANT or here == there:
      continue
    if field.name not in sizes or not _is_not_larger(here, there):
      found.append(f'its {field.name} is {there}, not {here}')
  return found


def smaller(small: Network, large: Network) -> str:
  """Describe how much smaller a network is than another; returns '' if it is not."""
  names = (*small.width_fields, *small.depth_fields)
  pairs = [(name, getattr(small, name), getattr(large, name)) for name in names]
  return ', '.join(f'{name} {here} of {there}' for name, here, there in pairs if here != there)


def _is_not_larger(here: Any, there: Any) -> bool:
  if isinstance(here, tuple) and isinstance(there, tuple):
    return len(here) == len(there) and all(map(_is_not_larger, here, there))
  return here <= there


def make_cut(small: Network, large: Network, variables: Any, *, ranked: bool) -> Cut:
  """Find how the variables of a small network are cut from those of a large one.

  Args:
    small: The small network.
    large: The large network.
    variables: The variables of the large network; their shapes are enough if not `ranked`.
    ranked: Whether to keep the most important channels; otherwise the first ones are kept.

  Raises:
    UserError: The networks differ in more than width and depth, or cannot be cut.
  """
  if found := differences(small, large):
    raise UserError(f'a network cannot be cut from this one: {found[0]}')
  try:
    sides = [_Side.read(small, models.shapes(small)), _Side.read(large, variables)]
  except ValueError as error:
    raise UserError(f'{type(large).__name__} cannot be cut: {error}') from error
  here, there = sides
  chosen = _Chosen(there.channels, _importance(there, variables) if ranked else None)
  renamed = _rename(here.paths, there.paths)
  numbers = {path: w for w, path in enumerate(there.paths)}
  order = {c: (j, len(m)) for m in here.channels.members().values() for j, c in enumerate(m)}
  sources = {}
  for w, path in enumerate(here.paths):
    v, places = numbers[renamed[path]], []
    for a, labels in enumerate(here.channels.labels[w]):
      if len(labels) == len(there.channels.labels[v][a]):
        places.append(np.arange(len(labels)))
        continue
      places.append(np.full(len(labels), -1))
      for inner, outer in _segments(here, w, there, v, a, renamed):
        places[-1][inner] = _find(labels[inner], there.channels.labels[v][a], outer, order, chosen)
    sources[path] = (renamed[path], tuple(places))
  return Cut(sources)


class _Side(NamedTuple):
  """A network's channels, and the paths of its weights by their numbers."""

  channels: Channels
  paths: list[Path]

  @classmethod
  def read(cls, network: Network, variables: Any) -> '_Side':
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    paths = [tuple(str(key.key) for key in path) for path, _ in leaves]
    return cls(channel_groups.read(network, variables), paths)


def _rename(small: list[Path], large: list[Path]) -> dict[Path, Path]:
  """Map each weight of the small network to a path of the large one: blocks at even distances."""
  counts = [_count(paths) for paths in (small, large)]
  renamed = {}
  for path in small:
    new: list[str] = []
    for depth, name in enumerate(path):
      match = _NUMBERED.match(name)
      if match:
        stem, number = match[1], int(match[2])
        few = counts[0][*path[:depth], stem]
        many = counts[1][*new, stem]
        name = f'{stem}_{_evenly_spaced(number, few, many)}'
      new.append(name)
    renamed[path] = tuple(new)
  return renamed


def _count(paths: list[Path]) -> dict[Path, int]:
  """Count the numbered children of each stem."""
  found: dict[Path, set[str]] = defaultdict(set)
  for path in paths:
    for depth, name in enumerate(path):
      if match := _NUMBERED.match(name):
        found[*path[:depth], match[1]].add(name)
  return {stem: len(names) for stem, names in found.items()}


def _evenly_spaced(number: int, few: int, many: int) -> int:
  return number if few == many else round(number * (many - 1) / max(1, few - 1))


def _importance(side: _Side, variables: Any) -> dict[int, float]:
  """Sum each channel's share of the squared norm of the kernels that use it."""
  total: dict[int, float] = defaultdict(float)
  leaves = jax.tree.leaves(variables)
  for path, leaf, axes in zip(side.paths, leaves, side.channels.labels, strict=True):
    energy = np.square(np.asarray(leaf, np.float64))
    if path[0] != 'params' or energy.ndim < 2 or not energy.sum():
      continue
    for a, labels in enumerate(axes):
      others = tuple(i for i in range(energy.ndim) if i != a)
      share = energy.sum(axis=others) / energy.sum()
      for channel, value in zip(labels.tolist(), share.tolist(), strict=True):
        total[channel] += value
  return total


class _Chosen:
  """The channels of each group that are kept, in order."""

  def __init__(self, all_channels: Channels, importance: dict[int, float] | None):
    self.groups = all_channels.groups
    self._members, self._importance = all_channels.members(), importance

  def channel(self, group: int, number: int, count: int) -> int:
    """Returns the channel that becomes number `number` of `count`."""
    members, importance = self._members[group], self._importance
    if importance is not None:
      members = sorted(members, key=lambda c: -importance.get(c, 0.0))  # the sort is stable
    return sorted(members[:count])[number]


def _segments(
  here: _Side, w: int, there: _Side, v: int, axis: int, renamed: dict[Path, Path]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Pair the parts of an axis that a layer sums over by the layers that computed them.

  Returns indices in the small network and in the large one. If a network of fewer blocks sums over
  fewer parts, they are paired by name.
  """
  small, large = (_runs(side.channels.segments[n][axis]) for side, n in ((here, w), (there, v)))
  if len(small) == len(large):
    return [(one[1], other[1]) for one, other in zip(small, large, strict=True)]
  by_producer = {there.paths[weight]: places for weight, places in large if weight >= 0}
  return [(places, by_producer[renamed[here.paths[weight]]]) for weight, places in small]


def _runs(producers: np.ndarray) -> list[tuple[int, np.ndarray]]:
  """Split an axis into the parts computed by different weights."""
  starts = np.flatnonzero(np.diff(producers, prepend=-2))
  parts = np.split(np.arange(len(producers)), starts[1:])
  return [(int(producers[part[0]]), part) for part in parts]


def _find(
  labels: np.ndarray,
  large: np.ndarray,
  places: np.ndarray,
  order: dict[int, tuple[int, int]],
  chosen: _Chosen,
) -> np.ndarray:
  """Find the indices on the axis of the large network for the channels of a segment."""
  group = chosen.groups[int(large[places[0]])]
  where: dict[int, list[int]] = defaultdict(list)
  for place in places.tolist():
    where[int(large[place])].append(place)
  seen: dict[int, int] = defaultdict(int)
  found = []
  for label in labels.tolist():
    found.append(where[chosen.channel(group, *order[label])][seen[label]])
    seen[label] += 1
  return np.array(found)
