"""Write NIH ChestX-ray14 as records: a TFDS builder that runs a Beam pipeline over shards.

A run that was interrupted resumes with the missing shards. Files get their final names once all
shards are finished. The records depend only on the copy and the settings, not on the runner or the
number of workers.
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
from jaxsr.data.nih import constants, identity, splits
from jaxsr.data.nih.local_copy import Shard
from jaxsr.data.nih.shards import (
  Plan,
  begin_again,
  check_room,
  features,
  record_file,
  report_file,
  write_shard,
)
from jaxsr.data.records import Facts, IndexRow
from jaxsr.errors import UserError, brief, flat
from jaxsr.files import read_json


class NihChestXray14(FileReaderBuilder):
  """NIH ChestX-ray14: chest radiographs, their low resolutions, findings and patients."""

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
    """Run the pipeline, then link the finished files into the data set."""
    del dl_manager
    if self._plan is None:
      raise UserError(
        'records are prepared from a local copy; run jaxsr data prepare nih DATA --output RECORDS'
      )
    plan, folder = self._plan, Path(self._plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in (*folder.glob('*.part'), *folder.glob('*.error')):
      leftover.unlink()
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
        'are finished; run the same command again to resume'
      )
    self._finish(plan, Path(self.data_dir))

  def _finish(self, plan: Plan, output: Path) -> None:
    """Link the files of the shards into the data set, and write its index and facts."""
    _check_unchanged(plan, self._shards)
    texts = [report_file(plan, shard).read_text(encoding='utf-8') for shard in self._shards]
    reports = [json.loads(text) for text in texts]
    rows = [[IndexRow(*row) for row in report['rows']] for report in reports]
    _check(plan, rows, failed=[error for report in reports for error in report['failed']])
    found, ordered = [], []
    for split in splits.SPLITS:
      of_split = [[row for row in shard_rows if row.split == split] for shard_rows in rows]
      numbers = [number for number, shard_rows in enumerate(of_split) if shard_rows]
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
      ordered += [row for shard_rows in of_split for row in shard_rows]
    self.info.set_splits(tfds.core.SplitDict(found))
    records.write_index(output, ordered)
    records.write_facts(output, _facts(plan, self._shards, reports))


def _link(path: Path, name: epath.Path) -> None:
  """Create a hard link, or a copy if the file system has no hard links."""
  try:
    os.link(path, name)
  except OSError:
    shutil.copyfile(path, name)


def _digest(plan: Plan, shards: Sequence[Shard]) -> str:
  """Returns a hash of the plan and of its copy as that is now."""
  return identity.digest(
    plan._replace(folder=''), [(shard, identity.of_shard(shard)) for shard in shards]
  )


def _check_unchanged(plan: Plan, shards: Sequence[Shard]) -> None:
  """Raise UserError if finished shards do not fit the plan, or the copy as it is now."""
  folder = Path(plan.folder)
  for other in sorted(folder.parent.glob('.unfinished-*')):
    if other != folder:
      raise UserError(
        f'{other}: was begun with other images, tables or settings; delete it to begin again, or '
        'choose another --output'
      )
  for shard in shards:
    report = report_file(plan, shard)
    if report.exists() and read_json(report).get('content') != identity.of_shard(shard):
      raise UserError(f'{shard.title}: changed after it was read; {begin_again(plan)}')


def _check(plan: Plan, rows: Sequence[Sequence[IndexRow]], failed: Sequence[str]) -> None:
  """Raise UserError if there are no images, or an image or a patient is in two places."""
  names = Counter(row.name for shard_rows in rows for row in shard_rows)
  if not names:
    reason = brief(failed) or 'none is in the table and the selected lists'
    raise UserError(f'{plan.root}: contains no usable image; {reason}')
  if twice := [name for name, count in names.items() if count > 1]:
    raise UserError(f'{plan.root}: two archives contain {brief(twice)}; remove one of them')
  if patients := records.in_two_splits(row for shard_rows in rows for row in shard_rows):
    raise UserError(f'{plan.root}: {brief(patients)}: patients in two splits; {begin_again(plan)}')


def _facts(plan: Plan, shards: Sequence[Shard], reports: Sequence[dict[str, Any]]) -> Facts:
  return Facts(
    form=plan.form,
    scale=plan.scale,
    splits=plan.rule.describe(plan.lists is not None),
    failed=[error for report in reports for error in report['failed']],
    unlisted=sum(len(report['unlisted']) for report in reports),
    terms=constants.TERMS_OF_USE,
    digest=_digest(plan, shards),
  )


# Runners that Beam does not find by their short names.
_QUALIFIED = {'DaskRunner': 'apache_beam.runners.dask.dask_runner.DaskRunner'}


def prepare(
  plan: Plan, shards: Sequence[Shard], output: Path, *, runner: str, flags: Sequence[str]
) -> Path:
  """Write the records of a plan, and return their folder.

  Records of the same plan that exist already are kept. Shards that were finished before an error
  are kept, and the next call resumes with the rest.

  Args:
    plan: What to write.
    shards: The shards of the copy.
    output: The folder below which the records are written.
    runner: The name of a Beam runner.
    flags: Options of Beam.

  Raises:
    UserError: If the plan cannot be carried out.
  """
  for leftover in output.glob('nih_chest_xray14/incomplete.*'):  # of an interrupted run
    shutil.rmtree(leftover)
  builder = NihChestXray14(plan=plan, shards=shards, data_dir=output)
  if (folder := Path(builder.data_dir)).exists():
    if records.read_facts(folder).digest != _digest(plan, shards):
      raise UserError(
        f'{folder}: contains records of other images, tables or settings; delete it, or choose '
        'another --output'
      )
    shutil.rmtree(plan.folder, ignore_errors=True)
    return folder
  _check_unchanged(plan, shards)
  check_room(plan, shards, output)
  config = tfds.download.DownloadConfig(
    beam_runner=_QUALIFIED.get(runner, runner),
    beam_options=PipelineOptions(list(flags), save_main_session=False),
  )
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints unknown sizes
      builder.download_and_prepare(download_dir=plan.folder, download_config=config)
  except (UserError, OSError):
    raise
  except Exception as error:  # Beam runners raise any type
    raise UserError(
      f'--runner {runner}: {flat(error)[:300]}; add --debug for the traceback'
    ) from error
  shutil.rmtree(plan.folder)
  return folder
