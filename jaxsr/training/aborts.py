"""End with one line if JAX aborts this process because host 0, its coordinator, has ended.

JAX then logs pages and calls `abort` in a thread of its own; it has no hook for Python.
"""

import ctypes
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FATAL = b'JAX distributed service detected fatal errors'
_SERVICE = r'[WEF]\d{4} [\d:.]+ +\d+ (coordination_service|preemption_sync_manager|client\.h)'
_MORE = r'Additional GRPC|:UNKNOWN:|\*\*\* Check failure|    @ |\[Gloo\]|$'
_DROPPED = re.compile(f'{_SERVICE}|{_MORE}'.encode())
_PATIENCE = 2.0  # seconds for the message to arrive


@contextmanager
def handled(leave: Callable[[], None]) -> Iterator[None]:
  """Inside the block, call `leave` instead of aborting if the coordinator has ended.

  The output of libraries and worker processes to stderr passes through a pipe, which drops the
  messages of JAX's coordination. Other aborts are not changed.
  """
  lost, stream = threading.Event(), sys.stderr
  original, (reader, writer) = os.dup(2), os.pipe()
  sys.stderr = os.fdopen(os.dup(2), 'w', 1, encoding='utf-8', errors='backslashreplace')
  os.dup2(writer, 2)
  os.close(writer)
  thread = threading.Thread(target=_forward, args=(reader, original, lost), daemon=True)
  thread.start()

  @ctypes.CFUNCTYPE(None, ctypes.c_int)
  def on_abort(number: int) -> None:
    del number
    if lost.wait(_PATIENCE):
      leave()

  libc = ctypes.CDLL(None)
  libc.signal.restype = ctypes.c_void_p
  libc.signal(signal.SIGABRT, on_abort)
  try:
    yield
  finally:
    libc.signal(signal.SIGABRT, None)  # the default
    sys.stderr.close()
    sys.stderr = stream
    os.dup2(original, 2)  # ends the thread, unless a worker still writes
    thread.join(_PATIENCE)


def _forward(reader: int, target: int, lost: threading.Event) -> None:
  """Copy lines to stderr without those of JAX's coordination; note if one says that it is lost."""
  with open(reader, 'rb') as lines:
    for line in lines:
      if _FATAL in line:
        lost.set()
      if not _DROPPED.match(line):
        os.write(target, line)
