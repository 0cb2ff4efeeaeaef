"""Take items of a generator in a thread, so that the wait for one can end before it comes."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from jaxsr.errors import Interruption

_POLL = 0.1  # seconds between looks at the signal while a batch is awaited
_MOST_PER_POLL = 1.0  # seconds that count, since a suspended process (Ctrl-Z) does not wait
_PATIENCE = 10.0  # seconds to end the workers in

Item = TypeVar('Item')


class Stalled(Interruption):
  """No batch came in time."""


class WaitQueue(Generic[Item]):
  """The items of a generator, batches above all, which a thread takes one ahead of use."""

  def __init__(
    self, items: Generator[Item, None, None], *, timeout: float, reading: Callable[[], str]
  ):
    """Start to take items.

    Args:
      items: The generator, an endless one; the thread closes it.
      timeout: Seconds without an item after which `next` raises; 0 waits forever.
      reading: Describes which file is being read, for the message; '' to wait on.
    """
    self._items, self._timeout, self._reading = items, timeout, reading
    self._ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(1)
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._take, daemon=True)
    self._thread.start()

  def next(self, stopped: Callable[[], bool]) -> Item | None:
    """Wait for the next item.

    Args:
      stopped: Whether to end the wait.

    Returns:
      The item, or None if the wait ended without one.

    Raises:
      Stalled: No batch came in time.
      Interruption: A worker process was killed.
      Exception: Whatever the generator raised.
    """
    waited, since = 0.0, time.monotonic()
    while True:
      try:
        found, error = self._ready.get(timeout=_POLL)
      except queue.Empty:
        if stopped():
          return None
        now = time.monotonic()
        waited += min(now - since, _MOST_PER_POLL)
        since = now
        if 0 < self._timeout < waited and (what := self._reading()):
          text = f'nothing came for {self._timeout:g} s (config.data.timeout): {what}'
          raise Stalled(text) from None
        continue
      if error is None:
        return found
      if stopped():  # the signal may have ended the workers, too
        return None
      if isinstance(error, RuntimeError) and 'terminated unexpectedly' in str(error):
        text = 'a worker process that prepares batches was killed, perhaps for lack of memory'
        raise Interruption(text) from error
      raise error

  def close(self) -> None:
    """End the workers; a read that never ends is left behind."""
    self._over.set()
    self._thread.join(_PATIENCE)

  def _take(self) -> None:
    """Move items or the error of the generator to the queue."""
    try:
      for item in self._items:
        if not self._put(item):
          return
      self._put(None, EOFError('the generator ended'))
    except BaseException as error:
      self._put(None, error)
    finally:
      self._items.close()

  def _put(self, item: Item | None, error: BaseException | None = None) -> bool:
    while not self._over.is_set():
      try:
        self._ready.put((item, error), timeout=_POLL)
        return True
      except queue.Full:
        continue
    return False
