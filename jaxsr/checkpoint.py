"""The only file that talks to Orbax: atomic, asynchronous checkpoints that are verified.

Orbax restores a flipped bit in silence. So the SHA-256 of every array is stored beside it and
checked on the way back; a step that fails is set aside as `N.bad` and the one before it is used.

A folder of checkpoints holds one folder a step; the last two and the best by validation PSNR are
kept.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxsr.errors import UserError

Tree = Any
LATEST = 2


class CheckpointError(UserError):
  """Says what is wrong with a checkpoint."""


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, folder: Path):
    self.folder = folder.resolve()
    self._pending: ocp.AsyncResponse | None = None

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

    Raises CheckpointError if the disk does not take it.
    """
    self.wait()
    arrays = {'arrays': dict(_named(state))}
    record = {'step': step, 'psnr': psnr, 'sums': sums(arrays['arrays'])}
    path = self.folder / str(step)
    self.folder.mkdir(parents=True, exist_ok=True)
    try:
      self._pending = ocp.save_checkpointables_async(
        str(path), {'state': arrays}, overwrite=True, custom_metadata=_seal(record)
      )
    except Exception as error:
      raise CheckpointError(f'{path}: cannot be saved ({_first_line(error)})') from error

  def wait(self) -> None:
    """Wait until the last save is on disk, then drop the steps that are not kept."""
    if self._pending is None:
      return
    pending, self._pending = self._pending, None
    try:
      pending.result()
    except Exception as error:
      raise CheckpointError(f'{self.folder}: cannot save ({_first_line(error)})') from error
    if jax.process_index() == 0:
      self._sweep()

  def _sweep(self) -> None:
    steps = self.steps()
    scores = {step: _psnr(self.folder / str(step)) for step in steps}
    best = [max(steps, key=lambda step: scores[step])]
    for step in set(steps) - set(steps[-LATEST:]) - set(best):
      shutil.rmtree(self.folder / str(step), ignore_errors=True)

  def best(self) -> int:
    """Name the step with the best validation PSNR."""
    return max(self.steps(), key=lambda step: _psnr(self.folder / str(step)))

  def restore(self, target: Tree, *, repair: bool = False) -> Tree:
    """Restore the last state that is whole.

    `target` gives its shapes and shardings. With `repair`, a damaged step is renamed to `N.bad`.
    Raises CheckpointError where no step is whole, or where they are of another architecture.
    """
    return self._walk_back(target, repair=repair)[0]

  def restore_variables(self, target: Tree, *, step: int | None = None) -> tuple[Tree, int]:
    """Restore what inference needs, and nothing else, of a step (default: the last).

    `target` gives the shapes of `params` and, where the network has them, `batch_stats`. Returns
    the averaged parameters with the statistics, and the step that they are of. Raises
    CheckpointError as `restore` does.
    """
    places = {'params': 'ema', 'batch_stats': 'generator/batch_stats'}
    wanted = {places[name]: tree for name, tree in target.items()}
    found, number = self._walk_back(wanted, parts=tuple(places.values()), step=step)
    return {name: found[places[name]] for name in target}, number

  def _walk_back(
    self,
    target: Tree,
    *,
    parts: tuple[str, ...] = ('',),
    step: int | None = None,
    repair: bool = False,
  ) -> tuple[Tree, int]:
    steps = [s for s in self.steps() if step is None or s <= step]
    if not steps:
      raise CheckpointError(f'{self.folder}: holds no checkpoint that is whole; train first')
    for candidate in reversed(steps):
      try:
        return self._load(candidate, target, parts), candidate
      except _Damaged as damage:
        self._report(candidate, damage, repair=repair)
    raise CheckpointError(
      f'{self.folder}: none of its {len(steps)} checkpoints is whole; choose a new workdir to '
      'train from the start'
    )

  def _report(self, step: int, damage: '_Damaged', *, repair: bool) -> None:
    name = f'checkpoint {self.folder / str(step)} is damaged ({damage})'
    if not repair:
      print(f'{name}; trying the one before it', file=sys.stderr, flush=True)
      return
    aside = self.folder / f'{step}.bad'
    number = 1
    while aside.exists():
      number += 1
      aside = self.folder / f'{step}.bad{number}'
    (self.folder / str(step)).rename(aside)
    text = f'{name}; set aside as {aside.name}, trying the one before it'
    print(text, file=sys.stderr, flush=True)

  def _load(self, step: int, target: Tree, parts: tuple[str, ...]) -> Tree:
    path = self.folder / str(step)
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
  """Take whatever Orbax's parsers and TensorStore raise for damage."""
  try:
    yield
  except _Damaged:
    raise
  except Exception as error:
    raise _Damaged(_first_line(error)) from error


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
