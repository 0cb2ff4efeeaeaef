"""Training steps and upscaling compared with PyTorch on the same device.

All sides are built first, each in its own process. XLA times its candidates during compilation, so
JAX programs are compiled one after the other. Pairs are timed after that, with nothing else
running.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from typing import Any, Literal, NamedTuple

from benchmarks import jaxsr_side, roofline
from benchmarks.pairs import alternate, largest_difference
from benchmarks.processes import Process

Mode = Literal['train', 'infer']


class Task(NamedTuple):
  """A network of `benchmarks.cases` in a mode, a run being `repeat` steps or images."""

  mode: Mode
  name: str
  repeat: int


class Sides(NamedTuple):
  """Both sides of a task, built; `pytorch` is None without PyTorch."""

  jaxsr: Process
  pytorch: Process | None
  difference: float | None


def measure(
  tasks: list[Task], *, precision: str, seconds: float, pairs: int = 5, side: int = 256
) -> Iterator[dict[str, Any]]:
  """Yields one row per task: seconds per step, the ratio to PyTorch's, shares of the matrix rate.

  Args:
    tasks: the tasks to measure, the most important first.
    precision: 'float32' or 'bfloat16'.
    seconds: the time for building; tasks that are not built by then are reported as such.
    pairs: timings per side.
    side: the side of the input image, in pixels.
  """
  deadline = time.monotonic() + seconds
  with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(tasks)) as pool:
    os.environ[jaxsr_side.LOCK] = stack.enter_context(tempfile.NamedTemporaryFile()).name
    built = {t: pool.submit(_build, t, precision, side, stack) for t in tasks}
    ready: dict[Task, Sides] = {}
    failed: dict[Task, str] = {}
    for task, future in built.items():
      _collect(task, future, deadline, ready, failed)
    roof = None
    for task in tasks:
      row: dict[str, Any] = {'mode': task.mode, 'network': task.name.split('_', 1)[1]}
      if task in failed:
        yield {**row, 'failed': failed[task]}
        continue
      sides = ready[task]
      roof = roof or sides.jaxsr.call(roofline.measure, precision)
      yield row | _time(task, sides, roof, pairs)


def _collect(
  task: Task, future: Future, deadline: float, ready: dict[Task, Sides], failed: dict[Task, str]
) -> None:
  try:
    ready[task] = future.result(timeout=max(0.1, deadline - time.monotonic()))
  except LateError:
    failed[task] = 'was not compiled in time'
  except (Exception, SystemExit) as error:
    failed[task] = f'{type(error).__name__}: {str(error)[:300]}'


def _build(task: Task, precision: str, side: int, stack: contextlib.ExitStack) -> Sides:
  shape = {} if task.mode == 'train' else {'side': side}
  options = {'repeat': task.repeat, **shape}
  own = Process(True, getattr(jaxsr_side, task.mode), task.name, 0, precision, **options)
  stack.callback(own.stop)
  try:
    from benchmarks import pytorch_side  # the extra 'benchmarks'
  except ImportError:
    return Sides(own, None, None)
  build = getattr(pytorch_side, task.mode)
  given = (task.name, 0, precision, own.variables)
  other = Process(False, build, *given, compiled=True, **options)
  stack.callback(other.stop)
  return Sides(own, other, largest_difference(task.name, own.outcome, other.outcome, precision))


def _time(task: Task, sides: Sides, roof: roofline.Roof, pairs: int) -> dict[str, Any]:
  """Times both sides in turn; without PyTorch, only this implementation."""
  own, other = sides.jaxsr, sides.pytorch
  found = alternate(own.run, (other or own).run, pairs)
  row = found.row()
  names = ('seconds', 'seconds_pytorch')
  row |= {name: row[name] / task.repeat for name in names}
  place = roofline.place(roof, own.work, row['seconds'])
  result = row | place | {'compile_seconds': own.compiled_in, 'matrix_tflops': roof.flops / 1e12}
  if other is None:
    return {key: x for key, x in result.items() if not key.startswith(('ratio', 'seconds_py'))}
  pytorch = roofline.place(roof, own.work, row['seconds_pytorch'])
  return result | {
    'speedup': 1 / row['ratio_median'],
    'utilization_pytorch': pytorch['utilization'],
    'compile_seconds_pytorch': other.compiled_in,
    'difference': sides.difference,
  }


def describe(row: dict[str, Any]) -> str:
  """Returns one line about a row of `measure`."""
  head = f'{row["mode"]:5s} {row["network"]:12s}'
  if 'failed' in row:
    return f'{head} {row["failed"]}'
  text = f'{head} {1e3 * row["seconds"]:.2f} ms, {row["utilization"]:.0%} of the matrix rate'
  if 'speedup' in row:
    text += f'; PyTorch {1e3 * row["seconds_pytorch"]:.2f} ms, {row["speedup"]:.2f} times as fast'
    text += f' ({1 / row["ratio_max"]:.2f} to {1 / row["ratio_min"]:.2f})'
  return text
