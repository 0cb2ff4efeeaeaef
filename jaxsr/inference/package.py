"""A network as it is shipped: weights, config, figures and a model card in one folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxsr import __version__
from jaxsr.compression import quantize
from jaxsr.errors import UserError
from jaxsr.files import new_folder, sha256, write_json, write_text

DEFAULT, DEFAULT_SCALE = 'edsr_x{scale}', 4
WEIGHTS, CONFIG, METRICS, CARD = 'model.safetensors', 'config.json', 'metrics.json', 'README.md'


class Package(NamedTuple):
  """What a package's `config.json` holds beside its variables.

  `config` has the sections `model`, `scale`, `channels`, `precision` and, of a slimmable network,
  `slimmable`; `origin` says where it comes from: step, data, terms, versions.
  """

  config: dict[str, Any]
  origin: dict[str, Any]


def find(name: str) -> Path | None:
  """Find a package by its folder, or by its name where packages lie."""
  places = [Path(name), *(folder / name for folder in _folders())]
  return next((path for path in places if (path / WEIGHTS).is_file()), None)


def names() -> list[str]:
  """List the packages that have names."""
  found = (folder.glob(f'*/{WEIGHTS}') for folder in _folders())
  return sorted({path.parent.name for paths in found for path in paths})


def default(scale: int | None) -> str:
  """Name the package that enlarges where none is named; raises UserError."""
  scale = DEFAULT_SCALE if scale is None else scale
  name = DEFAULT.format(scale=scale)
  if find(name) is None:
    known = ', '.join(names()) or 'none'
    raise UserError(f'scale {scale}: give --checkpoint; weights that come along: {known}')
  return name


def _folders() -> tuple[Path, ...]:
  """List where packages lie: in `checkpoints/` here, in the project, or as it was installed."""
  inside = Path(__file__).resolve().parents[1]
  return Path('checkpoints').resolve(), inside.parent / 'checkpoints', inside / 'checkpoints'


def write(
  folder: Path,
  variables: Any,
  package: Package,
  *,
  metrics: dict[str, Any],
  card: str,
  int8: bool,
) -> None:
  """Write a package to a new folder, whole or not at all; `card` has a place `{hashes}`.

  Raises UserError where something is there already.
  """
  tensors = to_tensors(variables)
  tensors = quantize.quantize(tensors) if int8 else tensors
  with new_folder(folder) as new:
    metadata = {'format': 'jaxsr', 'version': __version__}
    (new / WEIGHTS).write_bytes(save(tensors, metadata=metadata))
    write_json(new / CONFIG, {'config': package.config, 'origin': package.origin})
    write_json(new / METRICS, metrics)
    hashes = {name: sha256(new / name) for name in (WEIGHTS, CONFIG, METRICS)}
    write_text(new / CARD, card.replace('{hashes}', _table(hashes)))


def _table(hashes: dict[str, str]) -> str:
  rows = [f'| `{name}` | `{value}` |' for name, value in hashes.items()]
  return '\n'.join(['| File | SHA-256 |', '|---|---|', *rows])


def to_tensors(variables: Any) -> dict[str, np.ndarray]:
  """Name a network's variables by their paths, as float32."""
  flat: dict[Any, Any] = flatten_dict(jax.device_get(variables))
  return {'/'.join(path): np.array(x, np.float32, order='C') for path, x in flat.items()}


def read_config(folder: Path) -> Package:
  """Read what a package is; raises UserError where that cannot be read."""
  path = folder / CONFIG
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    return Package(dict(found['config']), dict(found['origin']))
  except (ValueError, KeyError, TypeError, OSError) as error:
    raise UserError(f'{path}: is not the config of a package ({error})') from error


def read(folder: Path, target: Any) -> Any:
  """Read a package's variables; `target` gives their shapes and shardings.

  Raises UserError where the file is damaged, or holds another network.
  """
  path = folder / WEIGHTS
  try:
    with safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (SafetensorError, OSError) as error:
    raise UserError(f'{path}: is no whole safetensors file ({error})') from error
  tensors = quantize.restore(tensors)
  wanted: dict[Any, Any] = flatten_dict(target)
  names = {'/'.join(map(str, key)): key for key in wanted}
  if strange := sorted(names.keys() ^ tensors.keys()):
    raise UserError(f'{path}: is not of the network in {CONFIG}; {strange[0]} is in one of them')
  found = {}
  for name, key in names.items():
    x, shape = tensors[name], wanted[key]
    if x.shape != shape.shape:
      raise UserError(f'{path}: {name} is {x.shape}, {CONFIG} asks for {shape.shape}')
    if not np.isfinite(x).all():
      raise UserError(f'{path}: {name} is not finite')
    found[key] = jax.device_put(x, getattr(shape, 'sharding', None))
  empty = {collection: {} for collection in target}  # such as a network's without statistics
  return empty | unflatten_dict(found)
