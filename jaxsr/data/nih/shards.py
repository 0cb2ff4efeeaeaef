"""The units of work that records are made in: what one is, and how it is written.

Each unit of a copy (an archive, or some images of a folder) becomes one file of ArrayRecord for
each split, and a small JSON that says what is in them. A unit is done when its JSON is there.
Every image is checked once, and decoded where its record needs that; one that is damaged is left
out, and named.
"""

import functools
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import UInt8
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from jaxsr.data import degradation, image_files, records
from jaxsr.data.fast import bicubic, png
from jaxsr.data.nih import constants, local_copy, metadata, splits
from jaxsr.data.nih.local_copy import LocalCopy, Shard
from jaxsr.data.nih.metadata import Entry
from jaxsr.data.nih.splits import Rule
from jaxsr.errors import ImageError, UserError
from jaxsr.files import release, write_json

MEGABYTES = {'raw': 1.13, 'zstd': 0.85, 'png': 0.38}  # of a record; a PNG file has as many as `png`
_RELEASE = 100  # records, after which what was written goes to the disk


class Plan(NamedTuple):
  """What is written from a copy: everything that a worker must know.

  `labels` are findings, or `No Finding`; where there are any, other images are left out.
  """

  root: str
  tables: tuple[tuple[str, str], ...]
  folder: str  # where finished units are kept
  rule: Rule
  labels: tuple[str, ...]
  form: str
  scale: int

  @property
  def lists(self) -> dict[str, list[str]] | None:
    """Read the publisher's lists of names; None where they are not all here."""
    tables = dict(self.tables)
    if not all(name in tables for name in constants.SPLIT_LISTS.values()):
      return None
    return {kind: metadata.read_list(Path(tables[n])) for kind, n in constants.SPLIT_LISTS.items()}


def make_plan(
  found: LocalCopy,
  output: Path,
  *,
  rule: Rule,
  labels: Sequence[str] = (),
  form: str = 'raw',
  scale: int = 4,
) -> Plan:
  """Lay out what is written; raises UserError where the table of findings is missing."""
  splits.check(rule)
  tables = tuple((name, str(path)) for name, path in sorted(found.tables.items()))
  if not any(name in found.tables for name in constants.ENTRY_TABLES):
    raise UserError(f'{found.root}: {constants.manual_download(constants.ENTRY_TABLES[0])}')
  known = (constants.NO_FINDING, *constants.FINDINGS)
  for label in labels:
    if label not in known:
      raise UserError(f'--labels {label!r} is unknown: there are {", ".join(known)}')
  plan = Plan(str(found.root), tables, '', rule, tuple(labels), form, scale)
  described = repr((plan, found.shards, [os.path.getsize(path) for _, path in tables]))
  name = hashlib.sha256(described.encode()).hexdigest()[:12]
  return plan._replace(folder=str(output.resolve() / f'.unfinished-{name}'))


@functools.lru_cache(maxsize=1)
def _tables(plan: Plan) -> tuple[dict[str, Entry], dict[str, str]]:
  """Read what is known of the images, and deal them out; once in each process."""
  tables = dict(plan.tables)
  entries = metadata.read_entries(
    Path(next(tables[n] for n in constants.ENTRY_TABLES if n in tables))
  )
  return entries, splits.assign(entries, plan.lists, plan.rule)


def write_shard(shard: Shard, plan: Plan) -> None:
  """Write a unit, if it is not there yet; what keeps it from that is written beside it."""
  try:
    if not report_file(plan, shard).exists():
      _write(shard, plan)
  except (UserError, OSError) as error:  # Beam would wrap it
    error_file(plan, shard).write_text(str(error), encoding='utf-8')


def _write(shard: Shard, plan: Plan) -> None:
  entries, assigned = _tables(plan)
  rows, failed, unlisted = [], [], []
  serialize = serializer(plan.form)
  with _ShardWriter(plan, shard) as writer:
    for name, content in local_copy.read(shard):
      entry, split = entries.get(name), assigned.get(name)
      if entry is None or split is None:
        unlisted.append(name)
        continue
      if plan.labels and not set(entry.findings or (constants.NO_FINDING,)) & set(plan.labels):
        continue
      try:
        example = make_example(entry, content, plan)
      except ImageError as error:
        failed.append(str(error))
        continue
      writer.write(split, serialize(example))
      rows.append(metadata.index_row(entry, split))
  write_json(report_file(plan, shard), {'rows': rows, 'failed': failed, 'unlisted': unlisted})


def make_example(entry: Entry, content: bytes | ImageError, plan: Plan) -> dict[str, Any]:
  """Check an image and turn it into a record; raises ImageError where it is of no use."""
  path = Path(entry.name)
  if isinstance(content, ImageError):
    raise content
  if plan.form == 'png':
    image = _pack(content, path)
  else:
    image = _degrade(_decode(content, path), plan.scale)
  return image | {
    'name': entry.name,
    'patient': entry.patient,
    'findings': entry.findings,
    'age': entry.age,
    'sex': entry.sex,
    'view': entry.view,
    'original_size': np.array((entry.width, entry.height), np.int32),
    'original_spacing': np.array(entry.spacing, np.float32),
  }


def _pack(content: bytes, path: Path) -> dict[str, Any]:
  """Keep a file as it is; what cannot be checked without decoding is decoded."""
  if png.check(content, most=constants.IMAGE_SIDE**2) != (
    constants.IMAGE_SIDE,
    constants.IMAGE_SIDE,
  ):
    _decode(content, path)
  return {'png': content}


def _decode(content: bytes, path: Path) -> UInt8[np.ndarray, 'h w']:
  """Decode an image; raises ImageError where it is not one that was published."""
  side = constants.IMAGE_SIDE
  plain = png.decode(content, most=side**2)
  hr = image_files.decode(io.BytesIO(content), path) if plain is None else plain[..., None]
  if hr.shape != (side, side, 1) or hr.dtype != np.uint8:
    height, width, _ = hr.shape
    raise ImageError(path, f'is {width}x{height} {hr.dtype}, not {side}x{side} uint8')
  return hr[..., 0]


def _degrade(image: UInt8[np.ndarray, 'h w'], scale: int) -> dict[str, Any]:
  """Make of an image what training reads."""
  hr = degradation.cut(image, scale)
  lr = bicubic.downscale(hr, scale)
  error = bicubic.map_error(hr, lr)
  return {'hr': image[..., None], 'lr': lr[..., None], 'error': error}


class _ShardWriter:
  """Writes a unit's records by split; the files have their names only if all went well.

  A unit may have 11 GB, and memory that is new to a virtual machine takes longer to get than
  the disk to write: what was written is released every `_RELEASE` records.
  """

  def __init__(self, plan: Plan, shard: Shard):
    self._plan, self._shard, self._count = plan, shard, 0
    self._writers: dict[str, ArrayRecordWriter] = {}

  def __enter__(self) -> '_ShardWriter':
    return self

  def _unfinished(self, split: str) -> Path:
    return Path(f'{record_file(self._plan, self._shard, split)}.part')

  def write(self, split: str, record: bytes) -> None:
    """Append a record to its split's file."""
    if split not in self._writers:
      path = str(self._unfinished(split))
      self._writers[split] = ArrayRecordWriter(path, records.FORMS[self._plan.form])
    self._writers[split].write(record)
    self._count += 1
    if self._count % _RELEASE == 0:
      for each in self._writers:
        release(self._unfinished(each))

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    for split, writer in self._writers.items():
      writer.close()
      path = self._unfinished(split)
      if kind is None:
        release(path)
        path.replace(record_file(self._plan, self._shard, split))
      else:
        path.unlink()


def record_file(plan: Plan, shard: Shard, split: str) -> Path:
  """Name a unit's file of records of a split."""
  return Path(plan.folder, f'{shard.number:05d}-{split}.array_record')


def digest(plan: Plan) -> str:
  """Give what tells a plan and its copy from others."""
  return plan.folder.rpartition('-')[2]


def report_file(plan: Plan, shard: Shard) -> Path:
  """Name the JSON of a unit, which is there when it is done."""
  return Path(plan.folder, f'{shard.number:05d}.json')


def error_file(plan: Plan, shard: Shard) -> Path:
  """Name the file that says why a unit could not be written."""
  return Path(plan.folder, f'{shard.number:05d}.error')


def features(form: str) -> tfds.features.FeaturesDict:
  """Describe a record."""
  tensor = functools.partial(tfds.features.Tensor, encoding='bytes')
  plane = tensor(shape=(None, None, 1), dtype=np.uint8)
  raw = {'hr': plane, 'lr': plane, 'error': tensor(shape=(None,), dtype=np.float32)}
  return tfds.features.FeaturesDict(
    ({'png': tfds.features.Text()} if form == 'png' else raw)
    | {
      'name': tfds.features.Text(),
      'patient': tfds.features.Text(),
      'findings': tfds.features.Sequence(tfds.features.ClassLabel(names=constants.FINDINGS)),
      'age': np.int32,
      'sex': tfds.features.ClassLabel(names=['F', 'M']),
      'view': tfds.features.ClassLabel(names=['AP', 'PA']),
      'original_size': tfds.features.Tensor(shape=(2,), dtype=np.int32),
      'original_spacing': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
  )


def serializer(form: str) -> Callable[[dict[str, Any]], bytes]:
  """Make what writes records, the same bytes for the same film; TFDS's own leaves maps unsorted."""
  described: Any = features(form)
  writer = ExampleSerializer(described.get_serialized_info())

  def serialize(example: dict[str, Any]) -> bytes:
    found = writer.get_tf_example(described.encode_example(example))
    return found.SerializeToString(deterministic=True)

  return serialize


def check_room(plan: Plan, shards: Sequence[Shard], output: Path) -> None:
  """Raise UserError where the disk has no room for the units that are missing."""
  missing = [shard for shard in shards if not report_file(plan, shard).exists()]
  packed = [Path(shard.path).stat().st_size / 1e6 for shard in missing if not shard.files]
  images = sum(len(shard.files) for shard in missing) + sum(packed) / MEGABYTES['png']
  needed, free = images * MEGABYTES[plan.form] / 1e3, shutil.disk_usage(output).free / 1e9
  if needed > free:
    raise UserError(
      f'{output}: the records take about {needed:.1f} GB, and {free:.1f} are free; make room, '
      'choose another --output, or --form png'
    )
