"""Load the weights of a feature network from safetensors or npz, and detect their variant.

The tensor names of torchvision, timm, Keras (VGG), TF-slim (MobileNetV2) and jaxsr are known.
"""

import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxsr import files, perceptual
from jaxsr.errors import UserError, brief, nearest
from jaxsr.perceptual import mobilenet, vgg
from jaxsr.perceptual.download import PUBLISHED

RANDOM = 'random'  # instead of a file: random weights

# The variant of files whose tensor names do not show it, by SHA-256.
_KNOWN = {'9bc38cb094d5f020395712317be2414492b5793bf10d07fc1defd134193aa043': 'caffe'}
_KNOWN |= {entry.sha256: entry.variant for entry in PUBLISHED.values() if entry.sha256}

_LEAVES = {'kernel': ('weight', 'weights', 'depthwise_weights', 'kernel'), 'bias': ('bias', 'beta')}
_LEAVES |= {'scale': ('weight', 'gamma', 'scale'), 'mean': ('running_mean', 'moving_mean', 'mean')}
_LEAVES |= {'var': ('running_var', 'moving_variance', 'var')}


class Naming(NamedTuple):
  """The tensor names of an implementation, and the variant of its weights unless detected."""

  name: str
  variant: str
  module: Callable[[str], str]  # path of a module here -> there, which a leaf name is added to


class Loaded(NamedTuple):
  """Loaded weights."""

  variables: Any
  variant: perceptual.Variant
  described: str


def load(network: str, layer: str, path: Path, *, variant: str = 'auto') -> Loaded:
  """Load the weights of a network up to a layer.

  Args:
    network: A key of `perceptual.LAYERS`.
    layer: One of its layers.
    path: A safetensors or npz file.
    variant: 'auto', or a key of `perceptual.VARIANTS`.

  Raises:
    UserError: The file cannot be read, or a tensor is missing.
  """
  if variant not in ('auto', *perceptual.VARIANTS):
    raise UserError(f'{network}: variant {variant!r}: {nearest(variant, perceptual.VARIANTS)}')
  wanted = shapes(network, layer)
  with _open(path) as file:
    naming, found = _match(network, layer, wanted, file, path)
    chosen = variant if variant != 'auto' else _recognize(path, file.note, naming)
    leaves = [_read(file.get(name), want, path, name) for name, want in found]
  variables = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
  described = f'{network} from {path}, names of {naming.name}, images as {chosen} wants them'
  return Loaded(variables, perceptual.VARIANTS[chosen], described)


def random(network: str, layer: str, *, seed: int = 0) -> Loaded:
  """Draw random weights."""
  variant = perceptual.VARIANTS['torchvision']
  module = perceptual.build(network, layer, activated=True, variant=variant)
  variables = jax.jit(module.init)(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))
  return Loaded(variables, variant, f'{network} with RANDOM weights')


def shapes(network: str, layer: str) -> Any:
  """Returns the shapes of the variables, without computing them."""
  variant = perceptual.VARIANTS['torchvision']
  module = perceptual.build(network, layer, activated=True, variant=variant)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), image)


class _Safetensors:
  def __init__(self, path: Path):
    self._file = safe_open(path, framework='numpy')
    self.names = list(self._file.keys())
    self.note = str(self._file.metadata() or '')

  def get(self, name: str) -> np.ndarray:
    return self._file.get_tensor(name)

  def __enter__(self) -> Any:
    self._file.__enter__()
    return self

  def __exit__(self, *error: Any) -> None:
    self._file.__exit__(*error)


class _Npz:
  note = ''

  def __init__(self, path: Path):
    if not zipfile.is_zipfile(path):  # NumPy would leave it open
      raise ValueError('not a zip file')
    self._file = np.load(path, allow_pickle=False)
    self.names = list(self._file.files)

  def get(self, name: str) -> np.ndarray:
    return self._file[name]

  def __enter__(self) -> Any:
    return self

  def __exit__(self, *error: Any) -> None:
    self._file.close()


def _open(path: Path) -> Any:
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    return _Npz(path) if path.suffix == '.npz' else _Safetensors(path)
  except (SafetensorError, ValueError, OSError) as error:
    raise UserError(
      f'{path}: is neither safetensors nor npz ({error}); a pickle (.pt, .pth, .pkl) is never '
      'loaded; docs/importing.md shows how to convert one'
    ) from error


def _match(
  network: str, layer: str, wanted: Any, file: Any, path: Path
) -> tuple[Naming, list[tuple[str, jax.ShapeDtypeStruct]]]:
  """Find the naming under which the file holds all wanted tensors."""
  leaves, _ = jax.tree.flatten_with_path(wanted)
  names, best = set(file.names), (-1, NAMINGS[network][0], [], [])
  for naming in NAMINGS[network]:
    found, missing = [], []
    for keys, want in leaves:
      module, leaf = '/'.join(k.key for k in keys[1:-1]), keys[-1].key
      candidates = list(_spell(naming.module(module), _LEAVES[leaf]))
      name = next((n for n in candidates if n in names), None)
      found += [] if name is None else [(name, want)]
      missing += [] if name else [candidates[0]]
    if len(found) > best[0]:
      best = (len(found), naming, found, missing)
  _, naming, found, missing = best
  if missing:
    known = ', '.join(n.name for n in NAMINGS[network])
    raise UserError(
      f'{path}: lacks {len(missing)} of the {len(leaves)} tensors of {network} up to {layer}, as '
      f'{naming.name} names them: {brief(missing)} (known namings: {known})'
    )
  return naming, found


def _spell(module: str, leaves: Iterable[str]) -> Iterable[str]:
  return (f'{module}{joint}{leaf}' for leaf in leaves for joint in '._/')


def _recognize(path: Path, note: str, naming: Naming) -> str:
  """Detect the variant by the hash of the file, by its metadata, or by its tensor names."""
  if naming.name in ('torchvision', 'jaxsr'):  # which converted weights may also have
    if known := _KNOWN.get(files.sha256(path)):
      return known
    if re.search('keras|caffe|oxford', note, re.IGNORECASE):
      return 'caffe'
  return naming.variant


def _read(x: np.ndarray, want: Any, path: Path, name: str) -> jax.Array:
  """Transpose a tensor to the layout of the wanted one, HWIO."""
  if x.ndim == 4:
    for axes in ((0, 1, 2, 3), (2, 3, 1, 0), (0, 1, 3, 2)):  # HWIO, OIHW, TensorFlow's depthwise
      if x.transpose(axes).shape == want.shape:
        return jnp.asarray(x.transpose(axes), jnp.float32)
  if x.shape != want.shape:
    raise UserError(f'{path}: {name} is {list(x.shape)}, not {list(want.shape)}')
  return jnp.asarray(x, jnp.float32)


def _torch_vgg(network: str) -> Callable[[str], str]:
  index, numbers = 0, {}
  for block, depth in enumerate(vgg.DEPTHS[network], 1):
    for i in range(1, depth + 1):
      numbers[f'conv{block}_{i}'] = f'features.{index}'
      index += 2  # a ReLU has a number, too
    index += 1  # and so has a pooling
  return numbers.__getitem__


def _keras_vgg(module: str) -> str:
  block, number = module.removeprefix('conv').split('_')
  return f'block{block}_conv{number}'


def _torch_mobilenet() -> dict[str, str]:
  names = {'stem/conv': 'features.0.0', 'stem/norm': 'features.0.1'}
  for i, block in enumerate(mobilenet.blocks()):
    parts = ['expand'] if block.expansion > 1 else []
    for j, part in enumerate([*parts, 'depthwise']):
      names[f'block_{i}_{part}/conv'] = f'features.{i + 1}.conv.{j}.0'
      names[f'block_{i}_{part}/norm'] = f'features.{i + 1}.conv.{j}.1'
    names[f'block_{i}_project/conv'] = f'features.{i + 1}.conv.{len(parts) + 1}'
    names[f'block_{i}_project/norm'] = f'features.{i + 1}.conv.{len(parts) + 2}'
  return names | {'head/conv': 'features.18.0', 'head/norm': 'features.18.1'}


def _timm_mobilenet() -> dict[str, str]:
  names = {'stem/conv': 'conv_stem', 'stem/norm': 'bn1', 'head/conv': 'conv_head'}
  names['head/norm'] = 'bn2'
  number = 0
  for stage, (expansion, _, count, _) in enumerate(mobilenet.STAGES):
    for i in range(count):
      parts = {'expand': 'conv_pw', 'depthwise': 'conv_dw', 'project': 'conv_pwl'}
      if expansion == 1:
        parts = {'depthwise': 'conv_dw', 'project': 'conv_pw'}
      for j, (part, source) in enumerate(parts.items(), 1):
        names[f'block_{number}_{part}/conv'] = f'blocks.{stage}.{i}.{source}'
        names[f'block_{number}_{part}/norm'] = f'blocks.{stage}.{i}.bn{j}'
      number += 1
  return names


def _tf_slim(module: str) -> str:
  unit, kind = module.split('/')
  ends = {'stem': 'Conv', 'head': 'Conv_1'}
  name = ends.get(unit) or re.sub(r'block_(\d+)', r'expanded_conv_\1', unit)
  name = name.replace('expanded_conv_0', 'expanded_conv')
  return f'{name}_BatchNorm' if kind == 'norm' else name


def _jaxsr(module: str) -> str:
  return module.replace('/', '.')


NAMINGS: dict[str, list[Naming]] = {
  network: [
    Naming('torchvision', 'torchvision', _torch_vgg(network)),
    Naming('Keras', 'caffe', _keras_vgg),
    Naming('jaxsr', 'torchvision', _jaxsr),
  ]
  for network in vgg.DEPTHS
}
NAMINGS['mobilenet_v2'] = [
  Naming('torchvision', 'torchvision', _torch_mobilenet().__getitem__),
  Naming('timm', 'torchvision', _timm_mobilenet().__getitem__),
  Naming('TF-slim', 'tf_slim', _tf_slim),
  Naming('jaxsr', 'torchvision', _jaxsr),
]
