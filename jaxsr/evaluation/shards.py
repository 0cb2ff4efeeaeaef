"""The figures of the parts of an evaluation that several processes share.

Part I of N writes `shards/I_of_N.json` into the output folder. An evaluation of all images, with
the same options and output, takes the figures from there and measures only the missing images, and
those whose figures do not match the digest that was written with them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsr.data.shard import Shard
from jaxsr.errors import UserError, count, warn
from jaxsr.evaluation.evaluator import Figures
from jaxsr.evaluation.figures import FIGURES
from jaxsr.files import digest_json, make_folder, read_json, write_json

FOLDER = 'shards'

# What is said of settings that are digests.
_OTHER = {
  'images': 'on other images',
  'made_by': 'with other weights, or by another version',
  'boxes': 'with the boxes of other --tables',
  'rule': 'for a model with another range of inputs',
  'feature_weights': 'with other --feature-weights',
}


class Measured(NamedTuple):
  """The measurement of an image: its figures, those inside boxes, or the reason for having none."""

  row: Figures | None
  inside: Sequence[Figures] = ()
  reason: str = ''
  content: str = ''  # the image's, as `fingerprint.of_image` gives it; older versions kept none


_NEEDED_INSIDE = ('psnr', 'bicubic_psnr', 'ssim', 'bicubic_ssim')
_TEXTS = ('file', 'finding', 'patient')


def is_whole(found: Measured) -> bool:
  """Whether a measurement that was read has all figures as finite numbers, or a reason."""
  if not (isinstance(found.reason, str) and isinstance(found.content, str)):
    return False
  if not isinstance(found.inside, list | tuple):
    return False
  if found.row is None:
    return bool(found.reason) and not found.inside
  inside = [_has(each, _NEEDED_INSIDE, _TEXTS) for each in found.inside]
  return _has(found.row, needed(), ('file',)) and all(inside)


def needed() -> tuple[str, ...]:
  """Returns the figures that every row of an image has as finite numbers."""
  own = ('mse', *(name for name, figure in FIGURES.items() if figure.always))
  return (*own, *(f'bicubic_{name}' for name in own))


def _has(row: Any, numbers: Sequence[str], texts: Sequence[str]) -> bool:
  """Whether a row has these texts and numbers, and otherwise only numbers and None."""
  if not isinstance(row, dict) or not {*numbers, *texts} <= row.keys():
    return False
  values = {name: value for name, value in row.items() if name not in texts}
  return all(isinstance(row[name], str) for name in texts) and all(
    name not in numbers if value is None else _is_finite(value) for name, value in values.items()
  )


def _is_finite(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value)


def write(
  output: Path, shard: Shard, options: Mapping[str, Any], found: Mapping[str, Measured]
) -> None:
  """Write the figures of a part.

  Args:
    output: The folder of the evaluation.
    shard: The part.
    options: The settings that the figures depend on, equal for all parts.
    found: The measurements, by the names of the images.
  """
  folder = output / FOLDER
  make_folder(folder)
  images = {name: each._asdict() | {'sum': _sum(name, each)} for name, each in found.items()}
  write_json(_path(folder, shard), {'options': dict(options), 'images': images})


def read(output: Path, options: Mapping[str, Any]) -> dict[str, Measured]:
  """Read the figures of all parts by the names of the images, and print which parts are missing.

  Raises:
    UserError: The parts were measured with other options, or are not of one division.
  """
  files = sorted((output / FOLDER).glob('*_of_*.json'))
  counts = {_count(path) for path in files}
  if len(counts) > 1:
    raise UserError(f'{output / FOLDER}: holds parts of different divisions; delete the folder')
  found: dict[str, Measured] = {}
  for path in files:
    part = _load(path)
    for name, value in json.loads(json.dumps(dict(options))).items():
      if part['options'].get(name) != value:
        was = part['options'].get(name)
        what = _OTHER.get(name, f'with {name} {was}, not {value}')
        raise UserError(f'{path}: was measured {what}; delete it')
    found |= part['images']
  missing = max(counts, default=0) - len(files)
  if missing > 0:
    warn(f'{output / FOLDER}: {count(missing, "part")} missing; their images are measured here')
  return found


def _sum(name: str, measured: Measured) -> str:
  return digest_json([name, measured._asdict()])


def _path(folder: Path, shard: Shard) -> Path:
  return folder / f'{shard.number}_of_{shard.count}.json'


def _count(path: Path) -> int:
  """Returns of how many parts a file is one."""
  number, _, count = path.stem.partition('_of_')
  if not (number.isdecimal() and count.isdecimal()):
    raise UserError(f'{path}: is not a part of an evaluation; delete it')
  return int(count)


def _load(path: Path) -> dict[str, Any]:
  try:
    part = read_json(path)
    sums = {name: each.pop('sum', None) for name, each in part['images'].items()}
    images = {name: Measured(**each) for name, each in part['images'].items()}
    if len({tuple(each.row) for each in images.values() if each.row}) > 1:
      raise ValueError('figures are missing')
    if not all(is_whole(each) for each in images.values()):
      raise ValueError('a measurement is not whole')
    same = {name: each for name, each in images.items() if sums[name] == _sum(name, each)}
    if damaged := len(images) - len(same):
      warn(f'{path}: {count(damaged, "image")} not as written; measured again')
    images = same
    return {'options': dict(part['options']), 'images': images}
  except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
    raise UserError(f'{path}: is not a part of an evaluation; delete it') from error
