"""Alternating timing of two sides, so that a drift of the machine's speed affects both."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Ratios(NamedTuple):
  """The seconds of both sides, one entry per pair."""

  jaxsr: list[float]
  other: list[float]

  def row(self) -> dict[str, float]:
    """Returns the medians of both sides, and this implementation's time over PyTorch's."""
    ratios = [a / b for a, b in zip(self.jaxsr, self.other, strict=True)]
    return {
      'ratio_median': statistics.median(ratios),
      'ratio_min': min(ratios),
      'ratio_max': max(ratios),
      'seconds': statistics.median(self.jaxsr),
      'seconds_pytorch': statistics.median(self.other),
    }


def alternate(
  own: Callable[[], Any], other: Callable[[], Any], pairs: int, *, twice: bool = False
) -> Ratios:
  """Time both sides in turn after a warm-up run of each; the order alternates from pair to pair.

  With `twice`, each turn begins with a run that is not counted, so that the state of the caches
  after the other side's turn does not matter.
  """
  own()
  other()
  found = Ratios([], [])
  for i in range(pairs):
    both = [(own, found.jaxsr), (other, found.other)]
    for run, seconds in both if i % 2 == 0 else reversed(both):
      if twice:
        run()
      begun = time.perf_counter()
      run()
      seconds.append(time.perf_counter() - begun)
  return found


def largest_difference(
  name: str, own: dict[str, Any], other: dict[str, Any], precision: str
) -> float:
  """Returns the largest difference between both sides' results, relative to the largest value.

  Raises:
    SystemExit: If the results of both sides do not agree.
  """
  tolerance = 1e-3 if precision == 'float32' else 0.1
  worst = 0.0
  for key, value in own.items():
    a, b = np.asarray(value, np.float64), np.asarray(other[key], np.float64)
    worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
  if worst > tolerance:
    sys.exit(f'{name}: the sides differ by {worst:.2g} of the largest value: they do not compare')
  return worst
