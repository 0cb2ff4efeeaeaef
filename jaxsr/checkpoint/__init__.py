"""Save and restore the checkpoints of a run, and detect corrupt ones.

A folder holds one checkpoint per step; the last two and the best by validation PSNR are kept. A
corrupt checkpoint is renamed to `N.bad`, and the one before it is used.
"""

import itertools
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsr import files
from jaxsr.checkpoint import storage
from jaxsr.checkpoint.storage import CheckpointError, CorruptCheckpointError, SaveError
from jaxsr.config import compatibility
from jaxsr.errors import is_disk_full, warn

Tree = Any
LATEST = 2
SAVING = '.saving'
_NONE = -1
_STEP = re.compile('0|[1-9][0-9]*')


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(
    self,
    folder: Path,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[int], None] = lambda step: None,
  ):
    """Prepare to save and restore.

    Args:
      folder: the folder of the checkpoints.
      before: called before each save, and again before files are replaced, by the first host.
      after: called with a step when its checkpoint is complete, by the first host, in a thread.
    """
    self.folder = files.real(folder)  # Orbax takes no relative path
    self.data: Mapping[str, Any] = {}  # fingerprints of the images, saved with each checkpoint
    self.run = ''  # the ID of the run; saved with each checkpoint and compared, as is the config
    self.config: Mapping[str, Any] = {}
    self._before, self._after = before, after
    self._saver: threading.Thread | None = None
    self._error: Exception | None = None

  def path(self, step: int) -> Path:
    """Returns the folder of a step."""
    return self.folder / str(step)

  def steps(self) -> list[int]:
    """List the saved steps, valid or corrupt, in ascending order."""
    if not self.folder.is_dir():
      return []
    return sorted(
      int(p.name) for p in self.folder.iterdir() if _STEP.fullmatch(p.name) and p.is_dir()
    )

  def exists(self) -> bool:
    """Whether anything was ever saved, be it valid or renamed as corrupt."""
    return bool(self.steps()) or any(self.folder.glob('*.bad*'))

  def best(self) -> int | None:
    """Returns the step with the best validation PSNR, or None if none was validated."""
    scores = {step: self._psnr(step) for step in self.steps()}
    validated = {step: score for step, score in scores.items() if score is not None}
    return max(validated, key=lambda step: validated[step], default=None)

  def _psnr(self, step: int) -> float | None:
    try:
      record = storage.read_record(self.path(step))
      return None if self._is_foreign(record) else record['psnr']
    except (CorruptCheckpointError, KeyError):
      return None

  def trained_on(self) -> dict[str, Any]:
    """Returns the `data` of the newest checkpoint that is not damaged; empty if it has none."""
    return dict(self.newest_record().get('data', {}))

  def newest_record(self) -> dict[str, Any]:
    """Returns the record of the newest checkpoint that is not damaged; empty if there is none.

    Older versions saved neither `data` nor the `run` and its `network`.
    """
    for step in reversed(self.steps()):
      try:
        return storage.read_record(self.path(step))
      except CorruptCheckpointError:  # `restore` reports it
        continue
    return {}

  def save(self, step: int, state: Tree, *, psnr: float | None = None) -> None:
    """Start saving a state in the background.

    The folder of a step gets its name only when it is complete on disk.

    Args:
      step: the step.
      state: the state; it may be donated as soon as this returns.
      psnr: its validation PSNR in dB, if it was validated.

    Raises:
      CheckpointError: this or the previous checkpoint cannot be written.
    """
    self.wait()
    self._before()
    saving = self.folder / f'{step}{SAVING}'
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      network = compatibility.describe_network(dict(self.config))
      record = {'step': step, 'psnr': psnr, 'data': dict(self.data)}
      record |= {'run': self.run, 'network': network}
      finish = storage.write(saving, state, record)
    except Exception as error:
      raise self._cannot_save(error) from error
    self._saver = threading.Thread(target=self._finish, args=(finish, saving, step))
    self._saver.start()

  def _finish(self, finish: Callable[[], None], saving: Path, step: int) -> None:
    try:
      finish()
      if not self.steps() and jax.process_count() == 1:
        storage.verify(saving)  # once per run: a disk or a path that does not work shows at once
      if jax.process_index() == 0:
        self._before()
        if self.path(step).is_symlink() or self.path(step).is_file():  # not of this run
          self._rename(step, 'stray')
        shutil.rmtree(self.path(step), ignore_errors=True)
        saving.rename(self.path(step))
        files.sync_one(self.folder)  # before older ones are deleted: power may fail
        self._before()
        self._sweep()
        self._before()  # deleting may take long
        self._after(step)
    except Exception as error:  # in a thread; `wait` raises it
      self._error = error

  def wait(self) -> None:
    """Wait until the last checkpoint is on disk; raises CheckpointError if that failed."""
    if self._saver is not None:
      self._saver.join()
      self._saver = None
    if self._error is not None:
      error, self._error = self._error, None
      raise self._cannot_save(error) from error

  def _cannot_save(self, error: Exception) -> SaveError:
    reason = '' if is_disk_full(error) else f' ({storage.summarize_error(error)})'
    return SaveError(f'{self.folder}: cannot save{reason}')

  def _sweep(self) -> None:
    """Delete the steps that are not kept, and incomplete ones of a killed process."""
    steps = self.steps()
    try:
      kept = {*steps[-LATEST:], self.best()}
    except CheckpointError as error:
      warn(f'{error}; no older checkpoint is deleted, since it may be the best')
      return
    dropped = [self.path(step) for step in steps if step not in kept]
    for path in [*dropped, *self.folder.glob(f'*{SAVING}*')]:
      shutil.rmtree(path, ignore_errors=True)

  def discard_after(self, step: int) -> None:
    """Rename the checkpoints of later steps, which a loss spike has spoiled, to `N.spiked`."""
    for later in self.steps():
      if later > step:
        self._rename(later, 'spiked')

  def _rename(self, step: int, kind: str) -> Path:
    """Rename a checkpoint so that it is not used; returns its new path."""
    names = itertools.chain([kind], (f'{kind}{number}' for number in itertools.count(2)))
    asides = (self.folder / f'{step}.{name}' for name in names)
    return self.path(step).rename(next(path for path in asides if not path.exists()))

  def restore(self, target: Tree, *, repair: bool = False) -> Tree:
    """Restore the newest valid state; several hosts restore the same one.

    Args:
      target: the shapes and shardings of the state.
      repair: rename corrupt checkpoints to `N.bad`.

    Raises:
      CheckpointError: no checkpoint is valid, or one is of another architecture or cannot be read
        now.
    """
    return self._walk_back(target, ('',), repair=repair)[0]

  def restore_variables(self, target: Tree, *, step: int | None = None) -> tuple[Tree, int]:
    """Restore only the averaged variables, which inference needs.

    Args:
      target: the shapes of `params` and, if the network has them, `batch_stats`.
      step: the step; None for the newest valid one.

    Returns:
      The averages of both, and their step.

    Raises:
      CheckpointError: as `restore`, or the given step is corrupt.
    """
    wanted, parts = {'ema': target}, ('ema',)
    if step is None:
      found, step = self._walk_back(wanted, parts, repair=False)
    else:
      try:
        found = self._read(step, wanted, parts)
      except CorruptCheckpointError as damage:
        text = f'checkpoint {self.path(step)} is damaged ({damage}); give another step'
        raise CheckpointError(text) from damage
    for difference in self._compare(storage.read_record(self.path(step)))[1]:
      warn(f'{self.path(step)}: {difference}')
    return found['ema'], step

  def _walk_back(self, target: Tree, parts: tuple[str, ...], *, repair: bool) -> tuple[Tree, int]:
    tried: set[int] = set()
    while True:
      step = self._agree(tried)
      try:
        return self._read(step, target, parts), step
      except CorruptCheckpointError as damage:
        self._report(step, damage, repair=repair)
        tried.add(step)

  def _agree(self, tried: set[int]) -> int:
    """Returns the newest step that was not tried, as the first host sees it."""
    step = max((s for s in self.steps() if s not in tried), default=_NONE)
    if jax.process_count() > 1:
      step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == _NONE:
      raise CheckpointError(
        f'{self.folder}: contains no valid checkpoint; train first, or choose another '
        '--workdir to start over'
      )
    return step

  def _read(self, step: int, target: Tree, parts: tuple[str, ...]) -> Tree:
    """Read a step. Every host checks every file, so that all fail or none does."""
    path = self.path(step)
    storage.check(path)
    record = storage.read_record(path)
    if record['step'] != step:
      raise CorruptCheckpointError(f'it is a copy of step {record["step"]}')
    self._check_run(path, record)
    return storage.read(path, target, parts)

  def _check_run(self, path: Path, record: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a checkpoint is of another run or network, as far as is known."""
    if self._is_foreign(record):
      why = f'is of another run ({record["run"]}, but {self.run} in config.json)'
      raise CheckpointError(f'{path}: {why}; move it away, or restore config.json')
    for difference in self._compare(record)[0]:
      why = f'{difference}, which is another network'
      raise CheckpointError(f'{path}: {why}; restore config.json')

  def _is_foreign(self, record: Mapping[str, Any]) -> bool:
    return bool(self.run) and record.get('run') not in (None, '', self.run)

  def _compare(self, record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    return compatibility.compare_networks(record.get('network', {}), dict(self.config))

  def _report(self, step: int, damage: CorruptCheckpointError, *, repair: bool) -> None:
    if jax.process_index() != 0:
      return
    path, way_out = self.path(step), 'trying the one before it'
    if repair:
      way_out = f'set aside as {self._rename(step, "bad").name}, {way_out}'
    print(f'checkpoint {path} is damaged ({damage}); {way_out}', file=sys.stderr, flush=True)
