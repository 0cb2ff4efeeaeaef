"""Which image each thread of each process is reading, so that a read that never ends is named."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_THREADS = 64  # slots per process
_process = 0  # the number of this process: 0 is the trainer, its workers follow


def set_worker(number: int) -> None:
  """Set the number of this worker process, counted from 0."""
  global _process
  _process = number + 1


def can_be_opened(path: Path) -> bool:
  """Whether a file or folder can be opened now; never waits for a pipe."""
  try:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
  except OSError:
    return False
  return True


class ReadBoard:
  """The numbers of the images that are being read, in memory that worker processes share.

  Without Linux, only the threads of the trainer are seen.
  """

  def __init__(self, workers: int):
    self._shape, self._path = (workers + 1, _THREADS, 2), ''
    self._count, self._local = itertools.count(), threading.local()
    self._slots = np.zeros(self._shape, np.int64)  # number + 1, and since when in nanoseconds
    if workers and hasattr(os, 'memfd_create'):
      self._file = os.memfd_create('jaxsr-reading')
      os.ftruncate(self._file, self._slots.nbytes)
      self._path = f'/proc/{os.getpid()}/fd/{self._file}'
      self._open()

  def __getstate__(self) -> dict:
    return {'_shape': self._shape, '_path': self._path}

  def __setstate__(self, state: dict) -> None:
    vars(self).update(state)
    self._count, self._local = itertools.count(), threading.local()
    self._slots = np.zeros(self._shape, np.int64)
    if self._path:
      with contextlib.suppress(OSError):
        self._open()

  def _open(self) -> None:
    self._slots = np.memmap(self._path, np.int64, 'r+', shape=self._shape)

  @contextlib.contextmanager
  def reading(self, number: int) -> Iterator[None]:
    """Note that this thread reads image `number` inside the block."""
    if not hasattr(self._local, 'slot'):
      self._local.slot = self._slots[_process % self._shape[0], next(self._count) % _THREADS]
    slot = self._local.slot
    slot[1], slot[0] = time.monotonic_ns(), number + 1
    try:
      yield
    finally:
      slot[0] = 0

  def longest(self) -> tuple[int, float] | None:
    """Returns the image that is being read for the longest time, and the seconds since then."""
    slots = np.array(self._slots).reshape(-1, 2)
    busy = slots[slots[:, 0] > 0]
    if not len(busy):
      return None
    number, since = busy[busy[:, 1].argmin()]
    return int(number) - 1, (time.monotonic_ns() - int(since)) / 1e9
