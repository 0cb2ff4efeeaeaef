"""Stop a run cleanly on a signal: Ctrl-C, SIGTERM, SIGHUP, or those of schedulers and limits."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsr import runtime
from jaxsr.errors import TRY_AGAIN as EXIT
from jaxsr.training import output

__all__ = ['EXIT', 'Preemption', 'handled']

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SIGNALS += (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)  # schedulers; `ulimit -St`
_ECHO = 0.5  # seconds; a closing terminal and its shell both send SIGHUP, as do some launchers


class Preemption:
  """Remembers the signal that asks the run to stop."""

  def __init__(self) -> None:
    self.signal: signal.Signals | None = None
    self._since = 0.0

  def note(self, number: int) -> None:
    """Remember the first signal; exit at once on a second one of any kind.

    The same signal again within half a second is one request, except Ctrl-C; SIGTERM and SIGHUP,
    which a closing session sends together, count as the same. SIGXCPU comes every second once a
    limit is reached, and is one request.
    """
    if self.signal is None:
      self.signal, self._since = signal.Signals(number), time.monotonic()
      return
    soon = time.monotonic() - self._since < _ECHO or number == signal.SIGXCPU
    same = number == self.signal or {number, self.signal} == {signal.SIGTERM, signal.SIGHUP}
    if not (same and number != signal.SIGINT and soon):
      os._exit(128 + number)

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
  """Handle signals inside the block, and restore the previous handlers after it.

  A thread reads the signals, so that a second one ends the process even while the main thread waits
  inside a library, where Python runs no handlers. SIGHUP stays ignored under `nohup`.
  """
  preemption = Preemption()
  numbers = [
    n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.Handlers.SIG_IGN
  ]
  with runtime.reading_signals(numbers, preemption.note, _wake):
    yield preemption


def _wake(number: int, frame: object) -> None:
  """Interrupt a blocking write; as the signal has a handler, Python writes it to the pipe, too."""
  output.give_up()
