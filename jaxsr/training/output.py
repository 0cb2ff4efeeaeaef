"""Printed output that may be lost while a run goes on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


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
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Write a text, or drop it."""
    try:
      return self._stream.write(text)
    except OSError:
      self._discard()
    return len(text)

  def flush(self) -> None:
    """Flush the stream, or drop what it holds."""
    try:
      self._stream.flush()
    except OSError:
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
