"""The table of a study: one row per trial, with its gain over bicubic and over no teacher."""

import csv
import io
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxsr import analysis
from jaxsr.checkpoint.run_dir import environment
from jaxsr.config import build_network
from jaxsr.files import write_json, write_text
from jaxsr.study import UNTAUGHT, Trial, result

CSV, COSTS = 'study.csv', 'costs.json'
COLUMNS = (
  *('network', 'width', 'depth', 'objective', 'seed', 'steps', 'parameters', 'gmacs', 'cpu_ms'),
  *('psnr', 'ssim', 'psnr_centre', 'gain_bicubic', 'gain_bicubic_centre', 'gain_untaught'),
  *('gap_teacher', 'films_below_bicubic', 'films', 'status'),
)
_REPEATS = 5

TrialRow = dict[str, Any]  # by the names of `COLUMNS`
Costs = dict[str, Any]


def measure_costs(trials: Sequence[Trial], workdir: Path) -> Costs:
  """Count and time each size once; earlier measurements are kept, so that tables stay equal.

  Milliseconds are the median of five for one image of 1024x1024 on the CPU.
  """
  path = workdir / COSTS
  known: Costs = json.loads(path.read_text()) if path.exists() else {}
  for trial in trials:
    if trial.size in known:
      continue
    network = build_network(trial.config)
    found = analysis.measure(network)
    known[trial.size] = {
      'parameters': found.parameters,
      'gmacs': round(found.macs / 1e9, 4),
      'cpu_ms': round(_time(network), 1),
      'cores': environment()['cores'],
    }
    write_json(path, known)
  return known


def _time(network: Any) -> float:
  side = analysis.SIDE // network.scale
  lr = jnp.full((1, side, side, network.channels), 0.5)
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    variables = jax.jit(lambda x: network.init(jax.random.key(0), x, train=False))(lr)
    run = jax.jit(lambda v, x: network.apply(v, x, train=False))
    jax.block_until_ready(run(variables, lr))
    seconds = []
    for _ in range(_REPEATS):
      begun = time.perf_counter()
      jax.block_until_ready(run(variables, lr))
      seconds.append(time.perf_counter() - begun)
  return 1000 * statistics.median(seconds)


def rows(teacher: Trial, trials: Sequence[Trial], workdir: Path, sizes: Costs) -> list[TrialRow]:
  """Returns the rows of bicubic, the teacher and every trial, finished or not."""
  all_trials = [teacher, *trials]
  found = {trial.name: result(workdir, trial) for trial in all_trials}
  summaries = {name: one['summary'] for name, one in found.items() if one}
  if not summaries:
    return []
  any_summary = next(iter(summaries.values()))
  best = summaries.get('teacher', {}).get('psnr')
  table = [_bicubic(any_summary)]
  for trial in all_trials:
    row: TrialRow = dict.fromkeys(COLUMNS) | {
      'network': trial.config.model.name,
      'width': trial.width,
      'depth': trial.depth,
      'objective': trial.objective,
      'seed': trial.seed,
      'steps': trial.config.steps,
      'status': 'done' if trial.name in summaries else 'missing',
    }
    row |= {k: sizes[trial.size][k] for k in ('parameters', 'gmacs', 'cpu_ms')}
    if summary := summaries.get(trial.name):
      row |= _figures(summary)
      untaught = summaries.get(f'{trial.size}_{UNTAUGHT}_s{trial.seed}', {}).get('psnr')
      if trial is not teacher:
        row['gain_untaught'] = _difference(row['psnr'], untaught)
        row['gap_teacher'] = _difference(row['psnr'], best)
    table.append(row)
  return table


def _bicubic(summary: TrialRow) -> TrialRow:
  known: TrialRow = {'network': 'bicubic', 'parameters': 0, 'films': summary['n'], 'status': 'done'}
  figures = {name: round(summary[f'bicubic_{name}'], 4) for name in _DIGITS}
  return (
    dict.fromkeys(COLUMNS) | known | figures | {'gain_bicubic': 0.0, 'gain_bicubic_centre': 0.0}
  )


_DIGITS = ('psnr', 'ssim', 'psnr_centre')


def _figures(summary: TrialRow) -> TrialRow:
  return {name: round(summary[name], 4) for name in _DIGITS} | {
    'gain_bicubic': round(summary['psnr_gain'], 4),
    'gain_bicubic_centre': round(summary['psnr_gain_centre'], 4),
    'films_below_bicubic': summary['images_below_bicubic'],
    'films': summary['n'],
  }


def _difference(one: float, other: float | None) -> float | None:
  return None if other is None else round(one - other, 4)


def write(path: Path, table: Sequence[TrialRow]) -> None:
  """Write the table as CSV."""
  text = io.StringIO()
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writeheader()
  writer.writerows(table)
  write_text(path, text.getvalue())


def group(table: Sequence[TrialRow]) -> list[TrialRow]:
  """Average over seeds: means, and the standard deviations (`NAME_sd`)."""
  groups: dict[tuple, list[TrialRow]] = {}
  for row in table:
    key = tuple(row[name] for name in ('network', 'width', 'depth', 'objective'))
    groups.setdefault(key, []).append(row)
  return [_average(members) for members in groups.values()]


def _average(members: list[TrialRow]) -> TrialRow:
  done = [row for row in members if row['status'] == 'done']
  merged = dict(members[0]) | {'seeds': len(done), 'status': 'done' if done else 'missing'}
  for name in ('psnr', 'ssim', 'psnr_centre', *(c for c in COLUMNS if c.startswith('ga'))):
    values = [row[name] for row in done if row[name] is not None]
    merged[name] = statistics.fmean(values) if values else None
    merged[f'{name}_sd'] = statistics.stdev(values) if len(values) > 1 else None
  return merged


def faults(row: TrialRow) -> list[str]:
  """Returns the baselines that a student is worse than, as texts for the table."""
  found = []
  if (row['gain_bicubic'] or 0) < 0:
    found.append('below bicubic')
  if row['objective'] != UNTAUGHT and (row['gain_untaught'] or 0) < 0:
    found.append('below no teacher')
  return found
