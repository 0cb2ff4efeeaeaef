"""The folder of a run: its config, and the table of its validations."""

import csv
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from jaxsr import __version__, runtime
from jaxsr.config import compatibility
from jaxsr.errors import UserError
from jaxsr.files import to_csv, write_json, write_text

CONFIG = 'config.json'
METRICS = 'metrics.csv'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pillow')


def environment() -> dict[str, Any]:
  """Returns the versions and devices that bit-identical results depend on."""
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
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
  """Read the `config` and `environment` of a run's last start; None if the folder has none."""
  path = workdir / CONFIG
  if not path.exists():
    return None
  try:
    saved = json.loads(path.read_text(encoding='utf-8'))
    return {'config': dict(saved['config']), 'environment': dict(saved['environment'])}
  except (ValueError, KeyError, TypeError, OSError) as error:
    raise UserError(f'{path}: is not the config of a run ({type(error).__name__})') from error


def write_config(workdir: Path, config: dict[str, Any], **more: Any) -> None:
  """Write the resolved config and the environment."""
  write_json(workdir / CONFIG, {'config': config, 'environment': environment(), **more})


def check_config(workdir: Path, config: dict[str, Any], *, allowed: bool) -> None:
  """Print what changed since the run's last start; raises UserError if that is not allowed."""
  saved = read_config(workdir)
  if saved is None:
    return
  for line in compatibility.check_change(saved['config'], config, allowed=allowed):
    print(f'note: {line}')
  for name, (was, now) in compatibility.differences(saved['environment'], environment()).items():
    print(f'note: {name} was {was}, is now {now}: the result will not be the same bit for bit')


class MetricsTable:
  """`metrics.csv`: one row per validation, up to the step that a run resumes from."""

  def __init__(self, workdir: Path, *, step: int):
    self._path = workdir / METRICS
    self._rows: list[dict[str, Any]] = []
    if self._path.exists():
      with self._path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
      self._rows = [
        row for row in rows if (row.get('step') or '').isdigit() and int(row['step']) <= step
      ]

  @property
  def rows(self) -> list[dict[str, Any]]:
    """The rows, in the order of the file."""
    return self._rows

  def has(self, step: int) -> bool:
    """Whether a step was validated."""
    return any(int(row['step']) == step for row in self._rows)

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


def last_row(workdir: Path, *, step: int | None) -> dict[str, float]:
  """Read the validation of a step; empty if there is none."""
  table = MetricsTable(workdir, step=sys.maxsize)
  row = next((row for row in table.rows if int(row['step']) == step), {})
  return {name: float(value) for name, value in row.items() if value}
