"""Stop a run cleanly on a signal: Ctrl-C, SIGTERM, or SIGUSR1 from a scheduler."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

EXIT = 75  # sysexits' EX_TEMPFAIL: run the same command again


class Preemption:
  """Remembers the signal that asks the run to stop."""

  def __init__(self) -> None:
    self.signal: signal.Signals | None = None

  def __call__(self, number: int, frame: object) -> None:
    """Remember the first signal; exit at once on a second Ctrl-C.

    Other signals may come twice, as some schedulers send them.
    """
    del frame
    if number == signal.SIGINT and self.signal == signal.SIGINT:
      os._exit(128 + number)
    self.signal = self.signal or signal.Signals(number)

  def due(self, *, together: bool) -> bool:
    """Whether to stop now; several hosts stop together, at steps at which all of them ask."""
    if jax.process_count() == 1:
      return self.signal is not None
    if not together:
      return False
    asked = multihost_utils.process_allgather(np.int32(self.signal is not None))
    return bool(np.max(asked))


@contextmanager
def handled() -> Iterator[Preemption]:
  """Handle signals inside the block, and restore the previous handlers after it."""
  preemption = Preemption()
  numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
  old = {number: signal.signal(number, preemption) for number in numbers}
  try:
    yield preemption
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)
