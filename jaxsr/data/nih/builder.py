"""Write NIH ChestX-ray14 as records: a TFDS builder whose work is a Beam pipeline.

Each unit of a copy (an archive, or some images of a folder) becomes one file of ArrayRecord
for each split, and a small JSON that says what is in them. A unit is done when its JSON is there,
so that a run which was killed goes on; the files get their final names when all units are done.
What is written depends on the copy and the settings alone, not on runners and workers.

Every image is decoded and checked once. One that is damaged is left out, and named.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from jaxsr.data import degradation, film, images, records
from jaxsr.data.nih import holdings, metadata, publisher, splits
from jaxsr.data.nih.holdings import Holdings, Part
from jaxsr.data.nih.metadata import Entry
from jaxsr.data.nih.splits import Rule
from jaxsr.data.records import Facts, Row
from jaxsr.errors import ImageError, UserError, brief, flat
from jaxsr.files import write_json

MEGABYTES = {'raw': 1.13, 'zstd': 0.85, 'png': 0.38}  # of a record; a PNG file has as many as `png`


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
    if not all(name in tables for name in publisher.LISTS.values()):
      return None
    return {kind: metadata.read_list(Path(tables[n])) for kind, n in publisher.LISTS.items()}


def make_plan(
  found: Holdings,
  output: Path,
  *,
  rule: Rule,
  labels: Sequence[str] = (),
  form: str = 'raw',
  scale: int = 4,
) -> Plan:
  """Lay out what is written; raises UserError where the table of findings is missing."""
  tables = tuple((name, str(path)) for name, path in sorted(found.tables.items()))
  if not any(name in found.tables for name in publisher.ENTRIES):
    raise UserError(f'{found.root}: {publisher.by_hand(publisher.ENTRIES[0])}')
  known = (publisher.NORMAL, *publisher.FINDINGS)
  for label in labels:
    if label not in known:
      raise UserError(f'--labels {label!r} is unknown: there are {", ".join(known)}')
  plan = Plan(str(found.root.resolve()), tables, '', rule, tuple(labels), form, scale)
  described = repr((plan, found.parts, [os.path.getsize(path) for _, path in tables]))
  digest = hashlib.sha256(described.encode()).hexdigest()[:12]
  return plan._replace(folder=str(output.resolve() / f'.unfinished-{digest}'))


@functools.lru_cache(maxsize=1)
def _tables(plan: Plan) -> tuple[dict[str, Entry], dict[str, str]]:
  """Read what is known of the images, and deal them out; once in each process."""
  tables = dict(plan.tables)
  entries = metadata.read_entries(Path(next(tables[n] for n in publisher.ENTRIES if n in tables)))
  return entries, splits.deal(entries, plan.lists, plan.rule)


def write_part(part: Part, plan: Plan) -> None:
  """Write a unit, if it is not there yet; what keeps it from that is written beside it."""
  try:
    if not _done(plan, part).exists():
      _write(part, plan)
  except (UserError, OSError) as error:  # Beam would wrap it
    _error(plan, part).write_text(str(error), encoding='utf-8')


def _write(part: Part, plan: Plan) -> None:
  entries, dealt = _tables(plan)
  rows, failed, strangers = [], [], []
  serialize = features(plan.form).serialize_example
  with _Shards(plan, part) as shards:
    for name, content in holdings.read(part):
      entry, split = entries.get(name), dealt.get(name)
      if entry is None or split is None:
        strangers.append(name)
        continue
      if plan.labels and not set(entry.findings or (publisher.NORMAL,)) & set(plan.labels):
        continue
      try:
        example = make_example(entry, content, plan)
      except ImageError as error:
        failed.append(str(error))
        continue
      shards.write(split, serialize(example))
      rows.append(metadata.row(entry, split))
  write_json(_done(plan, part), {'rows': rows, 'failed': failed, 'strangers': strangers})


def make_example(entry: Entry, content: bytes | None, plan: Plan) -> dict[str, Any]:
  """Check an image and turn it into a record; raises ImageError where it is of no use."""
  path = Path(entry.name)
  if content is None:
    raise ImageError(path, f'is larger than {holdings.MAX_IMAGE >> 20} MiB')
  hr = images.decode(io.BytesIO(content), path)
  if hr.shape != (publisher.SIDE, publisher.SIDE, 1) or hr.dtype != np.uint8:
    height, width, _ = hr.shape
    raise ImageError(
      path, f'is {width}x{height} {hr.dtype}, not {publisher.SIDE}x{publisher.SIDE} uint8'
    )
  if plan.form == 'png':
    image: dict[str, Any] = {'png': content}
  else:
    lr = degradation.downscale(hr, plan.scale)
    image = {'hr': hr, 'lr': lr, 'error': film.map_error(hr, lr)}
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


class _Shards:
  """Writes a unit's records by split; the files have their names only if all went well."""

  def __init__(self, plan: Plan, part: Part):
    self._plan, self._part = plan, part
    self._writers: dict[str, ArrayRecordWriter] = {}

  def __enter__(self) -> '_Shards':
    return self

  def write(self, split: str, record: bytes) -> None:
    """Append a record to its split's file."""
    if split not in self._writers:
      path = f'{_shard(self._plan, self._part, split)}.part'
      self._writers[split] = ArrayRecordWriter(path, records.FORMS[self._plan.form])
    self._writers[split].write(record)

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    for split, writer in self._writers.items():
      writer.close()
      path = _shard(self._plan, self._part, split)
      part = Path(f'{path}.part')
      part.replace(path) if kind is None else part.unlink()


def _shard(plan: Plan, part: Part, split: str) -> Path:
  return Path(plan.folder, f'{part.number:05d}-{split}.array_record')


def _digest(plan: Plan) -> str:
  return plan.folder.rpartition('-')[2]


def _done(plan: Plan, part: Part) -> Path:
  return Path(plan.folder, f'{part.number:05d}.json')


def _error(plan: Plan, part: Part) -> Path:
  return Path(plan.folder, f'{part.number:05d}.error')


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
      'findings': tfds.features.Sequence(tfds.features.ClassLabel(names=publisher.FINDINGS)),
      'age': np.int32,
      'sex': tfds.features.ClassLabel(names=['F', 'M']),
      'view': tfds.features.ClassLabel(names=['AP', 'PA']),
      'original_size': tfds.features.Tensor(shape=(2,), dtype=np.int32),
      'original_spacing': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
  )


class NihChestXray14(FileReaderBuilder):
  """NIH ChestX-ray14: chest films with their low resolutions, findings and patients."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, plan: Plan | None = None, parts: Sequence[Part] = (), **options: Any):
    self._plan, self._parts = plan, tuple(parts)
    super().__init__(file_format='array_record', **options)

  def _info(self) -> tfds.core.DatasetInfo:
    form = self._plan.form if self._plan else 'raw'
    return tfds.core.DatasetInfo(
      builder=self,
      description=publisher.TERMS,
      features=features(form),
      homepage=publisher.HOME,
      disable_shuffling=True,
    )

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    """Run the pipeline, then give the finished files their names."""
    del dl_manager
    if self._plan is None:
      raise UserError('records are made from a copy: jaxsr data prepare nih DATA --output RECORDS')
    plan, folder = self._plan, Path(self._plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (*folder.glob('*.part'), *folder.glob('*.error')):
      left.unlink()
    options = download_config.beam_options or PipelineOptions([])
    with beam.Pipeline(runner=download_config.beam_runner, options=options) as pipeline:
      _ = (
        pipeline
        | beam.Create(list(self._parts), reshuffle=True)
        | 'Write' >> beam.Map(write_part, plan)
      )
    if errors := [path.read_text(encoding='utf-8') for path in sorted(folder.glob('*.error'))]:
      raise UserError(
        f'{errors[0]}; {len(self._parts) - len(errors)} of {len(self._parts)} units '
        'are finished, and the same command goes on with them'
      )
    self._finish(plan, Path(self.data_dir))

  def _finish(self, plan: Plan, output: Path) -> None:
    """Link the units' files into the data set, and write what is in them."""
    units = [json.loads(_done(plan, part).read_text(encoding='utf-8')) for part in self._parts]
    rows = [[Row(*row) for row in unit['rows']] for unit in units]
    _check(plan, rows, failed=[error for unit in units for error in unit['failed']])
    found, ordered = [], []
    for split in splits.SPLITS:
      of_split = [[row for row in unit if row.split == split] for unit in rows]
      numbers = [number for number, unit in enumerate(of_split) if unit]
      template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(output),
        dataset_name=self.name,
        split=split,
        filetype_suffix='array_record',
      )
      shards = [_shard(plan, self._parts[number], split) for number in numbers]
      for place, shard in enumerate(shards):
        os.link(shard, template.sharded_filepath(shard_index=place, num_shards=len(shards)))
      if shards:
        found.append(
          tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(of_split[number]) for number in numbers],
            num_bytes=sum(shard.stat().st_size for shard in shards),
            filename_template=template,
          )
        )
      ordered += [row for unit in of_split for row in unit]
    self.info.set_splits(tfds.core.SplitDict(found))
    records.write_index(output, ordered)
    records.write_facts(output, _facts(plan, units))


def _check(plan: Plan, rows: Sequence[Sequence[Row]], failed: Sequence[str]) -> None:
  """Raise UserError where nothing is of use, or an image is there twice."""
  names = Counter(row.name for unit in rows for row in unit)
  if not names:
    raise UserError(f'{plan.root}: no image is of use; {brief(failed) or "none is in the lists"}')
  if twice := [name for name, count in names.items() if count > 1]:
    raise UserError(f'{plan.root}: two archives hold {brief(twice)}; take one of them away')


def _facts(plan: Plan, units: Sequence[dict[str, Any]]) -> Facts:
  return Facts(
    form=plan.form,
    scale=plan.scale,
    splits=plan.rule.describe(plan.lists is not None),
    failed=[error for unit in units for error in unit['failed']],
    strangers=sum(len(unit['strangers']) for unit in units),
    terms=publisher.TERMS,
    digest=_digest(plan),
  )


def check_room(plan: Plan, parts: Sequence[Part], output: Path) -> None:
  """Raise UserError where the disk has no room for the units that are missing."""
  missing = [part for part in parts if not _done(plan, part).exists()]
  packed = [Path(part.path).stat().st_size / 1e6 for part in missing if not part.files]
  images = sum(len(part.files) for part in missing) + sum(packed) / MEGABYTES['png']
  needed, free = images * MEGABYTES[plan.form] / 1e3, shutil.disk_usage(output).free / 1e9
  if needed > free:
    raise UserError(
      f'{output}: the records take about {needed:.1f} GB, and {free:.1f} are free; make room, '
      'choose another --output, or --form png'
    )


def prepare(
  plan: Plan, parts: Sequence[Part], output: Path, *, runner: str, flags: Sequence[str]
) -> Path:
  """Write the records of a plan below `output`; return their folder.

  `runner` and `flags` are Beam's. Raises UserError where the plan cannot be carried out; what is
  finished then is kept, and gone on with; records that are there already are left alone.
  """
  for left in output.glob('nih_chest_xray14/incomplete.*'):  # of a run that was killed
    shutil.rmtree(left)
  builder = NihChestXray14(plan=plan, parts=parts, data_dir=output)
  if (folder := Path(builder.data_dir)).exists():
    if records.read_facts(folder).digest != _digest(plan):
      raise UserError(f'{folder}: holds other records; choose another --output')
    shutil.rmtree(plan.folder, ignore_errors=True)
    return folder
  check_room(plan, parts, output)
  config = tfds.download.DownloadConfig(
    beam_runner=runner, beam_options=PipelineOptions(list(flags), save_main_session=False)
  )
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells of sizes that it does not know
      builder.download_and_prepare(download_dir=plan.folder, download_config=config)
  except (UserError, OSError):
    raise
  except Exception as error:  # of Beam's runners, which raise what they like
    raise UserError(f'--runner {runner}: {flat(error)[:300]}; --debug shows where') from error
  shutil.rmtree(plan.folder)
  return folder
