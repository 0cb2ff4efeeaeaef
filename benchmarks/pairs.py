"""Two sides timed in turn, so that a machine whose speed drifts drifts for both."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Ratios(NamedTuple):
  """The seconds of both sides, pair by pair."""

  ours: list[float]
  theirs: list[float]

  def row(self) -> dict[str, float]:
    """Describe them, and our time over theirs."""
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
  """Run both once for nothing, then in turn; who goes first changes from pair to pair.

  With `twice` each turn begins with a run that does not count: what counts then is the speed of one
  run after another, and not what a side finds after the other's turn.
  """
  ours(), theirs()
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
    SystemExit: it is so large that the sides do not compute the same.
  """
  tolerance = 1e-3 if precision == 'float32' else 0.1
  worst = 0.0
  for key, value in ours.items():
    a, b = np.asarray(value, np.float64), np.asarray(theirs[key], np.float64)
    worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
  if worst > tolerance:
    sys.exit(f'{name}: the sides differ by {worst:.2g} of the largest value: they do not compare')
  return worst
