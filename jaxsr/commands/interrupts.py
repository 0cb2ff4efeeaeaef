"""Signals to a command: it ends soon, without a traceback, whatever its threads do."""

import _thread
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from jaxsr import runtime
from jaxsr.errors import INTERRUPTED, TRY_AGAIN, warn

_SECONDS = 2.0  # that an interrupted command may take to remove its unfinished files
_SOON = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted = False


def handle() -> None:
  """Make Ctrl-C end this process, even if a library drops the exception.

  While a module is imported, it ends at once, as nothing was written yet and compiled modules turn
  the exception into others. Else KeyboardInterrupt is raised; a second Ctrl-C, or two seconds, end
  the process. If Ctrl-C is ignored, as under `nohup` in the background, that stays.
  """
  if signal.getsignal(signal.SIGINT) != signal.Handlers.SIG_IGN:
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _raise_again


def end_at_once() -> None:
  """Make Ctrl-C end this process at once from now on, since its work is done."""
  global _interrupted
  _interrupted = True


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
  global _interrupted
  if _interrupted or _is_importing(frame):
    os._exit(INTERRUPTED)
  _interrupted = True
  with contextlib.suppress(RuntimeError):  # no thread can be started
    _thread.start_new_thread(_end_after, (_SECONDS,))  # `threading` has locks, which may be held
  raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
  """Whether a frame was called, directly or not, by an import."""
  while frame is not None:
    if frame.f_code.co_filename.startswith('<frozen importlib'):
      return True
    frame = frame.f_back
  return False


def _end_after(seconds: float) -> None:
  time.sleep(seconds)
  os._exit(INTERRUPTED)


def _raise_again(unraisable: Any) -> None:
  """Interrupt again if the exception was dropped, as in a callback of the garbage collector."""
  global _interrupted
  if unraisable.exc_type is not KeyboardInterrupt:
    sys.__unraisablehook__(unraisable)
    return
  _interrupted = False
  with contextlib.suppress(RuntimeError):
    _thread.start_new_thread(_send_soon, ())


def _send_soon() -> None:
  time.sleep(_SOON)
  os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def ending_workers() -> Iterator[None]:
  """End the process and all that it has started at the first signal, inside the block.

  A thread receives the signals, so that it does not matter what the others wait for.
  """
  numbers = [n for n in _SIGNALS if signal.getsignal(n) != signal.Handlers.SIG_IGN]
  with runtime.reading_signals(numbers, _end, _ignore):
    yield


def _ignore(number: int, frame: FrameType | None) -> None:
  """Do nothing; as the signal has a handler, Python writes it to the pipe."""


def _end(number: signal.Signals) -> None:
  """End this process and those that it has started."""
  warn(f'stopped by {number.name}; run the same command to continue')
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # threads would report the ends of the others
  for _ in range(10):  # others may be started meanwhile
    for each in (found := _descendants()):
      with contextlib.suppress(OSError):
        os.kill(each, signal.SIGKILL)
    if not found:
      break
  os._exit(TRY_AGAIN)


def _descendants() -> list[int]:
  """Returns the running processes that this one has started, directly or not (Linux only)."""
  parents: dict[int, int] = {}
  for path in Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError, ValueError):
      state, parent, *_ = path.read_text(errors='replace').rpartition(')')[2].split()
      if state != 'Z':
        parents[int(path.parent.name)] = int(parent)
  found = [os.getpid()]
  for each in found:
    found += [child for child, parent in parents.items() if parent == each]
  return found[1:]
