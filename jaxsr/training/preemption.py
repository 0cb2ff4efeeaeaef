"""Leave in good order when told to: Ctrl-C, SIGTERM, and SIGUSR1 as schedulers send it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

EXIT = 75  # sysexits' EX_TEMPFAIL: run the same command again


class Preemption:
  """Tells whether the run was asked to stop."""

  def __init__(self) -> None:
    self.signal: signal.Signals | None = None

  def __call__(self, number: int, frame: object) -> None:
    """Note the first signal; leave at once at a second Ctrl-C.

    Schedulers send their signals twice as a matter of course, and mean them once.
    """
    del frame
    if number == signal.SIGINT and self.signal == signal.SIGINT:
      os._exit(128 + number)
    self.signal = self.signal or signal.Signals(number)

  def due(self, *, together: bool) -> bool:
    """Tell whether to stop now; hosts may only stop together, at steps where all of them ask."""
    if jax.process_count() == 1:
      return self.signal is not None
    if not together:
      return False
    asked = multihost_utils.process_allgather(np.int32(self.signal is not None))
    return bool(np.max(asked))


@contextmanager
def handled() -> Iterator[Preemption]:
  """Handle the signals inside the block."""
  preemption = Preemption()
  numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
  old = {number: signal.signal(number, preemption) for number in numbers}
  try:
    yield preemption
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)
