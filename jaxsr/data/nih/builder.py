"""Write NIH ChestX-ray14 as records: a TFDS builder whose work is a Beam pipeline of shards.

A run that was killed goes on with the units that are missing; files get their final names when all
are there. What is written depends on the copy and the settings alone, not on runners and workers.
"""

import contextlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from jaxsr.data import records
from jaxsr.data.nih import constants, splits
from jaxsr.data.nih.local_copy import Shard
from jaxsr.data.nih.shards import (
  Plan,
  check_room,
  digest,
  features,
  record_file,
  report_file,
  write_shard,
)
from jaxsr.data.records import Facts, IndexRow
from jaxsr.errors import UserError, brief, flat


class NihChestXray14(FileReaderBuilder):
  """NIH ChestX-ray14: chest films with their low resolutions, findings and patients."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, plan: Plan | None = None, shards: Sequence[Shard] = (), **options: Any):
    self._plan, self._shards = plan, tuple(shards)
    super().__init__(file_format='array_record', **options)

  def _info(self) -> tfds.core.DatasetInfo:
    form = self._plan.form if self._plan else 'raw'
    return tfds.core.DatasetInfo(
      builder=self,
      description=constants.TERMS_OF_USE,
      features=features(form),
      homepage=constants.HOME,
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
        | beam.Create(list(self._shards), reshuffle=True)
        | 'Write' >> beam.Map(write_shard, plan)
      )
    if errors := [path.read_text(encoding='utf-8') for path in sorted(folder.glob('*.error'))]:
      raise UserError(
        f'{errors[0]}; {len(self._shards) - len(errors)} of {len(self._shards)} shards '
        'are finished, and the same command goes on with them'
      )
    self._finish(plan, Path(self.data_dir))

  def _finish(self, plan: Plan, output: Path) -> None:
    """Link the units' files into the data set, and write what is in them."""
    texts = [report_file(plan, shard).read_text(encoding='utf-8') for shard in self._shards]
    reports = [json.loads(text) for text in texts]
    rows = [[IndexRow(*row) for row in report['rows']] for report in reports]
    _check(plan, rows, failed=[error for report in reports for error in report['failed']])
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
      files = [record_file(plan, self._shards[number], split) for number in numbers]
      for place, file in enumerate(files):
        _link(file, template.sharded_filepath(shard_index=place, num_shards=len(files)))
      if files:
        found.append(
          tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(of_split[number]) for number in numbers],
            num_bytes=sum(file.stat().st_size for file in files),
            filename_template=template,
          )
        )
      ordered += [row for unit in of_split for row in unit]
    self.info.set_splits(tfds.core.SplitDict(found))
    records.write_index(output, ordered)
    records.write_facts(output, _facts(plan, reports))


def _link(path: Path, name: epath.Path) -> None:
  """Give a file a second name, or copy it where the file system has no links."""
  try:
    os.link(path, name)
  except OSError:
    shutil.copyfile(path, name)


def _check(plan: Plan, rows: Sequence[Sequence[IndexRow]], failed: Sequence[str]) -> None:
  """Raise UserError where nothing is of use, or an image is there twice."""
  names = Counter(row.name for unit in rows for row in unit)
  if not names:
    raise UserError(f'{plan.root}: no image is of use; {brief(failed) or "none is in the lists"}')
  if twice := [name for name, count in names.items() if count > 1]:
    raise UserError(f'{plan.root}: two archives hold {brief(twice)}; take one of them away')


def _facts(plan: Plan, reports: Sequence[dict[str, Any]]) -> Facts:
  return Facts(
    form=plan.form,
    scale=plan.scale,
    splits=plan.rule.describe(plan.lists is not None),
    failed=[error for report in reports for error in report['failed']],
    unlisted=sum(len(report['unlisted']) for report in reports),
    terms=constants.TERMS_OF_USE,
    digest=digest(plan),
  )


def prepare(
  plan: Plan, shards: Sequence[Shard], output: Path, *, runner: str, flags: Sequence[str]
) -> Path:
  """Write the records of a plan below `output`; return their folder.

  `runner` and `flags` are Beam's. Raises UserError where the plan cannot be carried out; what is
  finished then is kept, and gone on with; records that are there already are left alone.
  """
  for left in output.glob('nih_chest_xray14/incomplete.*'):  # of a run that was killed
    shutil.rmtree(left)
  builder = NihChestXray14(plan=plan, shards=shards, data_dir=output)
  if (folder := Path(builder.data_dir)).exists():
    if records.read_facts(folder).digest != digest(plan):
      raise UserError(f'{folder}: holds other records; choose another --output')
    shutil.rmtree(plan.folder, ignore_errors=True)
    return folder
  check_room(plan, shards, output)
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
