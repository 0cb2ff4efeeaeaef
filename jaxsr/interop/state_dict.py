"""A file's tensors under this project's paths, in each way that they might be meant."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsr.interop.naming import NAMINGS, OURS, Naming

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Key = tuple[str, str]  # our path of a module, and the leaf as the file calls it

LAYOUTS = ('OIHW', 'HWIO')  # PyTorch's, and that of Flax and TensorFlow
_TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0)}
_TO_THEIRS = {4: (3, 2, 0, 1), 2: (1, 0)}
_WRAPPERS = ('module', 'model', 'net', 'netG', 'generator', 'params', 'params_ema', 'state_dict')
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
  """One way to read a file: its tensors by our paths, and what this naming does not know."""

  naming: Naming
  layout: str
  tensors: dict[Key, tuple[str, np.ndarray]]  # with the name in the file
  unknown: list[str]

  def find(self, module: str, leaf: str) -> Key | None:
    """Find the tensor for one of our parameters or statistics."""
    unused = [(f'{module}/unused'.lstrip('/'), 'weight')] if leaf == 'unused_slope' else []
    keys = [(module, leaf), (module, _ALIASES.get(leaf, leaf)), *unused]
    return next((key for key in keys if key in self.tensors), None)

  def take(self, key: Key, leaf: str) -> np.ndarray:
    """Give a tensor in our layout, float32."""
    x = self.tensors[key][1]
    turned = leaf == 'kernel' and self.layout == 'OIHW' and x.ndim in _TO_OURS
    return (x.transpose(_TO_OURS[x.ndim]) if turned else x).astype(np.float32)

  def theirs(self, leaf: str, shape: Shape) -> Shape:
    """Say how the file would write a shape of ours."""
    turned = leaf == 'kernel' and self.layout == 'OIHW' and len(shape) in _TO_THEIRS
    return tuple(shape[i] for i in _TO_THEIRS[len(shape)]) if turned else shape

  def kernels(self) -> dict[str, Shape]:
    """List the shapes of kernels in our layout, and of tables of position bias."""
    found = {}
    for key, (_, x) in self.tensors.items():
      if key[1] in ('kernel', 'weight') and x.ndim > 1:
        found[key[0]] = self.take(key, 'kernel').shape
      elif key[1] in ('position_bias', _ALIASES['position_bias']):
        found[f'{key[0]}/position_bias'] = x.shape
    return found

  def leftovers(self, used: set[Key]) -> list[str]:
    """Name the tensors that nothing was made of."""
    left = [value for key, value in self.tensors.items() if key not in used]
    return [f'{name} {x.shape}: has no place in this network' for name, x in left]


def readings(tensors: Tensors, model: str) -> list[Reading]:
  """Read a file by every naming that knows most of its tensors, in every layout."""
  found = []
  for names in _unwrapped(list(tensors)):
    named = dict(zip(names, tensors.items(), strict=True))
    for naming in (*NAMINGS[model], OURS):
      renamed, unknown = _rename(named, naming)
      if 2 * len(unknown) <= len(tensors):
        found += [Reading(naming, layout, renamed, unknown) for layout in LAYOUTS]
  return found


def _unwrapped(names: list[str]) -> Iterator[list[str]]:
  """Give the names, and again without each wrapper that all of them begin with."""
  yield names
  while wrapper := next((w for w in _WRAPPERS if all(n.startswith(f'{w}.') for n in names)), None):
    names = [n.removeprefix(f'{wrapper}.') for n in names]
    yield names


def _rename(
  tensors: dict[str, tuple[str, np.ndarray]], naming: Naming
) -> tuple[dict[Key, tuple[str, np.ndarray]], list[str]]:
  if naming is OURS:
    return {_own(name): value for name, value in tensors.items()}, []
  modules = {name.rpartition('.')[0] for name in tensors}
  found, unknown = {}, []
  for name, value in tensors.items():
    module, _, leaf = name.rpartition('.')
    if leaf == _COUNTER or (naming.dropped and re.fullmatch(naming.dropped, name)):
      continue
    if (ours := naming.rename(module, modules)) is None:
      unknown.append(f'{value[0]} {value[1].shape}: is not known')
    else:
      found[ours, leaf] = value
  return found, unknown


def _own(name: str) -> Key:
  """Split a name of this project's: dots or slashes, with or without its collection."""
  *path, leaf = re.split(r'[./]', name)
  return '/'.join(path[1:] if path and path[0] in _COLLECTIONS else path), leaf
