"""Comparison with PyTorch: python -m benchmarks --network edsr --mode train --pairs 5.

`train` measures a training step, `infer` the upscaling of 256x256 to 1024x1024, `load` the crops
from a folder of films (`--data`), `epoch` loading and training on such a folder, in seconds per
image, and `start` a fresh process up to its first step, with its peak memory. Ratios are this
implementation's time over PyTorch's: below 1, this implementation is faster. Both sides have the
same weights; if their results differ, the comparison ends with an error. For `train` and `infer`,
each side runs in its own process.
"""

import json as text
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.cases import CASES
from benchmarks.pairs import Ratios, alternate, largest_difference
from benchmarks.processes import Process
from jaxsr.errors import UserError

Mode = Literal['train', 'infer', 'load', 'epoch', 'start']
Keep = Literal['jaxsr', 'both', 'none']


def main(
  network: tuple[str, ...] = ('edsr',),
  mode: Mode = 'train',
  pairs: int = 5,
  json: Path | None = None,
  batch: int = 0,
  precision: Literal['float32', 'bfloat16'] = 'float32',
  eager: bool = False,
  data: Path | None = None,
  keep: Keep = 'jaxsr',
  side: Literal['', 'jaxsr', 'pytorch'] = '',
) -> None:
  """Measure networks (`all`: each) in a mode, print a table, and write it to a JSON file.

  PyTorch runs compiled, or uncompiled with `--eager`. `--batch 0` is each network's own batch for
  training, and 1 for inference. `--keep` selects the sides that keep freed memory in `train` and
  `infer`: by default only this implementation, as it does for users. `--side` runs one side alone,
  as `start` does.
  """
  names = tuple(CASES) if network == ('all',) else network
  unknown = set(names) - set(CASES)
  if unknown:
    sys.exit(f'--network {" ".join(sorted(unknown))}: choose one of: {", ".join(CASES)}, all')
  if side:
    return _alone(names[0], side, batch, precision, not eager)
  if mode in ('load', 'epoch') and data is None:
    sys.exit(f'--mode {mode} needs a folder of films: set --data')
  if mode == 'load':
    names = ('',)
  elif mode == 'infer':  # a GAN's generator has its own entry
    names = tuple(name for name in names if not CASES[name].adversarial)
  rows = []
  for name in names:
    if data and mode in ('load', 'epoch'):
      found = _with_films(name, mode, data, pairs, batch, precision, eager)
    else:
      found = _measure(name, mode, pairs, batch, precision, eager, keep)
    rows.append({'network': name, 'mode': mode} | found)
    print(_line(rows[-1]), flush=True)
  if json:
    settings = {'precision': precision, 'eager': eager, 'keep': keep}
    result = {'machine': describe_machine(), **settings, 'results': rows}
    json.parent.mkdir(parents=True, exist_ok=True)
    json.write_text(text.dumps(result, indent=2) + '\n')


def _measure(
  name: str, mode: Mode, count: int, batch: int, precision: str, eager: bool, keep: Keep
) -> dict[str, Any]:
  if mode == 'start':
    return _start(name, count, batch, precision, eager)
  from benchmarks import (
    jaxsr_side,
    pytorch_side,
    roofline,
  )  # a process of one side has only that side

  build = getattr(jaxsr_side, mode), getattr(pytorch_side, mode)
  given = name, batch, precision
  with (
    Process(keep != 'none', build[0], *given) as own,
    Process(keep == 'both', build[1], *given, own.variables, compiled=not eager) as other,
  ):
    difference = largest_difference(name, own.outcome, other.outcome, precision)
    row = alternate(own.run, other.run, count, twice=True).row()
    roof = own.call(roofline.measure, precision)
  return row | {
    'difference': difference,
    'compile_seconds': own.compiled_in,
    'compile_seconds_pytorch': other.compiled_in,
    'program_mib': own.bytes / 2**20,
    'matrix_gflops': roof.flops / 1e9,
    'memory_gbytes': roof.bytes / 1e9,
    **roofline.place(roof, own.work, row['seconds']),
    'utilization_pytorch': roofline.place(roof, own.work, row['seconds_pytorch'])['utilization'],
  }


def _start(name: str, count: int, batch: int, precision: str, eager: bool) -> dict[str, Any]:
  """Time fresh processes from start to the end of the first step, without a compilation cache."""
  found: dict[str, list[dict[str, float]]] = {'jaxsr': [], 'pytorch': []}
  for _ in range(count):
    for side, results in found.items():
      arguments = ['--network', name, '--batch', str(batch), '--precision', precision]
      arguments += ['--side', side, *(['--eager'] if eager else [])]
      command = [sys.executable, '-m', 'benchmarks', *arguments]
      begun = time.perf_counter()
      done = subprocess.run(command, check=True, capture_output=True, text=True)
      seconds = time.perf_counter() - begun
      results.append(text.loads(done.stdout.splitlines()[-1]) | {'seconds': seconds})
  seconds = [[one['seconds'] for one in found[side]] for side in ('jaxsr', 'pytorch')]
  peaks = {f'peak_mib_{side}': max(one['peak_mib'] for one in found[side]) for side in found}
  return Ratios(*seconds).row() | peaks


def _alone(name: str, side: str, batch: int, precision: str, compiled: bool) -> None:
  if side == 'jaxsr':
    from benchmarks import jaxsr_side

    jaxsr_side.train(name, batch, precision)
  else:
    from benchmarks import pytorch_side

    pytorch_side.train(name, batch, precision, None, compiled=compiled)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  print(text.dumps({'peak_mib': peak}))


def _line(row: dict[str, Any]) -> str:
  spread = f'{row["ratio_median"]:.2f} ({row["ratio_min"]:.2f} to {row["ratio_max"]:.2f})'
  times = f'{row["seconds"]:.3g} s, PyTorch {row["seconds_pytorch"]:.3g} s'
  line = f'{row["network"]:12s} {row["mode"]:6s} ratio {spread}; {times}'
  if 'utilization' not in row:
    return line
  rate = f'{row["utilization"]:.0%} of the matrix rate (PyTorch {row["utilization_pytorch"]:.0%})'
  return f'{line}; {rate}, {row["of_roof"]:.0%} of the roof ({row["bound"]})'


def _with_films(
  name: str, mode: Mode, data: Path, count: int, batch: int, precision: str, eager: bool
) -> dict[str, Any]:
  from benchmarks import epoch, loader

  try:
    if mode == 'load':
      return loader.beside_torch(data, count).row()
    return epoch.beside_torch(name, data, count, batch, precision, compiled=not eager).row()
  except UserError as error:
    sys.exit(f'error: {error}')


def describe_machine() -> dict[str, Any]:
  import jax

  return {
    'device': jax.devices()[0].device_kind,
    'processor': platform.processor() or platform.machine(),
    'cores': len(os.sched_getaffinity(0)),
    'python': platform.python_version(),
    **{name: version(name) for name in ('jax', 'flax', 'torch')},
  }


if __name__ == '__main__':
  tyro.cli(main)
