"""Write the records of one shard of a local copy.

Each shard (an archive, or some images of a folder) becomes one ArrayRecord file per split and a
JSON report of their content. A shard is finished when its report exists. Each image is checked
once, and decoded if its record needs that; a damaged image is left out and reported.
"""

import functools
import io
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
from jaxsr.data.nih import archives, constants, identity, local_copy, metadata, splits
from jaxsr.data.nih.local_copy import LocalCopy, Shard
from jaxsr.data.nih.metadata import Entry
from jaxsr.data.nih.splits import Rule
from jaxsr.errors import ImageError, UserError, nearest
from jaxsr.files import release, sha256, write_json

MEGABYTES = {'raw': 1.13, 'zstd': 0.85, 'png': 0.38}  # per record; `png` is the size of a PNG file
_RELEASE = 100  # records between two releases of the page cache


class Plan(NamedTuple):
  """Everything that a worker must know to write records.

  Attributes:
    root: The folder of the local copy.
    tables: Published names, paths and SHA-256.
    folder: Where finished shards are kept until all are finished.
    rule: How patients are assigned to splits.
    labels: Findings, or `No Finding`, that an image must have; empty for all images.
    form: What a record contains: `raw`, `zstd` or `png` (`records.FORMS`).
    scale: The scale of the low resolution in the record.
  """

  root: str
  tables: tuple[tuple[str, str, str], ...]
  folder: str
  rule: Rule
  labels: tuple[str, ...]
  form: str
  scale: int

  @property
  def lists(self) -> dict[str, list[str]] | None:
    """The published lists of image names, or None if one of them is missing."""
    tables = {name: path for name, path, _ in self.tables}
    if not all(name in tables for name in constants.SPLIT_LISTS.values()):
      return None
    return {kind: metadata.read_list(Path(tables[n])) for kind, n in constants.SPLIT_LISTS.items()}

  def wanted(self) -> set[str]:
    """Returns the names of all images of the tables that have one of the findings."""
    entries, assigned = _tables(self)
    return {name for name in assigned if self.is_wanted(entries[name])}

  def is_wanted(self, entry: Entry) -> bool:
    """Whether an image has one of the findings."""
    return not self.labels or bool(
      set(entry.findings or (constants.NO_FINDING,)) & set(self.labels)
    )


def make_plan(
  found: LocalCopy,
  output: Path,
  *,
  rule: Rule,
  labels: Sequence[str] = (),
  form: str = 'raw',
  scale: int = 4,
) -> Plan:
  """Returns the plan for a copy; raises UserError if it is not valid or a table is wrong."""
  splits.check(rule)
  tables = tuple((name, str(path), sha256(path)) for name, path in sorted(found.tables.items()))
  if not any(name in found.tables for name in constants.ENTRY_TABLES):
    raise UserError(f'{found.root}: {constants.manual_download(constants.ENTRY_TABLES[0])}')
  for name, path in found.tables.items():
    metadata.check(path, name)
  known = (constants.NO_FINDING, *constants.FINDINGS)
  for label in labels:
    if label not in known:
      raise UserError(f'--labels {label!r} is unknown: {nearest(label, known)}')
  plan = Plan(str(found.root), tables, '', rule, tuple(labels), form, scale)
  name = identity.digest(plan, found.shards)
  return plan._replace(folder=str(output.resolve() / f'.unfinished-{name}'))


@functools.lru_cache(maxsize=1)
def _tables(plan: Plan) -> tuple[dict[str, Entry], dict[str, str]]:
  """Read the table of findings and assign the images to splits, once per process."""
  tables = {name: path for name, path, _ in plan.tables}
  entries = metadata.read_entries(
    Path(next(tables[n] for n in constants.ENTRY_TABLES if n in tables))
  )
  assigned = splits.assign(entries, plan.lists, plan.rule)
  for _, path, digest in plan.tables:  # after they were read, since they may change at any time
    if sha256(Path(path)) != digest:
      raise UserError(f'{path}: changed while records were written; {begin_again(plan)}')
  return entries, assigned


def write_shard(shard: Shard, plan: Plan) -> None:
  """Write a shard unless it is finished; an error is written to its error file."""
  try:
    if not report_file(plan, shard).exists():
      _write(shard, plan)
  except (UserError, OSError) as error:  # Beam would wrap it
    error_file(plan, shard).write_text(str(error), encoding='utf-8')


def _write(shard: Shard, plan: Plan) -> None:
  entries, assigned = _tables(plan)
  rows, failed, unlisted = [], [], []
  read_from = identity.of_shard(shard)  # before it is read
  serialize = serializer(plan.form)
  with _ShardWriter(plan, shard) as writer:
    for name, content in local_copy.read(shard):
      if isinstance(content, ImageError) and not archives.image_name(name):
        failed.append(str(content))
        continue
      entry, split = entries.get(name), assigned.get(name)
      if entry is None or split is None:
        unlisted.append(name)
        continue
      if not plan.is_wanted(entry):
        continue
      try:
        example = make_example(entry, content, plan)
      except ImageError as error:
        failed.append(str(error))
        continue
      writer.write(split, serialize(example))
      rows.append(metadata.index_row(entry, split))
  report = {'rows': rows, 'failed': failed, 'unlisted': unlisted, 'content': read_from}
  write_json(report_file(plan, shard), report)


def make_example(entry: Entry, content: bytes | ImageError, plan: Plan) -> dict[str, Any]:
  """Returns the record of an image; raises ImageError if it is not usable."""
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
  """Returns the file unchanged, decoded only if it cannot be checked otherwise."""
  if png.check(content, most=constants.IMAGE_SIDE**2) != (
    constants.IMAGE_SIDE,
    constants.IMAGE_SIDE,
  ):
    _decode(content, path)
  return {'png': content}


def _decode(content: bytes, path: Path) -> UInt8[np.ndarray, 'h w']:
  """Decode an image; raises ImageError if its size or type is not the published one."""
  side = constants.IMAGE_SIDE
  plain = png.decode(content, most=side**2)
  hr = image_files.decode(io.BytesIO(content), path) if plain is None else plain[..., None]
  if hr.shape != (side, side, 1) or hr.dtype != np.uint8:
    height, width, _ = hr.shape
    raise ImageError(path, f'is {width}x{height} {hr.dtype}, not {side}x{side} uint8')
  return hr[..., 0]


def _degrade(image: UInt8[np.ndarray, 'h w'], scale: int) -> dict[str, Any]:
  """Returns the high resolution, the low resolution and the error map of bicubic."""
  hr = degradation.cut(image, scale)
  lr = bicubic.downscale(hr, scale)
  error = bicubic.map_error(hr, lr)
  return {'hr': image[..., None], 'lr': lr[..., None], 'error': error}


class _ShardWriter:
  """Writes the records of a shard by split, and renames the files if there was no error.

  A shard may have 11 GB, and on a virtual machine, new memory for the page cache can be slower than
  the disk. Therefore the cache of the written pages is released every `_RELEASE` records.
  """

  def __init__(self, plan: Plan, shard: Shard):
    self._plan, self._shard, self._count = plan, shard, 0
    self._writers: dict[str, ArrayRecordWriter] = {}

  def __enter__(self) -> '_ShardWriter':
    return self

  def _unfinished(self, split: str) -> Path:
    return Path(f'{record_file(self._plan, self._shard, split)}.part')

  def write(self, split: str, record: bytes) -> None:
    """Append a record to the file of its split."""
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
  """Returns the path of the records of a shard and a split."""
  return Path(plan.folder, f'{shard.number:05d}-{split}.array_record')


def begin_again(plan: Plan) -> str:
  """Returns the way out if the copy has changed since a run began."""
  return f'delete {plan.folder} to begin again'


def report_file(plan: Plan, shard: Shard) -> Path:
  """Returns the path of the report of a shard, which exists once the shard is finished."""
  return Path(plan.folder, f'{shard.number:05d}.json')


def error_file(plan: Plan, shard: Shard) -> Path:
  """Returns the path of the error message of a shard that could not be written."""
  return Path(plan.folder, f'{shard.number:05d}.error')


def features(form: str) -> tfds.features.FeaturesDict:
  """Returns the TFDS features of a record."""
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
      'sex': tfds.features.ClassLabel(names=metadata.SEXES),
      'view': tfds.features.ClassLabel(names=metadata.VIEWS),
      'original_size': tfds.features.Tensor(shape=(2,), dtype=np.int32),
      'original_spacing': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
  )


def serializer(form: str) -> Callable[[dict[str, Any]], bytes]:
  """Returns a function that serializes records.

  The same record always gives the same bytes, unlike in TFDS, which does not sort its maps.
  """
  described: Any = features(form)
  writer = ExampleSerializer(described.get_serialized_info())

  def serialize(example: dict[str, Any]) -> bytes:
    found = writer.get_tf_example(described.encode_example(example))
    return found.SerializeToString(deterministic=True)

  return serialize


def check_room(plan: Plan, shards: Sequence[Shard], output: Path) -> None:
  """Raise UserError if the disk has too little space for the missing shards."""
  missing = [shard for shard in shards if not report_file(plan, shard).exists()]
  packed = [Path(shard.path).stat().st_size / 1e6 for shard in missing if not shard.files]
  images = sum(len(shard.files) for shard in missing) + sum(packed) / MEGABYTES['png']
  needed, free = images * MEGABYTES[plan.form] / 1e3, shutil.disk_usage(output).free / 1e9
  if needed > free:
    raise UserError(
      f'{output}: the records need about {needed:.1f} GB, but {free:.1f} GB are free; free some '
      'space, or choose another --output or --form png'
    )
