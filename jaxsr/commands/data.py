"""`jaxsr data`: download, check and convert NIH ChestX-ray14."""

import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from jaxsr import models, runtime
from jaxsr.commands import interrupts, report
from jaxsr.commands.options import Data, Download, Hash, Inspect, Prepare, Verify
from jaxsr.data import manifest, records
from jaxsr.data.nih import constants, download, local_copy, splits, verify
from jaxsr.data.nih.constants import Archive
from jaxsr.errors import FAILED, UserError, brief, count
from jaxsr.files import MANIFEST, locked, make_folder


def run(options: Data) -> int:
  """Run the sub-command; returns the exit code."""
  match options.action:
    case Download():
      return _download(options.action)
    case Verify():
      return _verify(options.action)
    case Prepare():
      return _prepare(options.action)
    case Inspect():
      return _inspect(options.action)
    case Hash():
      return _hash(options.action)


def _download(options: Download) -> int:
  """Download or copy, print what remains to be done by hand; returns the exit code."""
  make_folder(options.output)
  with locked(options.output):
    failed = _copy(options) if options.from_dir else _fetch(options)
  for error in failed.values():
    print(f'failed: {error}', file=sys.stderr)
  done = len(constants.ARCHIVES) - len(failed)
  print(f'{done} of {len(constants.ARCHIVES)} archives are complete in {options.output} (MD5)')
  _tables(options)
  print(constants.TERMS_OF_USE)
  return FAILED if failed else 0


def _archives(options: Download) -> tuple[Archive, ...]:
  if options.mirror is None:
    return constants.ARCHIVES
  base = options.mirror.rstrip('/')
  return tuple(a._replace(url=f'{base}/{a.name}') for a in constants.ARCHIVES)


def _fetch(options: Download) -> dict[str, str]:
  archives, retries = _archives(options), download.RetryPolicy()
  sizes = [download.archive_size(archive, retries) for archive in archives]
  total = download.check_space(options.output, archives, sizes)
  hidden = not sys.stderr.isatty()
  with tqdm(total=total, unit='B', unit_scale=True, desc='download', disable=hidden) as bar:
    return download.Fetcher(options.output, on_bytes=bar.update).fetch_all(
      archives, jobs=options.jobs
    )


def _copy(options: Download) -> dict[str, str]:
  assert options.from_dir is not None
  failed = {}
  for archive in report.progress(constants.ARCHIVES, len(constants.ARCHIVES), 'copy'):
    try:
      download.copy_archive(options.from_dir / archive.name, archive, options.output)
    except UserError as error:
      failed[archive.name] = str(error)
  return failed


def _tables(options: Download) -> None:
  """Copy the tables from the folder or mirror; the publisher has no permanent links to them."""
  there = local_copy.tables(options.from_dir) if options.from_dir else {}
  for name in constants.TABLES:
    target, problem = options.output / name, 'is missing'
    if target.exists():
      continue
    try:
      if name in there:
        download.save_table(there[name].read_bytes(), target)
      elif options.mirror:
        url = f'{options.mirror.rstrip("/")}/{name}'
        download.fetch_table(url, target, download.RetryPolicy())
    except UserError as error:
      problem = f'could not be downloaded ({error})'
    if not target.exists():
      print(f'{name} {problem}: {constants.manual_download("it")}')


def _verify(options: Verify) -> int:
  """Check the copy and print the problems; returns the exit code."""
  found = local_copy.find(options.data)
  with tqdm(total=len(found.shards), desc='verify', disable=not sys.stderr.isatty()) as bar:
    result = verify.verify(found, decode=options.decode, on_shard=lambda title: bar.update())
  for problem in result.problems:
    print(problem)
  patients = {splits.patient_id(name) for name in result.names}
  found_problems = count(len(result.problems), 'problem') if result.problems else 'no problems'
  print(
    f'{count(len(result.names), "image")} of {count(len(patients), "patient")} '
    f'in {options.data}: {found_problems}'
  )
  return FAILED if result.problems else 0


def _prepare(options: Prepare) -> int:
  """Write the records and print their summary; returns the exit code."""
  builder, shards = _builder()
  if options.scale not in models.SCALES:
    scales = ', '.join(map(str, models.SCALES))
    raise UserError(f'--scale {options.scale}: choose one of {scales}')
  found = local_copy.find(options.data)
  make_folder(options.output)
  rule = splits.Rule(options.seed, options.validation, options.test)
  plan = shards.make_plan(
    found, options.output, rule=rule, labels=options.labels, form=options.form, scale=options.scale
  )
  if plan.lists is None:
    print(rule.describe(lists=False), file=sys.stderr)
  flags = _flags(options, len(found.shards))
  with (
    locked(options.output),
    interrupts.ending_workers(),
    _watched(plan.folder, len(found.shards)),
  ):
    folder = builder.prepare(plan, found.shards, options.output, runner=options.runner, flags=flags)
  facts = records.read_facts(folder)
  left_out = [*found.problems, *facts.failed]
  rows = records.read_index(folder)
  for error in left_out:
    print(f'left out: {error}', file=sys.stderr)
  _describe(folder)
  if missing := sorted(plan.wanted() - {row.name for row in rows} - _names(facts.failed)):
    text = (
      f'{count(len(missing), "image")} of the table {"is" if len(missing) == 1 else "are"} not in'
    )
    print(f'note: {text} {options.data}: {brief(missing, most=3)}', file=sys.stderr)
  filled = {row.split for row in rows}
  if empty := [split for split in splits.SPLITS if split not in filled]:
    print(f'note: no image is in {" or ".join(empty)}', file=sys.stderr)
  return FAILED if left_out else 0


def _names(failed: Iterable[str]) -> set[str]:
  """Returns the names of images that were left out."""
  return {line.partition(':')[0] for line in failed}


def _flags(options: Prepare, parts: int) -> list[str]:
  own = [f'--{option}' for option in options.beam]
  if options.runner != 'DirectRunner':
    return own
  workers = min(options.workers or runtime.cpu_count(), parts)
  mode = 'multi_processing' if workers > 1 else 'in_memory'
  quiet = '--default_sdk_harness_log_level=ERROR'
  running = [f'--direct_num_workers={workers}', f'--direct_running_mode={mode}', quiet]
  return [*running, *own]


def _builder() -> tuple[ModuleType, ModuleType]:
  """Import the modules that write records, without Beam's warnings about cloud services."""
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
  """Show a progress bar of the finished shards if the output is a terminal."""
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


def _inspect(options: Inspect) -> int:
  """Print the summary; returns the exit code."""
  folder = records.find(options.records)
  _describe(folder)
  mixed = records.in_two_splits(records.read_index(folder))
  if mixed:
    text = f'{count(len(mixed), "patient")} in two splits: {brief(mixed)}; prepare them again'
    print(f'{folder}: {text}', file=sys.stderr)
  damaged = report.failures(records.damaged(folder), 'damaged') if options.read else 0
  return FAILED if mixed else damaged


def _hash(options: Hash) -> int:
  """Write the sums of a folder, or compare with those that it has; returns the exit code."""
  target = options.data / MANIFEST
  if options.overwrite or not target.exists():
    written, left_out = manifest.write(options.data)
    print(f'{target}: {count(written, "image")}' if written else f'{target}: not written')
    return report.failures(left_out, 'left out')
  lines = manifest.compare(options.data)
  for line in lines:
    print(line)
  found = count(len(lines), 'difference') if lines else 'no differences'
  print(f'{target}: {found}' + ('; --overwrite writes it again' if lines else ''))
  return FAILED if lines else 0


def _describe(folder: Path) -> None:
  """Print the number of images, patients and findings of each split."""
  facts, rows = records.read_facts(folder), records.read_index(folder)
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(
    f'{folder}: {count(len(rows), "image")}, {_bytes(size)}, {facts.form}, '
    f'low resolution x{facts.scale}'
  )
  print(f'splits: {facts.splits}')
  print(f'{"":12s} {"images":>7s} {"patients":>9s}')
  for split in splits.SPLITS:
    of_split = [row for row in rows if row.split == split]
    found = Counter(
      f for row in of_split for f in (row.findings or constants.NO_FINDING).split('|')
    )
    common = [f'{name} {n}' for name, n in found.most_common()]
    patients = len({row.patient for row in of_split})
    print(f'{split:12s} {len(of_split):7d} {patients:9d}   {brief(common, most=16)}')
  if facts.unlisted:
    print(f'left out, because no table or list names them: {count(facts.unlisted, "image")}')
  if facts.failed:
    print(
      f'left out, because damaged: {count(len(facts.failed), "image")}: '
      f'{brief(facts.failed, most=3)}'
    )
  print(facts.terms)


def _bytes(size: int) -> str:
  """Returns a size in bytes with a unit that leaves at least one digit before the point."""
  for unit, least in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if size >= least:
      return f'{size / least:.1f} {unit}'
  return f'{size} bytes'
