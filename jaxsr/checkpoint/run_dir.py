"""The folder of a run: its config, and the table of its validations."""

import contextlib
import csv
import importlib.metadata
import itertools
import math
import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsr import __version__, runtime
from jaxsr.config import compatibility
from jaxsr.data import fingerprint
from jaxsr.errors import UserError
from jaxsr.files import check_regular, read_json, to_csv, write_json, write_text

CONFIG = 'config.json'
METRICS = 'metrics.csv'
CHECKPOINTS = 'checkpoints'
SKIPPED, ROLLBACKS = 'skipped.csv', 'rollbacks.json'
SAVED = (
  'last_saved.json'  # the step of the newest checkpoint, beside `checkpoints`, which may be lost
)
MOST_PSNR = 200  # dB; nothing that is measured is above `metrics.EQUAL`


def environment() -> dict[str, Any]:
  """Returns the versions and devices that bit-identical results depend on."""
  versions = {name: importlib.metadata.version(name) for name in runtime.PACKAGES}
  devices = jax.devices()
  return {
    'jaxsr': __version__,
    'python': platform.python_version(),
    **versions,
    'device': devices[0].device_kind,
    'devices': len(devices),
    'processes': jax.process_count(),
    'cores': runtime.cpu_count(),
  }


def read_config(workdir: Path) -> dict[str, Any] | None:
  """Read the `config`, `environment` and `data` of a run's last start; None if there is none.

  `step` is that of its newest checkpoint, or None if an older version wrote the file. `run` is the
  ID of the run, or ''.
  """
  path = workdir / CONFIG
  if not path.exists():
    return None
  try:
    saved = read_json(path)
    found = {name: dict(saved[name]) for name in ('config', 'environment')}
    step = saved.get('step')
    more = {'data': dict(saved.get('data', {})), 'step': None if step is None else int(step)}
    return found | more | {'run': str(saved.get('run', ''))}
  except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
    raise UserError(f'{path}: is not the config of a run ({type(error).__name__})') from error


def write_config(workdir: Path, config: dict[str, Any], **more: Any) -> None:
  """Write the resolved config and the environment."""
  write_json(workdir / CONFIG, {'config': config, 'environment': environment(), **more})


def find_id(workdir: Path, newest: Mapping[str, Any]) -> str:
  """Returns the ID of a run, which copies of its folder share; a new one for a new run.

  Args:
    workdir: The folder of the run.
    newest: The record of its newest checkpoint, which has the ID if `config.json` is lost.
  """
  return (read_config(workdir) or {}).get('run') or newest.get('run') or uuid.uuid4().hex[:16]


def write_saved(workdir: Path, step: int, crop_psnr: Sequence[float] = ()) -> None:
  """Write the step of the newest checkpoint, and the PSNR of crops in the last rows before it."""
  write_json(workdir / SAVED, {'step': step, 'crop_psnr': list(crop_psnr)})


def _read_saved(workdir: Path) -> dict[str, Any]:
  path = workdir / SAVED
  if not path.exists():
    return {'step': 0}
  try:
    found = read_json(path)
    return {'step': int(found['step']), 'crop_psnr': [float(x) for x in found['crop_psnr']]}
  except (ValueError, KeyError, TypeError, OverflowError) as error:
    raise UserError(f'{path}: is not the record of a run; delete it') from error


def read_crop_psnr(workdir: Path) -> list[float]:
  """Read the PSNR of crops before the newest checkpoint, which loss spikes are compared with."""
  return _read_saved(workdir).get('crop_psnr', [])


def rollbacks(workdir: Path) -> list[dict[str, int]]:
  """Read the rollbacks of a run, each with the steps `spiked` and `back_to`."""
  path = workdir / ROLLBACKS
  if not path.exists():
    return []
  try:
    found = read_json(path)
    return [{name: int(each[name]) for name in ('spiked', 'back_to')} for each in found]
  except (ValueError, KeyError, TypeError, OverflowError) as error:
    raise UserError(
      f'{path}: is not the record of rollbacks, by whose number images are ordered; restore it, '
      'or delete it to continue with the first order'
    ) from error


def add_rollback(workdir: Path, *, spiked: int, back_to: int) -> None:
  """Write one more rollback; the order of the images depends on their number."""
  write_json(workdir / ROLLBACKS, [*rollbacks(workdir), {'spiked': spiked, 'back_to': back_to}])


def check_newest(workdir: Path, newest: int) -> None:
  """Print a note if the newest checkpoint is older than the one that was saved last."""
  if 0 < newest < (last := _read_saved(workdir)['step']):
    print(f'note: step {last} was saved last, but its checkpoint is gone; step {newest} is used')


def _trained(workdir: Path, curves: Callable[[], int]) -> int:
  """Returns the last step that the files beside the checkpoints know of; 0 for a new run.

  If `config.json` has the step of the newest checkpoint, rows and curves beyond it are of a run
  that was killed before it saved them.
  """
  saved, config = _read_saved(workdir)['step'], read_config(workdir)
  validated = max(
    (int(row['step']) for row in MetricsTable(workdir, step=sys.maxsize).rows), default=0
  )
  if config is not None and config['step'] is not None:
    return max(saved, config['step'])
  return max(saved, validated, curves())


def check_not_lost(workdir: Path, curves: Callable[[], int]) -> None:
  """Raise UserError if a run without checkpoints has trained before, so that they must be lost.

  Also if another program wrote files with the names of a run's.

  Args:
    workdir: The folder of the run.
    curves: Returns the last step of the curves in the folder.
  """
  folder = workdir / CHECKPOINTS
  if folder.is_symlink() and not folder.exists():
    why = f'{folder} is a link to {folder.readlink()}, which does not exist; mount it'
    raise UserError(f'{why}, or delete the link')
  if step := _trained(workdir, curves):
    state = 'holds none' if folder.exists() else 'does not exist'
    raise UserError(
      f'{workdir}: was trained to step {step}, but the folder of its checkpoints {state}; restore '
      f'or mount {folder}, or pass --restart to begin again'
    )


@contextlib.contextmanager
def removed_if_unused(folder: Path, *, new: bool) -> Iterator[None]:
  """Remove a new folder at the end if it holds only its lock, as after a mistake in the config."""
  try:
    yield
  finally:
    with contextlib.suppress(OSError):  # the folder may have been moved
      if new and [path.name for path in folder.iterdir()] == ['lock']:
        (folder / 'lock').unlink()
        folder.rmdir()


def set_aside(workdir: Path) -> None:
  """Move the files of a run to a new folder `before_restart_N` in its folder."""
  names = (CHECKPOINTS, CONFIG, METRICS, SAVED, SKIPPED, ROLLBACKS)
  found = [path for name in names if os.path.lexists(path := workdir / name)]
  found += workdir.glob('events.out.tfevents.*')
  if not found:
    return
  aside = next(
    path for n in itertools.count(1) if not (path := workdir / f'before_restart_{n}').exists()
  )
  aside.mkdir()
  for path in found:
    if not os.path.ismount(path):  # an empty mount point stays where it is
      path.rename(aside / path.name)
  print(f'note: the files of the run before this one are now in {aside}')


def check_config(workdir: Path, config: dict[str, Any], *, allowed: bool) -> None:
  """Print what changed since the run's last start; raises UserError if that is not allowed."""
  saved = read_config(workdir)
  if saved is None:
    if not allowed:
      raise UserError(
        f'{workdir / CONFIG}: is missing, so changed settings would not be noticed; restore it, or '
        'pass --allow-config-change to continue with the settings of this command'
      )
    return
  for line in compatibility.check_change(saved['config'], config, allowed=allowed):
    print(f'note: {line}')
  for name, (was, now) in compatibility.differences(saved['environment'], environment()).items():
    print(f'note: {name} was {was}, is now {now}: the result will not be the same bit for bit')


def check_data(
  workdir: Path, saved: Mapping[str, Any], found: Mapping[str, Any], *, allowed: bool
) -> None:
  """Compare the fingerprints of images with those that a run was trained on.

  Args:
    workdir: The folder of the run.
    saved: The fingerprints in its newest checkpoint; if that has none, as those of older versions,
      those in `config.json` are used.
    found: The fingerprints of the images now, of 'train' and 'val'.
    allowed: Whether the training images may have changed.

  Raises:
    UserError: They have, although it is not allowed.
  """
  saved = saved or (read_config(workdir) or {}).get('data', {})
  for name, now in found.items():
    if not (change := fingerprint.compare(saved.get(name, {}), now)):
      continue
    text = f'the images of config.data.{name} have changed since the last checkpoint: {change}'
    if name == 'train' and not allowed:
      raise UserError(f'{text}; restore them, or pass --allow-config-change to continue with these')
    print(f'note: {text}')


class MetricsTable:
  """`metrics.csv`: one row per validation, up to the step that a run resumes from."""

  def __init__(self, workdir: Path, *, step: int):
    self._path = workdir / METRICS
    self._rows: list[dict[str, Any]] = []
    if self._path.exists():
      rows = [row for row in _read_rows(self._path) if int(row['step']) <= step]
      self._rows = sorted(rows, key=lambda row: int(row['step']))  # a spreadsheet may reorder them

  @property
  def rows(self) -> list[dict[str, Any]]:
    """The rows, in the order of their steps."""
    return self._rows

  def has(self, step: int) -> bool:
    """Whether a step was validated."""
    return any(int(row['step']) == step for row in self._rows)

  def before(self, step: int) -> int:
    """Returns the last validated step before a step; 0 if there is none."""
    return max((int(row['step']) for row in self._rows if int(row['step']) < step), default=0)

  def psnr(self, step: int) -> float | None:
    """Returns the PSNR of a step, or None if it was not validated."""
    return next((float(r['psnr']) for r in self._rows if int(r['step']) == step), None)

  def add(self, row: dict[str, Any], *, write: bool = True) -> None:
    """Append a row and, with `write`, replace the file."""
    self._rows.append(row)
    if write:
      write_text(self._path, to_csv(self._rows))

  def last(self) -> dict[str, Any]:
    """Returns the newest row."""
    return self._rows[-1]


class SkippedTable:
  """`skipped.csv`: the images of the steps that were skipped since they were not finite."""

  def __init__(self, workdir: Path, *, step: int):
    self._path = workdir / SKIPPED
    self._rows: list[dict[str, Any]] = []
    if self._path.exists():
      try:
        check_regular(self._path)
        with self._path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
          rows = [{name: row[name] for name in ('step', 'image')} for row in csv.DictReader(file)]
        self._rows = [row for row in rows if int(row['step']) < step]
      except (ValueError, KeyError, TypeError, csv.Error) as error:
        text = 'is not as jaxsr wrote it; restore it, or move it away to begin a new table'
        raise UserError(f'{self._path}: {text}') from error

  def add(self, step: int, names: Sequence[str]) -> None:
    """Append the images of a step, and replace the file."""
    self._rows += [{'step': step, 'image': name} for name in names]
    write_text(self._path, to_csv(self._rows))


def _read_rows(path: Path) -> list[dict[str, Any]]:
  """Read the rows of `metrics.csv`; raises UserError unless all are as jaxsr writes them."""
  rows: list[dict[str, Any]] = []
  steps: set[int] = set()
  try:
    check_regular(path)
    with path.open(newline='', encoding='utf-8-sig') as file:
      table = csv.DictReader(file, strict=True)
      if not {'step', 'psnr'} <= {*(table.fieldnames or ('step', 'psnr'))}:
        raise ValueError
      for row in table:
        if None in row or None in row.values():
          raise ValueError
        row = {name: value.strip() for name, value in row.items()}
        if not row['step'].isdecimal() or (step := int(row['step'])) in steps:
          raise ValueError
        if not abs(float(row['psnr'])) <= MOST_PSNR:  # also if it is NaN
          raise ValueError
        steps.add(step)
        rows.append(row)
  except (ValueError, KeyError, TypeError, csv.Error) as error:
    raise UserError(
      f'{path}: row {len(rows) + 1} is not as jaxsr wrote it; did a spreadsheet save the file? '
      'Restore it, or move it away to begin a new table'
    ) from error
  return rows


def last_row(workdir: Path, *, step: int | None) -> dict[str, float]:
  """Read the finite figures of the validation of a step; empty if there is none."""
  table = MetricsTable(workdir, step=sys.maxsize)
  row = next((row for row in table.rows if int(row['step']) == step), {})
  try:
    found = {name: float(value) for name, value in row.items() if value}
  except ValueError as error:
    text = f'{workdir / METRICS}: the row of step {step} is not as jaxsr wrote it ({error})'
    raise UserError(f'{text}; restore it, or give --data to measure the network') from error
  return {name: value for name, value in found.items() if math.isfinite(value)}
