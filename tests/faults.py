"""Inject faults and print one table: `python -m tests.faults`, or with `--all` every fault.

A row is a kind of fault, and names the tests that inject it. `--write` puts the table into
docs/reliability.md. `--junit` takes the results from reports of pytest (`--junitxml`) instead.
`--resume FILE` keeps the results, so that the same command continues after it was interrupted.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'reliability.md'
BEGIN, END = '<!-- table -->', '<!-- end of the table -->'
SILENT = re.compile(r'DID NOT RAISE|was silent')


class Row(NamedTuple):
  """A kind of fault.

  `tests` are node ids below tests/, or beginnings of them; `each` is how many faults one of them
  injects. `quick` rows run without `--all`. `lost` is the most that is lost if the tests pass.
  """

  fault: str
  tests: str
  lost: str = 'nothing'
  each: int = 1
  quick: bool = False


TRAIN, FAULTS = 'training/test_train.py::', 'training/test_faults.py::'
CHECKPOINT, KILL = 'checkpoint/test_checkpoint.py::', 'checkpoint/test_kill.py::'
FILMS, FORMATS = 'data/test_image_files.py::', 'data/test_formats.py::'
DICOM, COPY, CLI = 'data/test_dicom.py::', 'data/nih/test_local_copy.py::', 'test_cli.py::'
CHANGED, DOWNLOAD = 'data/test_changed_data.py::', 'data/nih/test_download.py::'
RECORDS, SPIKES = 'data/test_records.py::', 'training/test_spikes.py::'
IDENTITY = 'training/test_identity.py::'
RECORDS_OF = 'training/test_run_records.py::'
STEP, GAN = 'training/test_step.py::', 'training/test_gan.py::'
FEATURES, PACKAGE = 'perceptual/test_perceptual.py::', 'inference/test_package.py::'
INTERVAL = 'one interval'

ROWS = (
  Row('SIGKILL at random, ten times per run', f'{KILL}test_random', INTERVAL, each=10),
  Row('SIGKILL while records are prepared', f'{RECORDS}test_a_run_that_is_killed', INTERVAL),
  Row('Dask worker killed while records are prepared', f'{RECORDS}test_a_dask'),
  Row('SIGTERM while training', 'test_main.py::test_sigterm'),
  Row('SIGTERM at a step, with and without workers', f'{TRAIN}test_resume_is_exact'),
  Row('SIGTERM in the last validation', f'{TRAIN}test_a_run_that_is_stopped_in_its_last'),
  Row('signals while compiling and at the first checkpoint', f'{FAULTS}test_early_signals'),
  Row('signals of schedulers and limits', f'{FAULTS}test_signals_of', quick=True),
  Row(
    'Ctrl-C in imports and callbacks, dropped by a library, twice; signals while others work',
    'commands/test_interrupts.py',
    quick=True,
  ),
  Row('second signal while a library waits', f'{FAULTS}test_a_second_signal', quick=True),
  Row('trainer killed with workers: processes left', f'{KILL}test_a_killed_trainer', INTERVAL),
  Row(
    'shared memory of killed workers',
    'test_files.py::test_shared_memory_of_killed_workers_is_swept',
    quick=True,
  ),
  Row(
    'worker killed; wait for a batch', f'{FAULTS}test_the_wait_for_a_batch_ends', each=3, quick=True
  ),
  Row('workers suspended', f'{FAULTS}test_suspended'),
  Row('read that never ends', f'{FAULTS}test_a_worker_that_reads {FAULTS}test_a_validation_film'),
  Row(
    'checkpoint: flipped bits, cuts, deletions', f'{CHECKPOINT}test_no_damage', INTERVAL, each=20
  ),
  Row(
    'checkpoint: other arrays, swapped step',
    f'{CHECKPOINT}test_arrays_are {CHECKPOINT}test_a_swapped',
    INTERVAL,
  ),
  Row('all checkpoints damaged', f'{CHECKPOINT}test_when_all_are_damaged', each=2),
  Row(
    'checkpoint that cannot be read now: permissions, open files, memory',
    'checkpoint/test_refused.py::test_what checkpoint/test_refused.py::test_a_device '
    'checkpoint/test_refused.py::test_a_folder checkpoint/test_refused.py::test_the_best',
    quick=True,
  ),
  Row('checkpoints that are no folder', f'{RECORDS_OF}test_checkpoints_that_are'),
  Row('checkpoints removed, emptied, not mounted', f'{FAULTS}test_a_run_without_its_checkpoints'),
  Row('all records of a run lost but one', f'{FAULTS}test_any_record {FAULTS}test_records_of'),
  Row('config.json removed', f'{FAULTS}test_a_missing_config'),
  Row(
    'metrics.csv saved by another program',
    f'{FAULTS}test_a_table_that_another {RECORDS_OF}test_a_table',
    quick=True,
  ),
  Row(
    'config.json of another run, or edited after training',
    f'{IDENTITY}test_an_edited {IDENTITY}test_what {IDENTITY}test_values {IDENTITY}test_the_config',
  ),
  Row(
    'checkpoint of another run; run moved, or of an older version',
    f'{IDENTITY}test_a_step {IDENTITY}test_copied {IDENTITY}test_runs '
    'checkpoint/test_refused.py::test_a_foreign',
  ),
  Row('config.json in other encodings, cut, nested', f'{RECORDS_OF}test_a_config', quick=True),
  Row(
    'records of a run damaged, newest checkpoint gone',
    f'{FAULTS}test_damaged_records {FAULTS}test_a_newest',
  ),
  Row('foreign files among checkpoints', f'{CHECKPOINT}test_strays', each=9),
  Row('first checkpoint damaged by the disk', f'{CHECKPOINT}test_a_first_checkpoint'),
  Row('full disk under the curves', f'{FAULTS}test_a_full_disk', 'some curves', quick=True),
  Row(
    'disk under the curves that does not answer',
    f'{FAULTS}test_a_disk_that',
    'some curves',
    quick=True,
  ),
  Row('full disk under a checkpoint', 'test_main.py::test_a_full_disk'),
  Row(
    'full disk in upscaling and preparing',
    f'{CLI}test_a_disk_that {RECORDS}test_a_full {DOWNLOAD}test_a_full '
    'evaluation/test_unfinished.py::test_a_full',
  ),
  Row('result over the limit of file sizes', f'{CLI}test_a_result_that', quick=True),
  Row('write that fails', f'{FILMS}test_a_write_that_fails', quick=True),
  Row('workdir that cannot be written', 'test_main.py::test_a_workdir'),
  Row(
    'workdir read-only, or checkpoints a file, while training', f'{FAULTS}test_a_folder_that_cannot'
  ),
  Row(
    'workdir moved while training, or a folder above a relative one',
    f'{FAULTS}test_a_folder_that_was_moved {FAULTS}test_a_relative',
    quick=True,
  ),
  Row('two trainers on one folder', f'{TRAIN}test_a_second_trainer {TRAIN}test_a_killed_trainers'),
  Row('shared memory missing', f'{FAULTS}test_missing_shared', quick=True),
  Row(
    'output that nobody reads, signals in a write, closed streams, limits of threads and files',
    f'{FAULTS}test_a_signal {FAULTS}test_closed {CLI}test_a_limit test_files.py::test_a_limit',
    quick=True,
  ),
  Row('power failure after a checkpoint', f'{CHECKPOINT}test_a_step_is_on', INTERVAL, quick=True),
  Row('file with the name of a step', f'{CHECKPOINT}test_what_has', quick=True),
  Row('pipe in the place of a record', f'{RECORDS_OF}test_a_pipe'),
  Row('files of another program in the workdir', f'{RECORDS_OF}test_files_of', quick=True),
  Row('event file deleted while training', f'{FAULTS}test_a_new_event', 'some curves', quick=True),
  Row('process suspended while it waits', f'{FAULTS}test_a_suspended', quick=True),
  Row('damaged labels of a teacher', f'{FAULTS}test_a_damaged_label', each=300, quick=True),
  Row(
    'lock deleted while training, no locks',
    f'{FAULTS}test_a_lock {FAULTS}test_without_locks',
    quick=True,
  ),
  Row('changed config on resume', f'{TRAIN}test_a_change_of_config', each=3),
  Row(
    'other workers, batch split, hosts',
    'data/test_pipeline.py::test_processes data/test_pipeline.py::test_a_stream',
  ),
  Row('restored on other devices', f'{CHECKPOINT}test_a_sharded'),
  Row('two hosts', f'{TRAIN}test_two_hosts'),
  Row('one of two hosts killed', f'{TRAIN}test_if_one_of_two', INTERVAL),
  Row(
    'NaN in a batch, gradient, statistics',
    f'{STEP}test_a_step_that {GAN}test_a_step_that {SPIKES}test_batchnorm {SPIKES}test_the_images',
  ),
  Row('NaN in every step', f'{TRAIN}test_a_run_that_stays'),
  Row('loss spike: warn, stop, roll back', f'{SPIKES}test_a_spike {SPIKES}test_a_fall', each=1),
  Row('validation images without a PSNR', f'{SPIKES}test_images_that'),
  Row('collapse of the discriminator', 'training/test_collapse.py'),
  Row('error while training that is not the state', f'{FAULTS}test_an_error_outside'),
  Row('tile seams', 'inference/test_tiling.py'),
  Row(
    'damaged images of every kind',
    f'{FILMS}test_what_cannot {FILMS}test_headers {FORMATS}test_a_tiff_that',
    quick=True,
  ),
  Row(
    'tiles of JPEG 2000 missing, in DICOM and TIFF', 'data/test_jpeg2000.py', each=10, quick=True
  ),
  Row('flipped bits in the last pixels of PNG', f'{FORMATS}test_flipped_bits', quick=True),
  Row(
    'flipped bit in TIFF, with a manifest; a manifest that is cut, zipped or huge',
    f'{CHANGED}test_a_manifest',
    quick=True,
  ),
  Row(
    'bombs: claims of gigabytes, deflated DICOM, scans of JPEG, tables in gzip',
    f'{CHANGED}test_a_table_that {COPY}test_a_header {COPY}test_an_image_that '
    f'{DICOM}test_deflated data/test_jpeg.py::test_a_file_of_very',
  ),
  Row(
    'DICOM of a million elements, RLE and sizes that do not fit, decoders that crash',
    f'{DICOM}test_a_million {DICOM}test_rle {DICOM}test_compressed_pixels {DICOM}test_a_decoder '
    f'{DICOM}test_the_child',
    quick=True,
  ),
  Row(
    'hostile archives',
    f'{COPY}test_hostile {COPY}test_a_million {COPY}test_a_truncated {COPY}test_a_page',
  ),
  Row('tables in gzip: cuts and flipped bits', f'{COPY}test_a_damaged_gzip', each=200, quick=True),
  Row('bad downloads', 'data/nih/test_download.py'),
  Row(
    'pickles and damaged files as weights',
    f'{FEATURES}test_what_is_no {PACKAGE}test_damage interop/test_reading.py::test_what_is_not',
  ),
  Row('DICOM cut anywhere, random bytes', f'{DICOM}test_files_that_are_cut'),
  Row(
    'DICOM meaning',
    f'{DICOM}test_each_stored {DICOM}test_an_overlay {DICOM}test_padding {DICOM}test_lossless',
  ),
  Row('patient data in messages', f'{DICOM}test_a_refusal {DICOM}test_threads'),
  Row(
    'outputs onto inputs and other files',
    f'{CLI}test_an_input {CLI}test_a_file_that_jaxsr {CLI}test_a_folder_beside',
  ),
  Row(
    'names: 251 bytes, emoji, not UTF-8',
    f'test_files.py::test_any_name {CHECKPOINT}test_a_folder_of',
    quick=True,
  ),
  Row('temporary files of killed processes', 'test_files.py::test_temporary', quick=True),
  Row('clock that stands or goes back', f'{FAULTS}test_curves', quick=True),
  Row(
    'flipped bits in cached compiled programs',
    'commands/test_compiled_programs.py::test_a_flipped',
    quick=True,
  ),
  Row('same seed, other seed', 'data/test_pipeline.py::test_batch_i'),
  Row(
    'patients in two splits',
    f'{COPY}test_no_patient {COPY}test_lists {RECORDS}test_patients {RECORDS}test_a_patient',
  ),
  Row(
    'lists, tables or films that change between or under preparations',
    f'{RECORDS}test_a_copy_that_changed {RECORDS}test_a_list_that',
    each=2,
  ),
  Row('TensorFlow imported', 'test_main.py::test_other_frameworks'),
  Row('parts of an evaluation: one killed, one missing, other options', 'commands/test_shards.py'),
  Row(
    'another digit in figures that an evaluation or study continues from',
    'evaluation/test_unfinished.py evaluation/test_conditions.py::test_an_interrupted '
    'trust/test_audit.py::test_a_damaged study/test_study.py::test_a_result',
    quick=True,
  ),
  Row('output closed', f'{FAULTS}test_lost_output', quick=True),
  Row('film of another size or depth while training', f'{CHANGED}test_a_film', quick=True),
  Row('data folder away for seconds, or for good', f'{CHANGED}test_a_folder', quick=True),
  Row('passing errors of a file server', f'{CHANGED}test_an_error', quick=True),
  Row(
    'other images under the same folder',
    f'{CHANGED}test_a_fingerprint {CHANGED}test_a_changed {RECORDS_OF}test_changed '
    f'{RECORDS}test_records_that',
  ),
  Row(
    'links to nothing, pipes, unreadable files',
    f'{CLI}test_what_is_no_file {CLI}test_an_unreadable',
  ),
)


class Results:
  """Collects the outcome of each test ('passed', 'failed', 'skipped' or 'silent') and its seconds.

  With `kept`, they are also written to that file after each test, and read from there at the start.
  """

  def __init__(self, kept: Path | None = None) -> None:
    self.outcomes: dict[str, str] = {}
    self.seconds: dict[str, float] = {}
    self.spent = [0.0, 0.0]  # seconds of wall and of processor time, of all runs that ended
    self._kept = kept
    if kept is not None and kept.exists():
      self.outcomes, self.seconds, self.spent = json.loads(kept.read_text())

  def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
    name = report.nodeid.removeprefix('tests/')
    self.seconds[name] = self.seconds.get(name, 0.0) * (report.when != 'setup') + report.duration
    if report.failed:
      self.outcomes[name] = 'silent' if SILENT.search(report.longreprtext) else 'failed'
    elif report.when == 'call' or report.skipped:
      self.outcomes[name] = 'skipped' if report.skipped else 'passed'
    if report.when == 'teardown':
      self._keep()

  def end(self, begun: float) -> None:
    """Add the time since the start; the processes of the tests have ended."""
    self.spent[0] += time.monotonic() - begun
    self.spent[1] += sum(os.times()[:4])
    self._keep()

  def _keep(self) -> None:
    if self._kept is not None:
      self._kept.write_text(json.dumps([self.outcomes, self.seconds, self.spent]))

  def passed(self) -> list[str]:
    """Returns the tests that need not run again."""
    return [name for name, outcome in self.outcomes.items() if outcome == 'passed']

  def read(self, report: str) -> None:
    """Add the outcomes in a JUnit report of pytest."""
    for case in ElementTree.parse(report).iter('testcase'):
      module = case.attrib.get('classname', '').removeprefix('tests.').replace('.', '/')
      failure = case.find('failure') if case.find('failure') is not None else case.find('error')
      outcome = 'passed' if case.find('skipped') is None else 'skipped'
      if failure is not None:
        outcome = 'silent' if SILENT.search(failure.text or '') else 'failed'
      self.outcomes[f'{module}.py::{case.attrib.get("name")}'] = outcome

  def of(self, row: Row) -> list[str]:
    """Returns the outcomes of a row's tests."""
    return [
      found for name, found in self.outcomes.items() if name.startswith(tuple(row.tests.split()))
    ]


def table(rows: list[Row], results: Results) -> list[str]:
  """Lay out the results in Markdown, and name the rows that were not run."""
  lines = ['| Fault | Tried | Survived | Silent | Lost at most |', '|---|---|---|---|---|']
  absent = []
  for row in rows:
    found = [each for each in results.of(row) if each != 'skipped']
    counts = [len(found), found.count('passed'), found.count('silent')]
    if found:
      cells = [row.fault, *(str(number * row.each) for number in counts), row.lost]
      lines.append(f'| {" | ".join(cells)} |')
    else:
      absent.append(row.fault)
  return [*lines, '', f'Not run for this table: {"; ".join(absent)}.'] if absent else lines


def write(lines: list[str]) -> None:
  """Put the table into the page."""
  before, _, rest = PAGE.read_text(encoding='utf-8').partition(BEGIN)
  after = rest.partition(END)[2]
  PAGE.write_text('\n'.join([before + BEGIN, '', *lines, '', END]) + after, encoding='utf-8')


def main() -> int:
  """Run the tests and print the table; return 1 if a fault was not survived."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--all', action='store_true', help='every fault, in at most 40 minutes')
  parser.add_argument('--write', action='store_true', help='put the table into docs/reliability.md')
  parser.add_argument('--junit', nargs='+', metavar='FILE', help='do not run anything')
  parser.add_argument('--resume', type=Path, metavar='FILE', help='keep and continue the results')
  parser.add_argument('-n', default='2', help='processes (2)')
  options = parser.parse_args()
  rows = [row for row in ROWS if options.all or row.quick]
  results, begun = Results(options.resume), time.monotonic()
  files = sorted({test.partition('::')[0] for row in rows for test in row.tests.split()})
  names = [
    test.partition('::')[2] or test.rpartition('/')[2][:-3]
    for row in rows
    for test in row.tests.split()
  ]
  arguments = [str(ROOT / 'tests' / name) for name in files]
  arguments += ['-q', '-n', options.n, '--rootdir', str(ROOT), '-c', str(ROOT / 'pyproject.toml')]
  arguments += [
    '-k',
    ' or '.join(sorted(set(names))),
    '-m',
    'not gpu' if options.all else 'not gpu and not slow',
  ]
  arguments += [f'--deselect=tests/{name}' for name in results.passed()]
  if options.junit:
    for report in options.junit:
      results.read(report)
    code = int(bool({'failed', 'silent'} & {*results.outcomes.values()}))
  else:
    done = pytest.main(arguments, plugins=[results])
    code = 0 if done == pytest.ExitCode.NO_TESTS_COLLECTED and results.passed() else done
  lines = table(rows, results)
  print('\n'.join(lines))
  results.end(begun)
  wall, processor = results.spent
  print(f'{len(rows)} kinds of fault; {wall:.0f} s of wall, {processor:.0f} s of processor time')
  if options.write:
    write(lines)
  untested = [row.fault for row in rows if not (options.junit or results.of(row))]
  if untested:
    print(f'no test was found for: {", ".join(untested)}', file=sys.stderr)
  return int(code != 0 or bool(untested))


if __name__ == '__main__':
  sys.exit(main())
