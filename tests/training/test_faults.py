"""Faults that end or hurt a run: lost folders, full disks, signals, stuck reads, lost output."""

import errno
import fcntl
import io
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxsr import cli, files
from jaxsr import config as configs
from jaxsr.checkpoint import Checkpoints, run_dir, storage
from jaxsr.data import pipeline
from jaxsr.data.sources import Phantoms
from jaxsr.data.teacher_cache import Labels
from jaxsr.errors import ImageError, Interruption, UserError
from jaxsr.evaluation.evaluator import Evaluator
from jaxsr.inference.model import load
from jaxsr.training import event_file, output, preemption, run_log, waiting
from jaxsr.training.event_file import EventFile
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.tensorboard import Summary
from jaxsr.training.train import train
from jaxsr.training.waiting import Stalled, WaitQueue
from runs import final, rows, same

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(finished, tmp_path):
  """A copy of a finished run, which may be damaged."""
  shutil.copytree(finished[1], tmp_path / 'run')
  return finished[0], tmp_path / 'run'


def remove(folder):
  shutil.rmtree(folder)


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def unmount(folder):
  shutil.rmtree(folder)
  folder.symlink_to(folder.parent / 'unmounted')


def link_to_itself(folder):
  shutil.rmtree(folder)
  folder.symlink_to(folder.name)


@pytest.mark.parametrize('lose', [remove, empty, unmount, link_to_itself])
@pytest.mark.parametrize('record', [run_dir.METRICS, run_dir.SAVED])
def test_a_run_without_its_checkpoints_does_not_start_over(run, lose, record):
  """Either of the two records is enough to know that the run has trained."""
  config, folder = run
  lose(folder / 'checkpoints')
  (folder / ({run_dir.METRICS, run_dir.SAVED} - {record}).pop()).unlink()
  before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != 'lock'}
  with pytest.raises(UserError, match='--restart to begin again|does not exist; mount it'):
    train(config, folder)
  after = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != 'lock'}
  assert after == before and not (folder / 'unmounted').exists()


RECORDS = (run_dir.CONFIG, run_dir.METRICS, run_dir.SAVED, 'events.out.*')


def keep_only(folder, record):
  """Delete the checkpoints and all records of a run but one."""
  remove(folder / 'checkpoints')
  for pattern in {*RECORDS} - {record}:
    for path in folder.glob(pattern):
      path.unlink()


@pytest.mark.parametrize('record', RECORDS)
def test_any_record_that_is_left_keeps_a_run_from_starting_over(run, record):
  config, folder = run
  keep_only(folder, record)
  before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != 'lock'}
  with pytest.raises(UserError, match='was trained to step 4, but .* --restart to begin again'):
    train(config, folder)
  assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != 'lock'} == before


def test_records_of_older_versions_and_of_a_run_that_was_never_saved(run):
  """A run that was killed before its first checkpoint has rows and curves, and begins again."""
  folder = run[1]
  remove(folder / 'checkpoints')
  (folder / run_dir.SAVED).unlink()
  path = folder / run_dir.CONFIG
  content = json.loads(path.read_text())
  curves = lambda: event_file.last_step(folder)
  path.write_text(json.dumps(content | {'step': 0}))
  run_dir.check_not_lost(folder, curves)
  del content['step']  # as older versions wrote it
  path.write_text(json.dumps(content))
  for record in (run_dir.METRICS, None):
    with pytest.raises(UserError, match='was trained to step 4'):
      run_dir.check_not_lost(folder, curves)
    (folder / (record or path)).unlink()
  events = next(folder.glob('events.out.*'))
  whole = events.read_bytes()
  events.write_bytes(whole[: len(whole) // 2] + b'\xff' * 64)
  with pytest.raises(UserError, match=r'was trained to step \d'):
    run_dir.check_not_lost(folder, curves)
  events.write_bytes(b'\xff' * 64)
  run_dir.check_not_lost(folder, curves)


def test_restart_begins_again_and_keeps_the_old_run(run):
  config, folder = run
  saved = final(config, folder)
  assert train(config, folder, restart=True) == 0
  assert [row['step'] for row in rows(folder)] == ['0', '2', '4']
  assert same(final(config, folder), saved)
  aside = folder / 'before_restart_1'
  assert same(final(config, aside), saved) and rows(aside)
  assert (aside / 'config.json').exists() and list(aside.glob('events.out.*'))


def test_a_missing_config_is_refused_unless_changes_are_allowed(run, capsys):
  config, folder = run
  (folder / 'config.json').unlink()
  with pytest.raises(UserError, match='config.json: is missing.*--allow-config-change'):
    train(config, folder)
  assert train(config, folder, allow_config_change=True) == 0
  assert 'is finished' in capsys.readouterr().out


@pytest.mark.parametrize(
  'change',
  [
    lambda text: text.replace(b',', b';'),
    lambda text: text.replace(b'0,', b'zero,', 1),
    lambda text: text.replace(b',', b'\xff', 1),
    lambda text: text + b'2\n',
  ],
)
def test_a_table_that_another_program_saved_is_refused(run, change):
  config, folder = run
  table = folder / 'metrics.csv'
  table.write_bytes(change(table.read_bytes()))
  before = table.read_bytes()
  config = configs.copy(config)
  config.steps = 6
  with pytest.raises(UserError, match=r'metrics.csv: row \d is not as jaxsr wrote it'):
    train(config, folder)
  assert table.read_bytes() == before


def curve(folder):
  return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars('loss')]


def write(folder, start, steps):
  summary = Summary(folder, step=start)
  for step in steps:
    summary.scalars(step, {'loss': 1.0})
  summary.close()


@pytest.mark.parametrize('clock', [(1000, 1000, 1000), (90000, 1000, 500), (1, 2, 3)])
def test_curves_survive_a_clock_that_stands_or_goes_back(tmp_path, monkeypatch, clock):
  times = iter(clock)
  now = [0.0]
  monkeypatch.setattr(event_file.time, 'time', lambda: now[0])
  for start, steps in ((0, (2, 4, 6)), (4, (6, 8, 10)), (8, (10, 12))):
    now[0] = next(times)
    write(tmp_path, start, steps)
  assert curve(tmp_path) == [2, 4, 6, 8, 10, 12]
  assert len(list(tmp_path.glob('events.out.*'))) == 3


def test_a_full_disk_costs_curves_and_not_the_run(tmp_path, monkeypatch, capsys):
  """Events are written again when there is room, and no record is left half written."""
  full, original = threading.Event(), os.write

  def limited(file, content):
    if full.is_set() and len(content) > 3:
      original(file, bytes(content)[:3])
      raise OSError(errno.ENOSPC, 'No space left on device')
    return original(file, content)

  monkeypatch.setattr(event_file.os, 'write', limited)
  summary = Summary(tmp_path, step=0)
  for step in range(1, 2001):
    full.set() if 500 < step < 1500 else full.clear()
    summary.scalars(step, {'loss': 1.0})
    if step in (500, 1499):
      while not summary._file._waiting.empty():
        time.sleep(0.01)
      time.sleep(0.05)
  summary.close()
  found = curve(tmp_path)
  assert {*range(1, 501), *range(1500, 2001)} <= {*found} and len(found) < 2000
  assert capsys.readouterr().err.count('No space left on device') == 1


def test_a_new_event_file_replaces_one_that_was_deleted(tmp_path):
  summary = Summary(tmp_path, step=0)
  for step in (1, 2, 3):
    summary.scalars(step, {'loss': 1.0})
    while not (found := list(tmp_path.glob('events.out.*'))) or not found[0].stat().st_size:
      time.sleep(0.01)
    time.sleep(0.05)
    if step == 2:
      found[0].unlink()
  summary.close()
  assert curve(tmp_path) == [3]


def test_a_disk_that_does_not_answer_does_not_block(tmp_path, monkeypatch, capsys):
  over = threading.Event()
  monkeypatch.setattr(event_file, '_create', lambda folder: over.wait() and 1 / 0)
  monkeypatch.setattr(event_file, '_PATIENCE', 0.1)
  monkeypatch.setattr(event_file, 'MOST', 100)
  file, begun = EventFile(tmp_path), time.monotonic()
  for step in range(500):
    file.add(step)
  file.close()
  assert time.monotonic() - begun < 5
  assert capsys.readouterr().err.count('cannot be written') == 1


STUCK = """
import ctypes, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxsr.training import preemption
with preemption.handled() as stop:
  print('ready', flush=True)
  while True:
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize(
  'signals', [('SIGTERM', 'SIGINT'), ('SIGINT', 'SIGINT'), ('SIGHUP', 'SIGINT')]
)
def test_a_second_signal_ends_a_process_that_waits_in_a_library(signals):
  process = subprocess.Popen(
    [sys.executable, '-c', STUCK],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  assert process.stdout.readline() == 'ready\n'
  first, second = (signal.Signals[name] for name in signals)
  process.send_signal(first)
  time.sleep(0.3)
  assert process.poll() is None
  process.send_signal(second)
  assert process.wait(timeout=10) == 128 + second
  process.stdout.close()


@pytest.mark.parametrize('name', ['SIGUSR2', 'SIGXCPU'])
def test_signals_of_limits_stop_a_run_once(name):
  """SIGXCPU comes every second after the limit, and must not end the process while it saves."""
  number = signal.Signals[name]
  with preemption.handled() as stop:
    os.kill(os.getpid(), number)
    while stop.signal is None:
      time.sleep(0.01)
    assert stop.signal == number
    stop._since -= 5.0 if name == 'SIGXCPU' else 0.0
    os.kill(os.getpid(), number)
    time.sleep(0.1)
  assert stop.due(together=False)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
@pytest.mark.parametrize('moment', [(CompiledSteps, 'prepare'), (Checkpoints, 'save')])
def test_early_signals_lose_nothing(finished, tmp_path, monkeypatch, moment, name):
  """While the step is compiled, and while the first checkpoint is written."""
  config, whole = finished
  original, signals = getattr(*moment), iter([signal.Signals[name]])

  def signalled(*arguments, **options):
    for number in signals:
      os.kill(os.getpid(), number)
    return original(*arguments, **options)

  with monkeypatch.context() as patch:
    patch.setattr(*moment, signalled)
    assert train(config, tmp_path) == preemption.EXIT
  assert train(config, tmp_path) == 0
  assert same(final(config, tmp_path), final(config, whole))


def never():
  threading.Event().wait()
  yield {}


def killed():
  yield {'a': jnp.ones(())}
  raise RuntimeError('Worker process was terminated unexpectedly with exit code -9.')


def test_the_wait_for_a_batch_ends():
  """By a signal, by a time limit that names what is read, and by a worker that was killed."""
  signalled = threading.Event()
  forever = WaitQueue(never(), timeout=0.0, reading=str)
  threading.Timer(0.2, signalled.set).start()
  assert forever.next(signalled.is_set) is None
  limited = WaitQueue(never(), timeout=0.2, reading=lambda: 'a.png is being read for 9 s')
  with pytest.raises(Stalled, match=r'for 0.2 s \(config.data.timeout\): a.png is being read'):
    limited.next(lambda: False)
  dead = WaitQueue(killed(), timeout=0.0, reading=str)
  assert set(dead.next(lambda: False)) == {'a'}
  with pytest.raises(Interruption, match='was killed'):
    dead.next(lambda: False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_suspended_workers_end_the_wait_and_the_close():
  """Python would join them at exit, and a suspended process does not end on SIGTERM."""
  numbers = grain.MapDataset.range(10**6).batch(2)
  stream = pipeline.iterate(numbers, start=0, threads=1, workers=2)
  batches = WaitQueue(stream, timeout=60.0, reading=lambda: 'no image is being read')
  assert batches.next(lambda: False) is not None
  children = [
    int(number)
    for path in Path('/proc/self/task').glob('*/children')
    for number in path.read_text().split()
  ]
  workers = [c for c in children if b'spawn_main' in Path(f'/proc/{c}/cmdline').read_bytes()]
  assert len(workers) == 2
  try:
    for worker in workers:
      os.kill(worker, signal.SIGSTOP)
    batches._timeout = 2.0
    with pytest.raises(Stalled, match='no image is being read'):
      while True:
        batches.next(lambda: False)
    begun = time.monotonic()
    batches.close()
    assert time.monotonic() - begun < 30
  finally:
    for worker in workers:
      os.kill(worker, signal.SIGKILL)


def test_a_worker_that_reads_forever_is_named_and_the_state_saved(run, monkeypatch):
  """The film is a pipe by the time that it is read, as a file on a dead server would be."""
  config, folder = run
  config = configs.copy(config)
  config.steps, config.data.timeout = 40, 12.0  # more than are read ahead
  config.data.cache = 'none'
  released, get = threading.Event(), Phantoms.__getitem__

  def slow(self, index):
    if slow.stuck and self.start == 0:
      released.wait()
    return get(self, index)

  def scalars(self, step, *arguments, **options):
    slow.stuck = step >= 6
    return log(self, step, *arguments, **options)

  slow.stuck, log = False, run_log.Log.scalars
  monkeypatch.setattr(Phantoms, '__getitem__', slow)
  monkeypatch.setattr(run_log.Log, 'scalars', scalars)
  monkeypatch.setattr(waiting, '_PATIENCE', 0.1)
  try:
    with pytest.raises(Stalled, match=r'phantom_0_000000\d.png is being read.*step \d+ is saved'):
      train(config, folder)
  finally:
    released.set()
  assert Checkpoints(folder / 'checkpoints').steps()[-1] >= 6


def test_a_validation_film_that_is_read_forever_is_named(monkeypatch):
  """Not while a program is compiled, which may take longer than any file."""
  released = threading.Event()
  source = Phantoms(seed=0, start=0, count=1, size=64, bits=8)
  evaluator = Evaluator(load('bicubic', scale=4).network, source, scale=4)
  assert evaluator.reading(0.0) == ''
  monkeypatch.setattr(Phantoms, '__getitem__', lambda self, index: released.wait())
  monkeypatch.setattr(waiting, '_PATIENCE', 0.1)
  results = WaitQueue(
    evaluator.measure_all({}), timeout=0.3, reading=lambda: evaluator.reading(0.3)
  )
  try:
    with pytest.raises(Stalled, match=r'for 0.3 s .*phantom_0_0000000.png is being read for'):
      results.next(lambda: False)
    results.close()
  finally:
    released.set()


def test_an_error_outside_the_state_saves_it(run, monkeypatch):
  config, folder = run
  config = configs.copy(config)
  config.steps, config.save, config.eval = 8, 100, 100
  log = run_log.Log.scalars

  def fail(self, step, *arguments, **options):
    if step == 7:
      raise OSError('the disk of the log is gone')
    return log(self, step, *arguments, **options)

  monkeypatch.setattr(run_log.Log, 'scalars', fail)
  with pytest.raises(OSError, match='the disk of the log'):
    train(config, folder, allow_config_change=True)
  assert Checkpoints(folder / 'checkpoints').steps()[-1] == 7


def replace_by_file(folder, patch):
  """As a program that moves results away and leaves a note."""
  (folder / 'checkpoints').rename(folder / 'moved')
  (folder / 'checkpoints').write_text('moved')


def make_read_only(folder, patch):
  """As the system does with a file system that has errors."""

  def refuse(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

  patch.setattr(files.tempfile, 'mkstemp', refuse)
  patch.setattr(storage.ocp, 'save_checkpointables_async', refuse)


@pytest.mark.parametrize('hurt', [replace_by_file, make_read_only])
@pytest.mark.parametrize('eval_every', [2, 100])
def test_a_folder_that_cannot_be_written_any_more(run, monkeypatch, capsys, hurt, eval_every):
  """The next file may be the table after a validation, or a checkpoint."""
  config, folder = run
  config = configs.copy(config)
  config.steps, config.save, config.eval = 12, 9, eval_every
  original = run_log.Log.scalars

  def scalars(self, step, *arguments, **options):
    if step == 7:
      while eval_every == 2 and not (folder / 'checkpoints' / '6').exists():
        time.sleep(0.01)  # Orbax's threads would wait for its folder for minutes
      hurt(folder, monkeypatch)
    return original(self, step, *arguments, **options)

  monkeypatch.setattr(run_log.Log, 'scalars', scalars)
  monkeypatch.setattr('jaxsr.commands.train.run', lambda _: train(config, folder))
  assert cli.run(['train', '--config=quickstart', f'--workdir={folder}']) == 1
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith(f'error: {folder}'), lines


def test_a_signal_ends_a_write_that_nobody_reads():
  """The reader may be suspended, as `| less` and a terminal after Ctrl-S are."""
  reader, writer = os.pipe()
  fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
  stdout = sys.stdout
  with os.fdopen(writer, 'w') as pipe, preemption.handled() as stop:
    sys.stdout = pipe
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
      with output.lasting():
        for _ in range(200):
          print('x' * 100, flush=True)
    finally:
      sys.stdout = stdout
    while stop.signal is None:  # a thread notes it
      time.sleep(0.01)
    os.dup2(1, pipe.fileno())  # so that closing it works
  os.close(reader)


class Signalled(io.TextIOWrapper):
  """Sends SIGTERM in its first write."""

  sent = False

  def write(self, text):
    if not self.sent:
      self.sent = True
      os.kill(os.getpid(), signal.SIGTERM)
    return super().write(text)


def test_a_signal_in_a_write_loses_no_output(tmp_path):
  stdout = sys.stdout
  with Signalled((tmp_path / 'out').open('wb')) as file, preemption.handled() as stop:
    sys.stdout = file
    try:
      with output.lasting():
        print('step 0')
        print('stopped by SIGTERM')
    finally:
      sys.stdout = stdout
    while stop.signal is None:  # a thread notes it
      time.sleep(0.01)
  assert (tmp_path / 'out').read_text() == 'step 0\nstopped by SIGTERM\n'


def test_closed_streams_are_replaced():
  """The lock would get the number of a closed stderr, and hold the messages of libraries."""
  code = 'from jaxsr import runtime; import os, sys; runtime.open_standard_files()\n'
  code += 'print("out"); print("err", file=sys.stderr); os.write(2, b"x"); os.write(1, b"x")\n'
  code += 'sys.exit(0 if open(os.devnull).fileno() > 2 else 1)'
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  command = f'{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-'
  assert subprocess.run(command, shell=True, env=environment, check=False).returncode == 0


def test_lost_output_does_not_end_a_run(capfd):
  reader, writer = os.pipe()
  os.close(reader)
  stdout = sys.stdout
  with os.fdopen(writer, 'w') as pipe:
    sys.stdout = pipe
    try:
      with output.lasting():
        for _ in range(3):
          print('a line', flush=True)
    finally:
      sys.stdout = stdout
    os.dup2(1, pipe.fileno())  # so that closing it works


def test_a_lock_that_was_deleted_lets_nobody_in(tmp_path):
  with files.locked(tmp_path) as check:
    (tmp_path / 'lock').unlink()
    with pytest.raises(UserError, match='is in use'), files.locked(tmp_path):
      pass
    check()


def test_without_locks_at_all_a_warning_is_printed(tmp_path, monkeypatch, capsys):
  def flock(file, mode):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # as Lustre mounted without `flock`

  monkeypatch.setattr(files.fcntl, 'flock', flock)
  with files.locked(tmp_path) as check:
    check()
  assert 'has no locks: start no other process there' in capsys.readouterr().err


def test_without_locks_on_folders_a_deleted_lock_ends_the_run(tmp_path, monkeypatch):
  lock = files._try_lock
  only_files = lambda opened, mode: (
    not stat.S_ISDIR(os.fstat(opened).st_mode) and lock(opened, mode)
  )
  monkeypatch.setattr(files, '_try_lock', only_files)  # as on NFS
  with files.locked(tmp_path) as check:
    check()
    (tmp_path / 'lock').unlink()
    with pytest.raises(UserError, match='lock: was deleted'):
      check()


def test_a_lock_that_was_deleted_keeps_a_run_from_writing(run, monkeypatch):
  """Another trainer has begun meanwhile; as on NFS, whose folders have no locks."""
  config, folder = run
  config = configs.copy(config)
  config.steps, config.save, config.eval = 40, 100, 2
  lock, scalars = files._try_lock, run_log.Log.scalars
  monkeypatch.setattr(
    files,
    '_try_lock',
    lambda opened, mode: not stat.S_ISDIR(os.fstat(opened).st_mode) and lock(opened, mode),
  )
  records = (run_dir.METRICS, run_dir.CONFIG, run_dir.SAVED)

  def log(self, step, *arguments, **options):
    if step == 7:
      (folder / 'lock').unlink()
      for name in records:
        (folder / name).write_text('of another trainer')
    return scalars(self, step, *arguments, **options)

  monkeypatch.setattr(run_log.Log, 'scalars', log)
  with pytest.raises(UserError, match='lock: was deleted'):
    train(config, folder, allow_config_change=True)
  assert all((folder / name).read_text() == 'of another trainer' for name in records)
  assert event_file.last_step(folder) == 6


def test_a_folder_that_was_moved_is_named(tmp_path):
  (tmp_path / 'run').mkdir()
  with files.locked(tmp_path / 'run') as check:
    (tmp_path / 'run').rename(tmp_path / 'away')
    with pytest.raises(UserError, match='was moved or deleted'):
      check()


def test_a_relative_workdir_stays_whole_if_its_parent_is_renamed(tiny, tmp_path, monkeypatch):
  """Its checkpoints do not go on in a new folder under the old name."""
  (tmp_path / 'before').mkdir()
  monkeypatch.chdir(tmp_path / 'before')
  write = run_dir.write_config  # the last file of a save

  def rename_after(workdir, config, *, step, **more):
    write(workdir, config, step=step, **more)
    if step == 1:
      (tmp_path / 'before').rename(tmp_path / 'after')

  monkeypatch.setattr(run_dir, 'write_config', rename_after)
  tiny.steps, tiny.save = 3, 1
  with pytest.raises(UserError, match='before/run: was moved or deleted while it was in use'):
    train(tiny, Path('run'))
  assert not (tmp_path / 'before').exists()
  assert [path.name for path in (tmp_path / 'after' / 'run' / 'checkpoints').glob('[0-9]*')] == [
    '1'
  ]


@pytest.mark.parametrize('name', [run_dir.ROLLBACKS, run_dir.SKIPPED, run_dir.SAVED])
def test_damaged_records_of_a_run_are_named(run, name):
  config, folder = run
  config = configs.copy(config)
  config.steps = 6
  (folder / name).write_bytes(b'step\n\xffx')
  with pytest.raises(UserError, match=f'{name}: is not'):
    train(config, folder)


def test_a_newest_checkpoint_that_is_gone_is_told(run, capsys):
  config, folder = run
  remove(folder / 'checkpoints' / '4')
  assert train(config, folder) == 0
  out = capsys.readouterr().out
  assert 'step 4 was saved last, but its checkpoint is gone; step 2 is used' in out


def test_a_suspended_process_does_not_take_the_wait_for_too_long(monkeypatch):
  """As after Ctrl-Z and fg: the clock has jumped, and no batch was awaited meanwhile."""
  jumps = iter([0.0])
  monkeypatch.setattr(waiting.time, 'monotonic', lambda: next(jumps, 10_000.0))
  signalled = threading.Event()
  threading.Timer(0.5, signalled.set).start()
  assert WaitQueue(never(), timeout=60.0, reading=str).next(signalled.is_set) is None


@pytest.mark.parametrize('kind', [errno.EROFS, errno.ENOENT])
def test_missing_shared_memory_is_named(monkeypatch, kind):
  def fail(**options):
    raise OSError(kind, os.strerror(kind))

  monkeypatch.setattr(pipeline.shared_memory, 'SharedMemory', fail)
  with pytest.raises(UserError, match='/dev/shm, which worker processes need, cannot be written'):
    next(pipeline.iterate(grain.MapDataset.range(9), start=0, threads=1, workers=1))


def test_a_damaged_label_of_a_teacher_is_named(tmp_path):
  labels, lr = Labels(tmp_path, ['a.png']), np.zeros((8, 8, 1), np.uint8)
  label = np.random.default_rng(0).integers(0, 65535, (32, 32, 1), np.uint16)
  with labels.path(0).open('wb') as file:
    np.savez(file, label=label, checksum=zlib.crc32(lr.tobytes()))
  whole = labels.path(0).read_bytes()
  rng = np.random.default_rng(0)
  for number in range(300):
    content = bytearray(whole)
    if number % 2:
      content[rng.choice([*range(300), *range(len(whole) - 600, len(whole))])] ^= 1 << number % 8
    labels.path(0).write_bytes(content if number % 2 else whole[: rng.integers(len(whole))])
    try:
      np.testing.assert_array_equal(labels.read(0, lr), label)
    except ImageError as error:
      assert str(labels.path(0)) in str(error)
  labels.path(0).write_bytes(b'')
  with pytest.raises(ImageError, match='delete it'):
    labels.read(0, lr)


@pytest.mark.parametrize('kind', ['link', 'dangling', 'pipe', 'folder', 'file', 'hard link'])
def test_a_lock_that_jaxsr_did_not_write_is_left(tmp_path, kind):
  precious, lock = tmp_path / 'precious.txt', tmp_path / 'run' / 'lock'
  lock.parent.mkdir()
  precious.write_text('precious')
  if kind == 'file':
    lock.write_text('precious')
  elif kind == 'hard link':
    lock.hardlink_to(precious)
  elif kind == 'folder':
    lock.mkdir()
  elif kind == 'pipe':
    os.mkfifo(lock)
  else:
    lock.symlink_to(precious if kind == 'link' else tmp_path / 'missing')
  refusal = pytest.raises(UserError, match='lock: (is not a regular|was not written)')
  with refusal, files.locked(lock.parent):
    pass
  assert precious.read_text() == 'precious' and not (tmp_path / 'missing').exists()
  assert kind != 'file' or lock.read_text() == 'precious'


def test_a_folder_that_replaced_the_run_during_a_save_is_left(tmp_path):
  """Another folder has the path of the run when the arrays of the checkpoint are written."""
  run, written = tmp_path / 'run', []
  run.mkdir()
  with files.locked(run) as check:
    checkpoints = Checkpoints(run / 'checkpoints', before=check, after=written.append)
    finish = checkpoints._sweep

    def replace():
      finish()
      run.rename(tmp_path / 'moved')
      run.mkdir()

    checkpoints._sweep = replace
    checkpoints.save(1, {'ema': {'params': {'kernel': jnp.zeros(4)}}})
    with pytest.raises(UserError, match='was moved or deleted'):
      checkpoints.wait()
  assert not written and not list(run.iterdir())


@pytest.mark.parametrize('names', [('SIGTERM', 'SIGHUP'), ('SIGHUP', 'SIGTERM')])
def test_both_signals_of_a_closing_session_are_one_request(monkeypatch, names):
  ended = []
  monkeypatch.setattr(os, '_exit', ended.append)
  stop = preemption.Preemption()
  for name in names:
    stop.note(signal.Signals[name])
  assert not ended and stop.signal == signal.Signals[names[0]]
  stop._since -= 1.0
  stop.note(signal.Signals[names[1]])
  assert ended == [128 + signal.Signals[names[1]]]
