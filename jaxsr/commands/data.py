"""`jaxsr data`: NIH ChestX-ray14 from its publisher to records."""

import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from jaxsr import models, runtime
from jaxsr.commands import report
from jaxsr.data import records
from jaxsr.data.nih import constants, download, local_copy, splits, verify
from jaxsr.data.nih.constants import Archive
from jaxsr.errors import UserError, brief
from jaxsr.files import locked, make_folder

DataSet = Annotated[Literal['nih'], tyro.conf.Positional]


@dataclass(frozen=True)
class Download:
  """Fetch the twelve archives, 42 GB; the same command goes on with what is missing."""

  dataset: DataSet
  """Which data set: nih."""
  output: Path
  """The folder for the archives."""
  from_dir: Path | None = None
  """A folder that holds the archives already: they are checked and copied."""
  mirror: str | None = None
  """An address that has the archives below it, by their names, instead of the publisher's."""
  jobs: int = 4
  """Archives that come at the same time."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Fetch, and say what is left to do by hand; return the exit code."""
    make_folder(self.output)
    with locked(self.output):
      failed = self._copy() if self.from_dir else self._fetch()
    for error in failed.values():
      print(f'failed: {error}', file=sys.stderr)
    done = len(constants.ARCHIVES) - len(failed)
    print(f'{done} of {len(constants.ARCHIVES)} archives are in {self.output}, with the right MD5')
    self._tables()
    print(constants.TERMS_OF_USE)
    return report.SOME_FAILED if failed else 0

  def _archives(self) -> tuple[Archive, ...]:
    if self.mirror is None:
      return constants.ARCHIVES
    base = self.mirror.rstrip('/')
    return tuple(a._replace(url=f'{base}/{a.name}') for a in constants.ARCHIVES)

  def _fetch(self) -> dict[str, str]:
    archives, retries = self._archives(), download.RetryPolicy()
    sizes = [download.archive_size(archive, retries) for archive in archives]
    total = download.check_space(self.output, archives, sizes)
    hidden = not sys.stderr.isatty()
    with tqdm(total=total, unit='B', unit_scale=True, desc='download', disable=hidden) as bar:
      return download.Fetcher(self.output, on_bytes=bar.update).fetch_all(archives, jobs=self.jobs)

  def _copy(self) -> dict[str, str]:
    assert self.from_dir is not None
    failed = {}
    for archive in report.progress(constants.ARCHIVES, len(constants.ARCHIVES), 'copy'):
      try:
        download.copy_archive(self.from_dir / archive.name, archive, self.output)
      except UserError as error:
        failed[archive.name] = str(error)
    return failed

  def _tables(self) -> None:
    """Take the tables from the folder or mirror; the publisher gives no lasting links to them."""
    there = local_copy.tables(self.from_dir) if self.from_dir else {}
    for name in constants.TABLES:
      target, problem = self.output / name, 'is missing'
      if target.exists():
        continue
      try:
        if name in there:
          download.save_table(there[name].read_bytes(), target)
        elif self.mirror:
          url = f'{self.mirror.rstrip("/")}/{name}'
          download.fetch_table(url, target, download.RetryPolicy())
      except UserError as error:
        problem = f'could not be had ({error})'
      if not target.exists():
        print(f'{name} {problem}: {constants.manual_download("it")}')


@dataclass(frozen=True)
class Verify:
  """Say what of a copy is missing or damaged: archives, or a Kaggle or other copy as it lies."""

  dataset: DataSet
  """Which data set: nih."""
  data: Annotated[Path, tyro.conf.Positional]
  """The folder of the copy."""
  decode: bool = True
  """Look at every image; otherwise at sums, names and tables only."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Look and print; return the exit code."""
    found = local_copy.find(self.data)
    with tqdm(total=len(found.shards), desc='verify', disable=not sys.stderr.isatty()) as bar:
      result = verify.verify(found, decode=self.decode, on_shard=lambda title: bar.update())
    for problem in result.problems:
      print(problem)
    patients = {splits.patient_id(name) for name in result.names}
    print(f'{len(result.names)} images of {len(patients)} patients in {self.data}', end='')
    print(f'; {len(result.problems)} problems' if result.problems else ', all of them sound')
    return report.SOME_FAILED if result.problems else 0


@dataclass(frozen=True)
class Prepare:
  """Check every image once and write records; the same command goes on after it was stopped."""

  dataset: DataSet
  """Which data set: nih."""
  data: Annotated[Path, tyro.conf.Positional]
  """The folder of the copy: archives, a flat folder, or images_*/images/."""
  output: Path
  """The folder for the records."""
  labels: tuple[str, ...] = ()
  """Take only films with one of these findings ('No Finding' is one)."""
  form: Literal['raw', 'zstd', 'png'] = 'raw'
  """What a record holds: decoded films, those packed, or the files as they are."""
  scale: int = 4
  """The scale that low resolutions are made for; others are made while training."""
  validation: float = 0.05
  """The share of patients, of those that are not tested on, to validate on."""
  test: float = 0.1
  """The share of patients to test on, where the published lists are missing."""
  seed: int = 0
  """What patients are dealt out by."""
  runner: str = 'DirectRunner'
  """The Beam runner."""
  workers: int = 0
  """Processes of the DirectRunner; by default one for each core."""
  beam: tuple[str, ...] = ()
  """Further options of Beam, as --beam flink_master=HOST:PORT environment_type=LOOPBACK."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Prepare and print; return the exit code."""
    builder, shards = _builder()
    if self.scale not in models.SCALES:
      scales = ', '.join(map(str, models.SCALES))
      raise UserError(f'--scale {self.scale}: choose one of {scales}')
    found = local_copy.find(self.data)
    make_folder(self.output)
    rule = splits.Rule(self.seed, self.validation, self.test)
    plan = shards.make_plan(
      found, self.output, rule=rule, labels=self.labels, form=self.form, scale=self.scale
    )
    if plan.lists is None:
      print(rule.describe(lists=False), file=sys.stderr)
    flags = self._flags(len(found.shards))
    with locked(self.output), _watched(plan.folder, len(found.shards)):
      folder = builder.prepare(plan, found.shards, self.output, runner=self.runner, flags=flags)
    facts = records.read_facts(folder)
    for error in facts.failed:
      print(f'left out: {error}', file=sys.stderr)
    _describe(folder)
    return report.SOME_FAILED if facts.failed else 0

  def _flags(self, parts: int) -> list[str]:
    own = [f'--{option}' for option in self.beam]
    if self.runner != 'DirectRunner':
      return own
    workers = min(self.workers or runtime.cpu_count(), parts)
    mode = 'multi_processing' if workers > 1 else 'in_memory'
    quiet = '--default_sdk_harness_log_level=ERROR'
    running = [f'--direct_num_workers={workers}', f'--direct_running_mode={mode}', quiet]
    return [*running, *own]


def _builder() -> tuple[ModuleType, ModuleType]:
  """Import what writes records; Beam's remarks about clouds are of no interest here."""
  logging.disable(logging.WARNING)
  try:
    from jaxsr.data.nih import builder, shards
  except ImportError as error:
    raise UserError(f'{error.name} is missing: {records.EXTRA}') from error
  finally:
    logging.disable(logging.NOTSET)
  return builder, shards


@contextmanager
def _watched(folder: str, parts: int) -> Iterator[None]:
  """Show how many shards are done, where a person looks."""
  over = threading.Event()

  def watch() -> None:
    with tqdm(total=parts, desc='prepare', unit='shard', disable=not sys.stderr.isatty()) as bar:
      while not over.wait(1.0):
        bar.update(len(list(Path(folder).glob('*.json'))) - bar.n)

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    over.set()
    watcher.join()


@dataclass(frozen=True)
class Inspect:
  """Say what records hold."""

  records: Annotated[Path, tyro.conf.Positional]
  """The folder of the records."""
  read: bool = False
  """Read every record, and name those that are damaged."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Look and print; return the exit code."""
    folder = records.find(self.records)
    _describe(folder)
    return report.failures(records.damaged(folder), 'damaged') if self.read else 0


def _describe(folder: Path) -> None:
  """Print what records hold, split by split."""
  facts, rows = records.read_facts(folder), records.read_index(folder)
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(
    f'{folder}: {len(rows)} films, {size / 1e9:.1f} GB, {facts.form}, low resolution x{facts.scale}'
  )
  print(f'splits: {facts.splits}')
  print(f'{"":12s} {"films":>7s} {"patients":>9s}')
  for split in splits.SPLITS:
    of_split = [row for row in rows if row.split == split]
    found = Counter(
      f for row in of_split for f in (row.findings or constants.NO_FINDING).split('|')
    )
    common = [f'{name} {count}' for name, count in found.most_common()]
    patients = len({row.patient for row in of_split})
    print(f'{split:12s} {len(of_split):7d} {patients:9d}   {brief(common, most=16)}')
  if facts.unlisted:
    print(f'{facts.unlisted} images are in no table or list, and were left out')
  if facts.failed:
    print(
      f'{len(facts.failed)} images are damaged, and were left out: {brief(facts.failed, most=3)}'
    )
  print(facts.terms)


Action = (
  Annotated[Download, tyro.conf.subcommand('download')]
  | Annotated[Verify, tyro.conf.subcommand('verify')]
  | Annotated[Prepare, tyro.conf.subcommand('prepare')]
  | Annotated[Inspect, tyro.conf.subcommand('inspect')]
)


@dataclass(frozen=True)
class Data:
  """NIH ChestX-ray14: fetch it, look through a copy, make records of it, look at those."""

  action: Action = field()

  @property
  def debug(self) -> bool:
    """Tell whether to show where an error was raised."""
    return self.action.debug

  def run(self) -> int:
    """Run the sub-command; return the exit code."""
    return self.action.run()
