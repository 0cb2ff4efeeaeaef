"""Write NIH ChestX-ray14 as records: a TFDS builder whose work is a Beam pipeline of units.

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
from jaxsr.data.nih import shards as units
from jaxsr.data.nih.local_copy import Part
from jaxsr.data.nih.shards import Plan
from jaxsr.data.records import Facts, Row
from jaxsr.errors import UserError, brief, flat


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
      description=constants.TERMS,
      features=units.features(form),
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
        | beam.Create(list(self._parts), reshuffle=True)
        | 'Write' >> beam.Map(units.write_part, plan)
      )
    if errors := [path.read_text(encoding='utf-8') for path in sorted(folder.glob('*.error'))]:
      raise UserError(
        f'{errors[0]}; {len(self._parts) - len(errors)} of {len(self._parts)} units '
        'are finished, and the same command goes on with them'
      )
    self._finish(plan, Path(self.data_dir))

  def _finish(self, plan: Plan, output: Path) -> None:
    """Link the units' files into the data set, and write what is in them."""
    texts = [units.done(plan, part).read_text(encoding='utf-8') for part in self._parts]
    reports = [json.loads(text) for text in texts]
    rows = [[Row(*row) for row in unit['rows']] for unit in reports]
    _check(plan, rows, failed=[error for unit in reports for error in unit['failed']])
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
      shards = [units.shard(plan, self._parts[number], split) for number in numbers]
      for place, shard in enumerate(shards):
        _link(shard, template.sharded_filepath(shard_index=place, num_shards=len(shards)))
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
    records.write_facts(output, _facts(plan, reports))


def _link(path: Path, name: epath.Path) -> None:
  """Give a file a second name, or copy it where the file system has no links."""
  try:
    os.link(path, name)
  except OSError:
    shutil.copyfile(path, name)


def _check(plan: Plan, rows: Sequence[Sequence[Row]], failed: Sequence[str]) -> None:
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
    failed=[error for unit in reports for error in unit['failed']],
    strangers=sum(len(unit['strangers']) for unit in reports),
    terms=constants.TERMS,
    digest=units.digest(plan),
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
    if records.read_facts(folder).digest != units.digest(plan):
      raise UserError(f'{folder}: holds other records; choose another --output')
    shutil.rmtree(plan.folder, ignore_errors=True)
    return folder
  units.check_room(plan, parts, output)
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
