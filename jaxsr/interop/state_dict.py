"""A file's tensors under this project's paths, for every naming and layout that may apply."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsr.interop.naming import NAMINGS, OURS, Naming

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Key = tuple[str, str]  # this project's module path, and the name of the leaf in the file

FLOATS = ('float16', 'bfloat16', 'float32', 'float64')
LAYOUTS = ('OIHW', 'HWIO')  # PyTorch's, and that of Flax and TensorFlow
_TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0)}
_TO_THEIRS = {4: (3, 2, 0, 1), 2: (1, 0)}
_COLLECTIONS = ('params', 'batch_stats')
_COUNTER = 'num_batches_tracked'
_ALIASES = {
  'kernel': 'weight',
  'scale': 'weight',
  'negative_slope': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
  'position_bias': 'relative_position_bias_table',
}


@dataclass(frozen=True)
class Reading:
  """One way to read a file: its tensors by this project's paths, and those that are unknown."""

  naming: Naming
  layout: str
  tensors: dict[Key, tuple[str, np.ndarray]]  # with the name in the file
  unknown: list[str]

  def find(self, module: str, leaf: str) -> Key | None:
    """Returns the key of the tensor for a parameter or statistic, or None."""
    unused = [(f'{module}/unused'.lstrip('/'), 'weight')] if leaf == 'unused_slope' else []
    keys = [(module, leaf), (module, _ALIASES.get(leaf, leaf)), *unused]
    return next((key for key in keys if key in self.tensors), None)

  def take(self, key: Key, leaf: str) -> np.ndarray:
    """Returns a tensor in this project's layout, float32."""
    x = self.tensors[key][1]
    return x.transpose(self._axes(leaf, x)).astype(np.float32)

  def _axes(self, leaf: str, x: np.ndarray) -> tuple[int, ...]:
    turned = leaf == 'kernel' and self.layout == 'OIHW' and x.ndim in _TO_OURS
    return _TO_OURS[x.ndim] if turned else tuple(range(x.ndim))

  def theirs(self, leaf: str, shape: Shape) -> Shape:
    """Returns a shape in the layout of the file."""
    turned = leaf == 'kernel' and self.layout == 'OIHW' and len(shape) in _TO_THEIRS
    return tuple(shape[i] for i in _TO_THEIRS[len(shape)]) if turned else shape

  def kernels(self) -> dict[str, Shape]:
    """Returns the shapes of kernels, in this project's layout, and of position bias tables."""
    found = {}
    for key, (_, x) in self.tensors.items():
      if key[1] in ('kernel', 'weight') and x.ndim > 1:
        found[key[0]] = tuple(x.shape[i] for i in self._axes('kernel', x))
      elif key[1] in ('position_bias', _ALIASES['position_bias']):
        found[f'{key[0]}/position_bias'] = x.shape
    return found

  def not_floats(self) -> list[str]:
    """Returns a line for each tensor of a type that weights do not have."""
    wrong = [value for key, value in self.tensors.items() if key[1] != _COUNTER]
    return [
      f'{name} {x.shape}: is {x.dtype}, not {", ".join(FLOATS[:-1])} or {FLOATS[-1]}'
      for name, x in wrong
      if x.dtype.name not in FLOATS
    ]

  def leftovers(self, used: set[Key]) -> list[str]:
    """Returns a line for each tensor that the network does not use."""
    left = [value for key, value in self.tensors.items() if key not in used]
    return [f'{name} {x.shape}: has no place in this network' for name, x in left]


def readings(tensors: Tensors, model: str) -> list[Reading]:
  """Returns the readings by every naming that knows most of the tensors, in every layout."""
  found = []
  for names in _unwrapped(list(tensors)):
    named = dict(zip(names, tensors.items(), strict=True))
    for naming in (*NAMINGS[model], OURS):
      renamed, unknown = _rename(named, naming)
      if 2 * len(unknown) <= len(tensors):
        found += [Reading(naming, layout, renamed, unknown) for layout in LAYOUTS]
  return found


def _unwrapped(names: list[str]) -> Iterator[list[str]]:
  """Yield the names, and again without each module that all of them begin with."""
  yield names
  parts = [re.split(r'[./]', name, maxsplit=1) for name in names]
  while parts and all(len(each) == 2 and each[0] == parts[0][0] for each in parts):
    names = [rest for _, rest in parts]
    yield names
    parts = [re.split(r'[./]', name, maxsplit=1) for name in names]


def _rename(
  tensors: dict[str, tuple[str, np.ndarray]], naming: Naming
) -> tuple[dict[Key, tuple[str, np.ndarray]], list[str]]:
  modules = {name.rpartition('.')[0] for name in tensors}
  found, unknown = {}, []

  def place(key: Key, value: tuple[str, np.ndarray]) -> None:
    if key in found:
      unknown.append(f'{value[0]} {value[1].shape}: has the same place as {found[key][0]}')
    else:
      found[key] = value

  for name, value in tensors.items():
    module, _, leaf = name.rpartition('.')
    if naming is OURS:
      place(_own(name), value)
      continue
    if leaf == _COUNTER or (naming.dropped and re.fullmatch(naming.dropped, name)):
      continue
    if (ours := naming.rename(module, modules)) is None:
      unknown.append(f'{value[0]} {value[1].shape}: is not known')
    else:
      place((ours, leaf), value)
  return found, unknown


def _own(name: str) -> Key:
  """Split a name of this project: dots or slashes, with or without its collection."""
  *path, leaf = re.split(r'[./]', name)
  return '/'.join(path[1:] if path and path[0] in _COLLECTIONS else path), leaf
