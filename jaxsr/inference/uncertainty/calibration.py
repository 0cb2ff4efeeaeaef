"""Calibrate intervals and doubt on films of patients, and measure both on others.

Half of the patients determine the ten numbers of the scale, the other half the factor that the
scale is multiplied by. The threshold of doubt needs no fit, and so uses all patients.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsr.errors import UserError
from jaxsr.inference.uncertainty import conformal, maps, scale
from jaxsr.inference.uncertainty.samples import Sample

BAD = 4.0  # gray levels: a tile with a larger root mean square error is bad
MISSED = 0.1  # the share of a film's bad tiles that may be missed
_SMALLEST, _LARGEST = 1e-3, 1e3  # factors and thresholds
_FIT_PIXELS = 1 << 20  # all of them are not needed, and take gigabytes for thousands of films


class Interval(NamedTuple):
  """How half widths follow from maps: exp(maps @ numbers) * factor, in 8-bit gray levels."""

  coverage: float
  rule: str
  numbers: Float[np.ndarray, '10']
  factor: float
  fitted_on: int  # patients
  chosen_on: int  # patients


class Doubt(NamedTuple):
  """Which tiles are doubtful: those with a score of at least the threshold, in gray levels."""

  bad: float
  missed: float
  rule: str
  threshold: float
  chosen_on: int  # patients


def fit_interval(
  samples: Sequence[Sample], *, coverage: float = 0.9, rule: str = 'mean'
) -> Interval:
  """Fit the scale to one half of the patients, and choose the factor on the other half.

  Args:
    samples: the films.
    coverage: the share of the pixels that intervals should contain, in (0, 1).
    rule: one of `conformal.RULES`.

  Raises:
    UserError: there are too few patients for the rule.
  """
  by_patient = _by_patient(samples)
  patients = sorted(by_patient)
  if len(patients) < 2:
    raise UserError('images of one patient only: intervals need images of two patients or more')
  fit, choose = patients[1::2], patients[::2]
  conformal.check(rule, len(choose), 1 - coverage)
  numbers = _fit([s for p in fit for s in by_patient[p]], coverage)
  chosen = [[(s.errors, scale.apply(numbers, s.values)) for s in by_patient[p]] for p in choose]

  def accepted(factor: float) -> bool:
    losses = [np.mean([np.mean(e > factor * x) for e, x in films]) for films in chosen]
    return conformal.accepts(rule, np.array(losses), 1 - coverage)

  factor = conformal.smallest(accepted, _SMALLEST, _LARGEST)
  return Interval(coverage, rule, numbers, factor, len(fit), len(choose))


def _fit(samples: Sequence[Sample], coverage: float) -> Float[np.ndarray, '10']:
  step = -(-sum(len(s.errors) for s in samples) // _FIT_PIXELS)
  values = np.concatenate([s.values[::step] for s in samples])
  errors = np.concatenate([s.errors[::step] for s in samples])
  # Errors of 8-bit images are integers; the loss would have plateaus between them.
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, len(errors))
  return scale.fit(values, np.abs(errors + noise), coverage=coverage)


def fit_doubt(samples: Sequence[Sample], *, bad: float = BAD, missed: float = MISSED) -> Doubt:
  """Choose the threshold above which tiles are doubtful.

  The share of the bad tiles that is missed is controlled by the strictest rule that so few patients
  can pass: `rcps`, `crc` or `mean`.

  Args:
    samples: the films.
    bad: the root mean square error above which a tile is bad, in gray levels.
    missed: the share of a film's bad tiles that may be missed.
  """
  by_patient = _by_patient(samples)
  count = len(by_patient)
  rule = next(r for r in ('rcps', 'crc', 'mean') if count >= conformal.fewest(r, missed))

  def accepted(threshold: float) -> bool:
    losses = [
      np.mean([_missed(s, bad, threshold) for s in by_patient[p]]) for p in sorted(by_patient)
    ]
    return conformal.accepts(rule, np.array(losses), missed)

  threshold = conformal.largest(accepted, _SMALLEST, _LARGEST)
  return Doubt(bad, missed, rule, threshold, count)


def _missed(sample: Sample, bad: float, threshold: float) -> float:
  """Returns the share of a film's bad tiles that are not doubtful; 0 if no tile is bad."""
  wrong = sample.tile_errors > bad
  return float(np.mean(sample.tile_scores[wrong] < threshold)) if wrong.any() else 0.0


def measure(samples: Sequence[Sample], interval: Interval, doubt: Doubt) -> dict[str, Any]:
  """Measure intervals and doubt on films; patients count equally.

  Returns:
    Counts of films and patients, the coverage (`coverage`, with its standard error over patients,
    standard deviation over films and worst patient; by region and stratum), half widths
    (`half_width` and that of the constant with the same coverage, in gray levels), Spearman's
    correlation between width and error, and of tiles the shares that are `bad`, `flagged`,
    and, of the bad ones, `missed`.
  """
  rows = [_row(sample, interval, doubt) for sample in samples]
  by_patient: dict[str, list[dict[str, Any]]] = defaultdict(list)
  for sample, row in zip(samples, rows, strict=True):
    by_patient[sample.patient].append(row)
  mean = lambda name: [_mean(r[name] for r in found) for found in by_patient.values()]  # noqa: E731
  covered = np.array(mean('coverage'))
  spread = float(np.std([row['coverage'] for row in rows], ddof=1)) if len(rows) > 1 else 0.0
  error = float(covered.std(ddof=1) / np.sqrt(len(covered))) if len(covered) > 1 else 0.0
  regions = {name for row in rows for name in row['regions']}
  return {
    'films': len(rows),
    'patients': len(by_patient),
    'coverage': {
      'mean': float(covered.mean()),
      'standard_error': error,
      'sd_over_films': spread,
      'worst_patient': float(covered.min()),
    },
    'regions': {
      name: _mean(row['regions'][name] for row in rows if name in row['regions'])
      for name in sorted(regions)
    },
    'strata': _strata(samples, rows),
    'half_width': _mean(mean('half_width')),
    'constant_half_width': _constant(samples, 1 - float(covered.mean())),
    'spearman': _mean(mean('spearman')),
    'tiles': {name: _mean(mean(name)) for name in ('bad', 'flagged', 'missed')},
  }


def _row(sample: Sample, interval: Interval, doubt: Doubt) -> dict[str, Any]:
  from scipy import stats  # here, since only calibrating needs it and it takes long to import

  half = interval.factor * scale.apply(interval.numbers, sample.values)
  inside = sample.errors <= half
  varies = np.ptp(half) > 0 and np.ptp(sample.errors) > 0
  correlation: Any = stats.spearmanr(half, sample.errors)[0] if varies else 0.0
  return {
    'coverage': float(inside.mean()),
    'regions': {k: float(inside[m].mean()) for k, m in sample.regions().items() if m.any()},
    'half_width': float(half.mean()),
    'spearman': float(correlation),
    'bad': float(np.mean(sample.tile_errors > doubt.bad)),
    'flagged': float(np.mean(sample.tile_scores >= doubt.threshold)),
    'missed': _missed(sample, doubt.bad, doubt.threshold),
  }


def _strata(samples: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns the films and the coverage of each stratum, by kind."""
  groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
  for sample, row in zip(samples, rows, strict=True):
    for kind, value in sample.strata:
      groups[kind][value].append(row['coverage'])
  return {
    kind: {value: {'films': len(x), 'coverage': _mean(x)} for value, x in sorted(values.items())}
    for kind, values in sorted(groups.items())
  }


def _constant(samples: Sequence[Sample], miss: float) -> float:
  """Returns the constant half width that misses the same share of pixels."""
  by_patient = _by_patient(samples)
  noise = np.random.default_rng(0)
  # As if images were not rounded: between two integers, all constants miss the same pixels.
  errors = [
    [np.abs(s.errors + noise.uniform(-0.5, 0.5, len(s.errors))) for s in films]
    for films in by_patient.values()
  ]
  missed = lambda x: _mean(_mean(np.mean(e > x) for e in films) for films in errors)  # noqa: E731
  return conformal.smallest(lambda x: missed(x) <= miss, _SMALLEST, _LARGEST)


def _by_patient(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
  ordered = sorted(samples, key=lambda s: s.patient)
  return {k: list(v) for k, v in itertools.groupby(ordered, key=lambda s: s.patient)}


def _mean(values: Any) -> float:
  return float(np.mean(list(values)))


def to_json(interval: Interval, doubt: Doubt) -> dict[str, Any]:
  """Returns intervals and doubt as the sections of a file."""
  numbers = dict(zip(maps.NAMES, (float(x) for x in interval.numbers), strict=True))
  return {
    'interval': interval._asdict() | {'numbers': numbers},
    'doubt': doubt._asdict(),
  }


def from_json(found: dict[str, Any]) -> tuple[Interval, Doubt]:
  """Restore intervals and doubt; raises KeyError, TypeError or ValueError if parts are missing."""
  section: dict[str, Any] = dict(found['interval'])
  numbers = np.array([float(section['numbers'][name]) for name in maps.NAMES])
  section['numbers'] = numbers
  interval = Interval(**section)
  doubt = Doubt(**found['doubt'])
  if not (np.isfinite(numbers).all() and interval.factor > 0 and doubt.threshold > 0):
    raise ValueError('a number is not finite or not positive')
  return interval, doubt
