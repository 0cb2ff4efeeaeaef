"""Notice that another host of a run has ended.

Without this, a host waits for the others in its next step until JAX aborts it after 90 seconds,
with pages of messages.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxsr.errors import TRY_AGAIN
from jaxsr.training import aborts

SECONDS = 45.0  # without a sign of life
_KEY = 'jaxsr/alive/{}'


@contextmanager
def watched() -> Iterator[None]:
  """Inside the block, end this process with one line and code 75 if another host has ended.

  Each host counts in the store that JAX's coordinator keeps, and reads the counts of the others.
  """
  client = _client()
  if client is None:
    yield
    return
  over = threading.Event()
  with aborts.handled(_leave_coordinator):
    threading.Thread(target=_watch, args=(client, over), daemon=True).start()
    try:
      yield
    except jax.errors.JaxRuntimeError:  # of a collective, if another host has ended
      time.sleep(1.5 * SECONDS)  # the thread ends the process if it has
      raise
    finally:
      over.set()


def _client() -> Any:
  """Returns the client of the store, or None for a single host; JAX has no public name for it."""
  if jax.process_count() == 1:
    return None
  from jax._src import distributed

  return distributed.global_state.client


def _watch(client: Any, over: threading.Event) -> None:
  others = [i for i in range(jax.process_count()) if i != jax.process_index()]
  seen = dict.fromkeys(others, ('', time.monotonic()))
  number = 0
  while not over.wait(SECONDS / 10):
    number += 1
    try:
      client.key_value_set(_KEY.format(jax.process_index()), str(number), allow_overwrite=True)
      counts = {_number(key): value for key, value in client.key_value_dir_get(_KEY.format(''))}
    except Exception:  # the coordinator has ended
      _leave_coordinator()
    now = time.monotonic()
    for i in others:
      count = counts.get(i, '')
      if count != seen[i][0]:
        seen[i] = count, now
      elif now - seen[i][1] > SECONDS:
        _leave(f'host {i}')


def _number(key: str) -> int:
  return int(key.rpartition('/')[2])


def _leave_coordinator() -> None:
  _leave('host 0, which coordinates the others,')


def _leave(host: str) -> None:
  print(
    f'{host} has ended; start all hosts again, and they continue from the last checkpoint',
    file=sys.stderr,
    flush=True,
  )
  os._exit(TRY_AGAIN)
