"""Printed output that may be lost while a run goes on."""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_writing: dict[int, int] = {}  # the threads that are writing, and their descriptors


class _BlockedError(OSError):
  """A write was given up, since its reader does not read."""


def give_up() -> None:
  """Raise out of a write that the main thread waits in; for its handlers of signals.

  The reader of a pipe may be suspended, as may a terminal (Ctrl-S). A write that does not wait ends
  by itself.
  """
  number = _writing.get(threading.get_ident())
  if number is not None and not select.select([], [number], [], 0)[1]:
    raise _BlockedError


@contextmanager
def lasting() -> Iterator[None]:
  """Ignore, inside the block, that stdout or stderr can no longer be written.

  The reader of a pipe may end, a terminal may close, and the disk under a log file may be full. A
  run must not end because of that.
  """
  streams = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = (stream and _Lasting(stream) for stream in streams)
  try:
    yield
  finally:
    for stream in (sys.stdout, sys.stderr):
      if isinstance(stream, _Lasting):
        stream.flush()
    sys.stdout, sys.stderr = streams


class _Lasting:
  """A text stream without errors."""

  def __init__(self, stream: Any):
    self._stream, self._blocked = stream, False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Write a text, or drop it."""
    self._attempt(lambda: self._stream.write(text))
    return len(text)

  def flush(self) -> None:
    """Flush the stream, or drop what it holds."""
    self._attempt(self._stream.flush)

  def _attempt(self, action: Callable[[], object]) -> None:
    """Write or flush, unless that was given up before."""
    if self._blocked:
      return
    try:
      with suppress(OSError):  # a stream without a descriptor does not wait
        _writing[threading.get_ident()] = self._stream.fileno()
      try:
        action()
      finally:
        _writing.pop(threading.get_ident(), None)
    except OSError as error:
      self._blocked = isinstance(error, _BlockedError)
      self._discard()

  def _discard(self) -> None:
    """Drop the text that the stream still holds; Python would write it again at exit, and fail."""
    with suppress(OSError, ValueError):
      number = self._stream.fileno()
      kept, null = os.dup(number), os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, number)
      self._stream.flush()
      os.dup2(kept, number)
      os.close(kept)
      os.close(null)
