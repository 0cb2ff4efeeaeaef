"""A package: the weights, config, figures and model card of a trained network in one folder."""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jaxsr import __version__
from jaxsr.compression import quantize
from jaxsr.errors import UserError
from jaxsr.files import new_folder, read_json, sha256, write_json, write_text

DEFAULT, DEFAULT_SCALE = 'edsr_x{scale}', 4
WEIGHTS, CONFIG, METRICS, CARD = 'model.safetensors', 'config.json', 'metrics.json', 'README.md'
CALIBRATION, TRAINING_FILMS = 'calibration.json', 'training_films.txt'


class Package(NamedTuple):
  """The config and the origin of a package.

  `config` has the sections `model`, `scale`, `channels`, `precision` and, of a slimmable network,
  `slimmable`. `origin` holds how it was trained: step, data, loss terms, versions.
  """

  config: dict[str, Any]
  origin: dict[str, Any]


def find(name: str) -> Path | None:
  """Returns the folder of a package, given that folder or the package's name; None if none is."""
  places = [Path(name).expanduser(), *(folder / name for folder in _folders())]
  return next((path for path in places if (path / WEIGHTS).is_file()), None)


def names() -> list[str]:
  """List the names of the packages that are found by name, sorted."""
  found = (folder.glob(f'*/{WEIGHTS}') for folder in _folders())
  return sorted({path.parent.name for paths in found for path in paths})


def default(scale: int | None) -> str:
  """Returns the name of the pretrained model for a scale; raises UserError if there is none."""
  scale = DEFAULT_SCALE if scale is None else scale
  name = DEFAULT.format(scale=scale)
  if find(name) is None:
    known = ', '.join(names()) or 'none'
    raise UserError(
      f'scale {scale}: there is no pretrained model for it; name a checkpoint. Pretrained: {known}'
    )
  return name


def has_default(scale: int) -> bool:
  """Whether there is a pretrained model for a scale."""
  return find(DEFAULT.format(scale=scale)) is not None


def _folders() -> tuple[Path, ...]:
  """List the folders of packages: `checkpoints/` here, in the repository, and as installed."""
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
  more: dict[str, str] | None = None,
) -> None:
  """Write a package to a new folder, completely or not at all.

  Args:
    folder: the new folder.
    variables: the network's variables.
    package: its config and origin.
    metrics: the content of `metrics.json`.
    card: the text of the model card; `{hashes}` in it is replaced by the table of SHA-256 sums.
    int8: store kernels as 8-bit integers.
    more: the texts of further files, by name.

  Raises:
    UserError: the folder exists and is not empty, or cannot be written.
  """
  tensors = to_tensors(variables)
  tensors = quantize.quantize(tensors) if int8 else tensors
  with new_folder(folder) as new:
    metadata = {'format': 'jaxsr', 'version': __version__}
    (new / WEIGHTS).write_bytes(save(tensors, metadata=metadata))
    sums = {WEIGHTS: sha256(new / WEIGHTS)}
    config = {'config': package.config, 'origin': package.origin, 'sha256': sums}
    write_json(new / CONFIG, config)
    write_json(new / METRICS, metrics)
    for name, text in (more or {}).items():
      write_text(new / name, text)
    hashes = {name: sha256(new / name) for name in (WEIGHTS, CONFIG, METRICS, *(more or {}))}
    write_text(new / CARD, card.replace('{hashes}', _table(hashes)))


def _table(hashes: dict[str, str]) -> str:
  rows = [f'| `{name}` | `{value}` |' for name, value in hashes.items()]
  return '\n'.join(['| File | SHA-256 |', '|---|---|', *rows])


def to_tensors(variables: Any) -> dict[str, np.ndarray]:
  """Returns a network's variables as float32 arrays, by their paths."""
  flat: dict[Any, Any] = flatten_dict(jax.device_get(variables))
  return {'/'.join(path): np.array(x, np.float32, order='C') for path, x in flat.items()}


def read_metrics(folder: Path) -> dict[str, Any]:
  """Read the metrics of a package; empty if it has none."""
  try:
    return dict(read_json(folder / METRICS))
  except (ValueError, TypeError, OSError):
    return {}


def read_config(folder: Path) -> Package:
  """Read the config of a package, and check it against the SHA-256 in the model card.

  Raises UserError if it cannot be read or was changed.
  """
  path = folder / CONFIG
  try:
    found = read_json(path)
    content = path.read_bytes().replace(b'\r\n', b'\n')  # of checkouts by Git on Windows
    result = Package(dict(found['config']), dict(found['origin']))
  except (ValueError, KeyError, TypeError, OSError) as error:
    raise UserError(
      f'{path}: is not the config of a package ({error}); fetch the package again'
    ) from error
  _check_sum(path, content, _sum_in_card(folder, CONFIG))
  return result


def read(folder: Path, target: Any) -> Any:
  """Read a package's variables, and check them against the SHA-256 in its config or model card.

  Args:
    folder: the package.
    target: the shapes and shardings of the variables.

  Raises:
    UserError: the file is damaged, or holds another network.
  """
  path = folder / WEIGHTS
  try:
    content = path.read_bytes()
    _check_sum(path, content, _expected_sum(folder))
    tensors = load(content)
  except (SafetensorError, OSError) as error:
    raise UserError(f'{path}: is not a complete safetensors file ({error})') from error
  tensors = quantize.restore(tensors)
  wanted: dict[Any, Any] = flatten_dict(target)
  names = {'/'.join(map(str, key)): key for key in wanted}
  if strange := sorted(names.keys() ^ tensors.keys()):
    raise UserError(
      f'{path}: does not hold the network in {CONFIG}; only one of them has {strange[0]}'
    )
  found = {}
  for name, key in names.items():
    x, shape = tensors[name], wanted[key]
    if x.shape != shape.shape:
      raise UserError(f'{path}: {name} is {x.shape}, but {CONFIG} asks for {shape.shape}')
    if not np.isfinite(x).all():
      raise UserError(f'{path}: {name} has values that are not finite')
    found[key] = jax.device_put(x, getattr(shape, 'sharding', None))
  empty = {collection: {} for collection in target}  # as batch_stats of a network without any
  return empty | unflatten_dict(found)


def _check_sum(path: Path, content: bytes, expected: str | None) -> None:
  """Raise UserError if a file is not the one that the package was written with."""
  found = hashlib.sha256(content).hexdigest()
  if expected not in (None, found):
    raise UserError(
      f'{path}: is damaged or was replaced: its SHA-256 is {found[:16]}..., not '
      f'{expected[:16]}... as when it was written; fetch the package again'
    )


def _expected_sum(folder: Path) -> str | None:
  """Returns the SHA-256 of the weights: config.json has it, or the card of older packages."""
  config = read_json(folder / CONFIG)
  if 'sha256' not in config:
    return _sum_in_card(folder, WEIGHTS)
  try:
    return str(config['sha256'][WEIGHTS])
  except (TypeError, KeyError) as error:
    raise UserError(
      f'{folder / CONFIG}: has no SHA-256 of {WEIGHTS} in "sha256"; fetch the package again'
    ) from error


def _sum_in_card(folder: Path, name: str) -> str | None:
  """Returns the SHA-256 of a file in the model card; None if the card or its line is missing."""
  try:
    card = (folder / CARD).read_text(encoding='utf-8', errors='replace')
  except OSError:
    return None
  found = re.search(rf'`{re.escape(name)}` \| `([0-9a-f]{{64}})`', card)
  return found[1] if found else None
