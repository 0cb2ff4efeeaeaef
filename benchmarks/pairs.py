"""Alternating timing of two sides, so that a drift of the machine's speed affects both."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Ratios(NamedTuple):
  """The seconds of both sides, one entry per pair."""

  ours: list[float]
  theirs: list[float]

  def row(self) -> dict[str, float]:
    """Returns the medians of both sides, and this implementation's time over PyTorch's."""
    ratios = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
    return {
      'ratio_median': statistics.median(ratios),
      'ratio_min': min(ratios),
      'ratio_max': max(ratios),
      'seconds': statistics.median(self.ours),
      'seconds_pytorch': statistics.median(self.theirs),
    }


def alternate(
  ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, *, twice: bool = False
) -> Ratios:
  """Time both sides in turn after a warm-up run of each; the order alternates from pair to pair.

  With `twice`, each turn begins with a run that is not counted, so that the state of the caches
  after the other side's turn does not matter.
  """
  ours()
  theirs()
  found = Ratios([], [])
  for i in range(pairs):
    both = [(ours, found.ours), (theirs, found.theirs)]
    for run, seconds in both if i % 2 == 0 else reversed(both):
      if twice:
        run()
      begun = time.perf_counter()
      run()
      seconds.append(time.perf_counter() - begun)
  return found


def largest_difference(
  name: str, ours: dict[str, Any], theirs: dict[str, Any], precision: str
) -> float:
  """Returns the largest difference between both sides' results, relative to the largest value.

  Raises:
    SystemExit: If the results of both sides do not agree.
  """
  tolerance = 1e-3 if precision == 'float32' else 0.1
  worst = 0.0
  for key, value in ours.items():
    a, b = np.asarray(value, np.float64), np.asarray(theirs[key], np.float64)
    worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
  if worst > tolerance:
    sys.exit(f'{name}: the sides differ by {worst:.2g} of the largest value: they do not compare')
  return worst
