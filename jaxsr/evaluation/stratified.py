"""Break figures down by finding, view, sex and age, with confidence intervals.

Intervals are 95 % percentiles of a bootstrap over patients: images of one patient are similar, and
resampling images would make intervals too narrow.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsr.data.nih import constants
from jaxsr.data.records import IndexRow

RESAMPLES, SEED = 2_000, 0
FIGURES = ('psnr', 'ssim')
BANDS = ((0, 17), (18, 39), (40, 59), (60, 79), (80, 200))  # years, inclusive


def summarize(rows: Sequence[dict[str, Any]], known: Mapping[str, IndexRow]) -> dict[str, Any]:
  """Break an evaluation's rows down by the metadata of their images, given by file name.

  Returns `{kind: {value: figures}}` for the kinds `all`, `finding`, `view`, `sex` and `age`. An
  image with several findings counts for each. Images without metadata are left out.
  """
  groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
  for row in rows:
    entry = known.get(Path(row['file']).name)
    if entry is None:
      continue
    for kind, value in strata_of(entry):
      groups[kind][value].append(row | {'patient': entry.patient})
  return {
    kind: {value: figures(groups[kind][value]) for value in sorted(groups[kind])}
    for kind in ('all', 'finding', 'view', 'sex', 'age')
    if kind in groups
  }


def strata_of(entry: IndexRow) -> list[tuple[str, str]]:
  """Returns the kind and value of each stratum that an image belongs to."""
  low, high = next((band for band in BANDS if entry.age <= band[1]), BANDS[-1])
  age = f'{low}-{high}' if high < BANDS[-1][1] else f'{low}+'
  found = entry.findings.split('|') if entry.findings else [constants.NO_FINDING]
  single = [('all', 'all'), ('view', entry.view), ('sex', entry.sex), ('age', age)]
  return single + [('finding', finding) for finding in found]


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Average rows that have a `patient`; `NAME_interval` is a mean's interval `[low, high]`."""
  patients = [row['patient'] for row in rows]
  found: dict[str, Any] = {'n': len(rows), 'patients': len(set(patients))}
  for name in FIGURES:
    pairs = [(row[name], row[f'bicubic_{name}']) for row in rows]
    own, bicubic = np.array(pairs, np.float64).T
    gain = {f'{name}_gain': own - bicubic}
    for label, values in ({name: own, f'bicubic_{name}': bicubic} | gain).items():
      found[label] = float(values.mean())
      found[f'{label}_interval'] = interval(values, patients)
  return found


def interval(values: np.ndarray, patients: Sequence[str]) -> list[float] | None:
  """Bootstrap the mean of values over patients; None if there is only one patient."""
  _, patient_index = np.unique(np.array(patients), return_inverse=True)
  count = int(patient_index.max()) + 1
  if count < 2:
    return None
  sums, sizes = np.bincount(patient_index, values), np.bincount(patient_index)
  rng = np.random.default_rng(SEED)
  drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
  means = (drawn @ sums) / (drawn @ sizes)
  return [float(x) for x in np.percentile(means, (2.5, 97.5))]


def lines(strata: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns strata as the rows of a table."""
  table = []
  for kind, values in strata.items():
    for value, found in values.items():
      row: dict[str, Any] = {'kind': kind, 'value': value}
      for name, x in found.items():
        if name.endswith('_interval'):
          row[f'{name}_low'], row[f'{name}_high'] = x or (None, None)
        else:
          row[name] = x
      table.append(row)
  return table
