"""Training with and without the model of acquisition: whole steps, in turn.

python -m benchmarks.acquisition --data DIR --features 64 32

The runs are those of `--config=edsr_robust`, and the same with
`config.data.degradation.kind=bicubic`. A turn reads crops of the folder's films and takes steps,
as in a run. Seconds need an otherwise idle machine; the CPU time, of all threads, does less.
"""

import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from jaxsr import sharding
from jaxsr.data import pipeline, sources
from jaxsr.evaluation import figures
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.setup import assemble

KINDS = ('acquisition', 'bicubic')
EXPERIMENT = Path(__file__).parents[1] / 'configs' / 'edsr_robust.py'
HEADS = (
  'features',
  'steps/s with',
  'without',
  'throughput with / without (range of pairs)',
  'CPU s per step with',
  'without',
  'without / with (range of pairs)',
)


def main(data: Path, features: tuple[int, ...] = (64, 32), pairs: int = 5, steps: int = 30) -> None:
  """Print a table of EDSR at these numbers of features."""
  rows = []
  for number in features:
    turns = [_prepare(_config(data, number, kind), steps) for kind in KINDS]
    found: tuple[list[Any], list[Any]] = ([], [])
    for i in range(pairs):
      for side in (0, 1) if i % 2 == 0 else (1, 0):
        found[side].append(turns[side]())
    rows.append([f'{number}', *_row(*(list(zip(*side, strict=True)) for side in found))])
  print(figures.markdown(HEADS, rows))


def _row(with_model: list[Any], without: list[Any]) -> list[str]:
  cells = []
  for times, others, form in zip(with_model, without, ('{:.2f}', '{:.4f}'), strict=True):
    ratios = [other / own for own, other in zip(times, others, strict=True)]
    medians = [statistics.median(x) for x in (times, others)]
    if not cells:
      medians = [1 / x for x in medians]
    cells += [form.format(x) for x in medians]
    cells += [f'{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})']
  return cells


def _config(data: Path, features: int, kind: str) -> Any:
  config = runpy.run_path(str(EXPERIMENT))['get_config']()
  config.model.features = features
  config.data.train = str(data)
  config.data.degradation.kind = kind
  return config


def _prepare(config: Any, count: int) -> Callable[[], tuple[float, float]]:
  """Returns a turn of a run, after its first steps: seconds and CPU seconds per step."""
  mesh = sharding.make_mesh(config.devices)
  experiment = assemble(config, mesh)
  loader = pipeline.make_loader(config, sources.training(config), mesh)
  steps, batches = CompiledSteps(experiment, loader), loader.batches(0)
  state = experiment.init()
  number = 0

  def take() -> None:
    nonlocal state, number
    for _ in range(count):
      state, scalars = steps(number, state, next(batches))
      number += 1
    jax.block_until_ready(scalars)

  def turn() -> tuple[float, float]:
    begun = time.perf_counter(), time.process_time()
    take()
    ended = time.perf_counter(), time.process_time()
    return (ended[0] - begun[0]) / count, (ended[1] - begun[1]) / count

  for _ in range(3):  # compile, and read the films
    take()
  return turn


if __name__ == '__main__':
  tyro.cli(main)
