"""The only file that talks to Orbax: atomic, asynchronous checkpoints that are verified.

Orbax restores a flipped bit in silence. So a checkpoint holds the SHA-256 of every array, taken
before it is handed to Orbax, and of every file; both are checked on the way back. A step that fails
is set aside as `N.bad`, and the one before it is used.

A folder of checkpoints holds one folder a step; the last two and the best by validation PSNR are
kept.
"""

import hashlib
import itertools
import json
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxsr import manifest
from jaxsr.errors import UserError

Tree = Any
LATEST = 2
SAVING = '.saving'
_NONE = -1


class CheckpointError(UserError):
  """Says what is wrong with a checkpoint."""


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, folder: Path):
    self.folder = folder.resolve()
    self._saver: threading.Thread | None = None
    self._error: Exception | None = None

  def steps(self) -> list[int]:
    """List the steps that are there, damaged or not, in order."""
    if not self.folder.is_dir():
      return []
    return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit() and p.is_dir())

  def started(self) -> bool:
    """Tell whether anything was ever saved, be it whole or set aside."""
    return bool(self.steps()) or any(self.folder.glob('*.bad*'))

  def save(self, step: int, state: Tree, *, psnr: float | None = None) -> None:
    """Begin to save a state; `psnr` is its validation figure, if it has one.

    A step gets its name only once all of it is on disk. Raises CheckpointError where the disk does
    not take it, or did not take the one before.
    """
    self.wait()
    arrays = dict(_named(state))
    record = {'step': step, 'psnr': psnr, 'sums': sums(arrays)}
    path = self.folder / f'{step}{SAVING}'
    contents = {'state': {'arrays': arrays}}
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      response = ocp.save_checkpointables_async(
        str(path), contents, overwrite=True, custom_metadata=_seal(record)
      )
    except Exception as error:
      raise CheckpointError(f'{path}: cannot be saved ({_first_line(error)})') from error
    self._saver = threading.Thread(target=self._finish, args=(response.result, path, step))
    self._saver.start()

  def _finish(self, saved: Callable[[], object], path: Path, step: int) -> None:
    try:
      saved()
      if jax.process_index() == 0:
        manifest.write(path)
        shutil.rmtree(self.folder / str(step), ignore_errors=True)
        path.rename(self.folder / str(step))
        self._sweep()
    except Exception as error:  # given to whoever waits
      self._error = error

  def wait(self) -> None:
    """Wait until the last save is on disk; raises CheckpointError if it is not."""
    if self._saver is not None:
      self._saver.join()
      self._saver = None
    if self._error is not None:
      error, self._error = self._error, None
      raise CheckpointError(f'{self.folder}: cannot save ({_first_line(error)})') from error

  def _sweep(self) -> None:
    """Drop the steps that are not kept, and what a killed trainer left half saved."""
    steps = self.steps()
    kept = {*steps[-LATEST:], self.best()}
    dropped = [self.folder / str(step) for step in steps if step not in kept]
    for path in dropped + list(self.folder.glob(f'*{SAVING}*')):
      shutil.rmtree(path, ignore_errors=True)

  def best(self) -> int | None:
    """Name the step with the best validation PSNR, if any was validated."""
    scores = {step: _psnr(self.folder / str(step)) for step in self.steps()}
    validated = [step for step, score in scores.items() if np.isfinite(score)]
    return max(validated, key=lambda step: scores[step], default=None)

  def restore(self, target: Tree, *, repair: bool = False) -> Tree:
    """Restore the last state that is whole; several hosts restore the same one.

    `target` gives its shapes and shardings. With `repair`, a damaged step is renamed to `N.bad`.
    Raises CheckpointError where no step is whole, or where they are of another architecture.
    """
    return self._walk_back(target, ('',), repair=repair)[0]

  def restore_variables(self, target: Tree, *, step: int | None = None) -> tuple[Tree, int]:
    """Restore what inference needs, and nothing else, of the last whole step or of a given one.

    `target` gives the shapes of `params` and, where the network has them, `batch_stats`. Returns
    the averaged parameters with the statistics, and the step that they are of. Raises
    CheckpointError as `restore` does, and where a given step is damaged.
    """
    places = {'params': 'ema', 'batch_stats': 'generator/batch_stats'}
    wanted, parts = {places[k]: tree for k, tree in target.items()}, tuple(places.values())
    if step is None:
      found, step = self._walk_back(wanted, parts, repair=False)
    else:
      try:
        found = self._load(step, wanted, parts)
      except _Damaged as damage:
        text = f'checkpoint {self.folder / str(step)} is damaged ({damage}); give another step'
        raise CheckpointError(text) from damage
    return {name: found[places[name]] for name in target}, step

  def _walk_back(self, target: Tree, parts: tuple[str, ...], *, repair: bool) -> tuple[Tree, int]:
    tried: set[int] = set()
    while True:
      step = self._agree(tried, repair=repair)
      try:
        return self._load(step, target, parts), step
      except _Damaged as damage:
        self._report(step, damage, repair=repair)
        tried.add(step)

  def _agree(self, tried: set[int], *, repair: bool) -> int:
    """Name the newest step whose files are whole, as the first host finds it."""
    step = self._newest(tried, repair=repair) if jax.process_index() == 0 else _NONE
    if jax.process_count() > 1:
      step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step == _NONE:
      raise CheckpointError(
        f'{self.folder}: holds no checkpoint that is whole; train first, or choose a new workdir '
        'to start over'
      )
    return step

  def _newest(self, tried: set[int], *, repair: bool) -> int:
    for step in reversed(self.steps()):
      if step in tried:
        continue
      try:
        with _damage():
          manifest.verify(self.folder / str(step))
        return step
      except _Damaged as damage:
        self._report(step, damage, repair=repair)
        tried.add(step)
    return _NONE

  def _report(self, step: int, damage: '_Damaged', *, repair: bool) -> None:
    if jax.process_index() != 0:
      return
    path, way_out = self.folder / str(step), 'trying the one before it'
    if repair:
      aside = next(p for p in map(self.folder.joinpath, _bad_names(step)) if not p.exists())
      path.rename(aside)
      way_out = f'set aside as {aside.name}, {way_out}'
    print(f'checkpoint {path} is damaged ({damage}); {way_out}', file=sys.stderr, flush=True)

  def _load(self, step: int, target: Tree, parts: tuple[str, ...]) -> Tree:
    path = self.folder / str(step)
    with _damage():
      manifest.verify(path)
    record = _record(path)
    if record['step'] != step:
      raise _Damaged(f'it is a copy of step {record["step"]}')
    shapes = dict(_named(target))
    _compare(path, {k: v for k, v in record['sums'].items() if k.startswith(parts)}, shapes)
    abstract = {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
      for name, x in shapes.items()
    }
    context = ocp.Context()
    context.pytree_options.loading.partial_load = True
    with _damage(), context:
      state = ocp.load_checkpointables(str(path), {'state': {'arrays': abstract}})
      arrays = state['state']['arrays']
    for name, found in sums(arrays).items():
      if found != record['sums'][name]:
        raise _Damaged(f'SHA-256 of {name} differs')
    return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in shapes])


def _bad_names(step: int) -> Iterator[str]:
  yield f'{step}.bad'
  yield from (f'{step}.bad{number}' for number in itertools.count(2))


class _Damaged(Exception):
  """Says why a step cannot be used."""


def sums(arrays: Mapping[str, jax.Array]) -> dict[str, list]:
  """Describe arrays by SHA-256, shape and dtype."""
  host = jax.device_get(dict(arrays))
  return {
    name: [
      hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
      list(x.shape),
      str(x.dtype),
    ]
    for name, x in host.items()
  }


def _named(tree: Tree) -> list[tuple[str, Any]]:
  """Name leaves by their path; a file keeps no classes, so neither does what is saved."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), x) for path, x in leaves]


def _seal(record: dict) -> Any:
  text = json.dumps(record)
  return {'text': text, 'sha256': hashlib.sha256(text.encode()).hexdigest()}


def _record(path: Path) -> dict:
  with _damage():
    sealed: Any = ocp.checkpointables_metadata(str(path)).custom_metadata
    text = str(sealed['text'])
    if hashlib.sha256(text.encode()).hexdigest() != sealed['sha256']:
      raise _Damaged('SHA-256 of its record differs')
    return json.loads(text)


@contextmanager
def _damage() -> Iterator[None]:
  """Take whatever Orbax's parsers and TensorStore raise for damage, and keep their logs quiet."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL + 1)
  try:
    yield
  except _Damaged:
    raise
  except Exception as error:
    raise _Damaged(_first_line(error)) from error
  finally:
    logger.setLevel(level)


def _psnr(path: Path) -> float:
  try:
    return _record(path)['psnr'] or -np.inf
  except _Damaged:
    return -np.inf


def _compare(path: Path, saved: dict, wanted: dict) -> None:
  """Tell another architecture from damage: the sealed record lists every array's shape."""
  for name in sorted(saved.keys() | wanted.keys()):
    if name not in saved or name not in wanted:
      side = 'lacks' if name in wanted else 'has'
      raise CheckpointError(f'{path}: is of another architecture: it {side} {name}')
    there, here = saved[name][1:], [list(wanted[name].shape), str(wanted[name].dtype)]
    if there != here:
      raise CheckpointError(
        f'{path}: is of another architecture: {name} is {there[0]} {there[1]} there, '
        f'{here[0]} {here[1]} here'
      )


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return f'{type(error).__name__}: {lines[0][:160]}' if lines else type(error).__name__
