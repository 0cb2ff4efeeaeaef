"""Do what comes next in threads while what came before is in use."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def cores() -> int:
  """Count the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def in_order(do: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
  """Call `do` for each item, and give the results in order, at most twice `threads` ahead of use.

  What it raises is raised where its turn comes; what had not begun by then is not done.
  """
  with ThreadPoolExecutor(threads) as pool:
    waiting: deque[Future[Result]] = deque()
    try:
      for item in items:
        waiting.append(pool.submit(do, item))
        if len(waiting) > 2 * threads:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()
