"""The process that this runs in: its cores, threads, memory, and what ends it."""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')

_MOST_CORES = 8
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def cpu_count() -> int:
  """Count the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_cpu_devices() -> None:
  """Make each core that this process may use a device, up to 8; call it before JAX has any.

  Parts of an image that are computed side by side stay in the caches of their cores. If the
  environment sets the number itself (`JAX_NUM_CPU_DEVICES`, or in `XLA_FLAGS`), nothing is done.
  """
  import jax  # here, so that `keep_freed_memory` can be called before it

  given = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if not given and jax.config.values['jax_num_cpu_devices'] < 0:
    jax.config.update('jax_num_cpu_devices', min(cpu_count(), _MOST_CORES))


def keep_freed_memory() -> None:
  """Have glibc keep the memory that this process frees, in one heap, on Linux.

  XLA takes a program's memory anew for each step. glibc gives blocks of that size back to the
  system, which clears every page of the next one: on CPUs up to a quarter of a step. Call it before
  there are threads. If the environment sets glibc's `malloc` itself, or there is no glibc, nothing
  is done.
  """
  tuned = 'glibc.malloc.' in os.environ.get('GLIBC_TUNABLES', '')
  if tuned or any(name.startswith('MALLOC_') for name in os.environ):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
  if mallopt is not None:
    for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
      mallopt(option, value)


def die_with_parent() -> None:
  """Ask Linux to kill this process when its parent ends, even if the parent is killed."""
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def prefetch_map(
  function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
  """Map a function over items in background threads, preserving order.

  At most twice `threads` results are computed ahead of use. An exception is raised when the turn of
  its item comes; items that have not begun by then are dropped.
  """
  with ThreadPoolExecutor(threads) as pool:
    waiting: deque[Future[Result]] = deque()
    try:
      for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > 2 * threads:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()
