"""Do what comes next in threads while what came before is in use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


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
