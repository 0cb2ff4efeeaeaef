"""Take batches in a thread, so that the wait for one can end before it comes."""

import queue
import threading
import time
from collections.abc import Callable, Generator

from jaxsr.data.batch import Batch
from jaxsr.errors import Interruption

_POLL = 0.1  # seconds between looks at the signal while a batch is awaited
_PATIENCE = 10.0  # seconds to end the workers in

Batches = Generator[Batch, None, None]


class Stalled(Interruption):
  """No batch came in time."""


class BatchQueue:
  """The batches of a generator, which a thread takes one ahead of use."""

  def __init__(self, batches: Batches, *, timeout: float, reading: Callable[[], str]):
    """Start to take batches.

    Args:
      batches: The generator; the thread closes it.
      timeout: Seconds without a batch after which `next` raises; 0 waits forever.
      reading: Describes which file is being read, for the message.
    """
    self._batches, self._timeout, self._reading = batches, timeout, reading
    self._ready: queue.Queue[Batch | BaseException] = queue.Queue(1)
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._take, daemon=True)
    self._thread.start()

  def next(self, stopped: Callable[[], bool]) -> Batch | None:
    """Wait for the next batch.

    Args:
      stopped: Whether to end the wait.

    Returns:
      The batch, or None if the wait ended without one.

    Raises:
      Stalled: No batch came in time.
      Interruption: A worker process was killed.
      Exception: Whatever the generator raised.
    """
    begun = time.monotonic()
    while True:
      try:
        found = self._ready.get(timeout=_POLL)
      except queue.Empty:
        if stopped():
          return None
        if 0 < self._timeout < time.monotonic() - begun:
          raise Stalled(
            f'no batch came for {self._timeout:g} s (config.data.timeout): {self._reading()}'
          ) from None
        continue
      if not isinstance(found, BaseException):
        return found
      if stopped():  # the signal may have ended the workers, too
        return None
      if isinstance(found, RuntimeError) and 'terminated unexpectedly' in str(found):
        text = 'a worker process that prepares batches was killed, perhaps for lack of memory'
        raise Interruption(text) from found
      raise found

  def close(self) -> None:
    """End the workers; a read that never ends is left behind."""
    self._over.set()
    self._thread.join(_PATIENCE)

  def _take(self) -> None:
    """Move batches or the error of the generator to the queue."""
    try:
      for batch in self._batches:
        if not self._put(batch):
          return
      self._put(RuntimeError('the batches ended'))
    except BaseException as error:
      self._put(error)
    finally:
      self._batches.close()

  def _put(self, item: Batch | BaseException) -> bool:
    while not self._over.is_set():
      try:
        self._ready.put(item, timeout=_POLL)
        return True
      except queue.Full:
        continue
    return False
