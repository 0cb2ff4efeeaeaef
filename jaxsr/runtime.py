"""The process: its packages, cores, background threads, memory allocation and parent."""

import _thread
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')

# Distributions whose versions results depend on.
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pillow')
_MOST_CORES = 8
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def cpu_count() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_cpu_devices() -> None:
  """Make each core that this process may use a JAX device, up to 8.

  The parts of an image that are computed in parallel then stay in the caches of their cores. Call
  this before JAX initializes its devices. A number that the environment sets
  (`JAX_NUM_CPU_DEVICES`, or in `XLA_FLAGS`) is respected.
  """
  import jax  # not at the top, so that `keep_freed_memory` can run before JAX starts threads

  given = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if not given and jax.config.values['jax_num_cpu_devices'] < 0:
    jax.config.update('jax_num_cpu_devices', min(cpu_count(), _MOST_CORES))


def has_devices() -> bool:
  """Whether JAX can use the devices that the environment asks for, if it was imported at all."""
  if 'jax' not in sys.modules or not os.environ.get('JAX_PLATFORMS'):
    return True
  try:
    return bool(sys.modules['jax'].devices())
  except Exception:  # JAX raises RuntimeError and AssertionError
    return False


def keep_freed_memory() -> None:
  """Make glibc keep freed memory instead of returning it to the system.

  XLA allocates a program's memory in each step. By default, glibc returns blocks of that size to
  the system, which then clears every page of the next one: up to a quarter of a step on CPUs. Call
  this before any thread starts. Without glibc, or if the environment configures its `malloc`, this
  does nothing.
  """
  tuned = 'glibc.malloc.' in os.environ.get('GLIBC_TUNABLES', '')
  if tuned or any(name.startswith('MALLOC_') for name in os.environ):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
  if mallopt is not None:
    for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
      mallopt(option, value)


def return_freed_memory() -> None:
  """Make glibc return all freed memory to the system, also after `keep_freed_memory`."""
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
  if trim is not None:
    trim(0)


def open_standard_files() -> None:
  """Open those of stdin, stdout and stderr that are closed, as by `>&-`, on /dev/null.

  The next file that is opened would get the number, and libraries would write messages into it.
  """
  for number, (name, mode) in enumerate((('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'))):
    try:
      os.fstat(number)
    except OSError:
      opened = os.open(os.devnull, os.O_RDWR)
      if opened != number:
        os.dup2(opened, number)
        os.close(opened)
      setattr(sys, name, os.fdopen(number, mode, encoding='utf-8'))


def check_threads(count: int) -> None:
  """Raise RuntimeError unless so many threads can be started.

  C++ libraries abort the process if they cannot start theirs, and what was trained is lost. Threads
  of `_thread` take a fourth of the time of those of `threading`.
  """
  held, ended, started = _thread.allocate_lock(), [], 0

  def wait() -> None:
    with held:
      pass
    ended.append(True)

  size = threading.stack_size(2**16)
  try:
    with held:
      for _ in range(count):
        _thread.start_new_thread(wait, ())
        started += 1
  finally:
    threading.stack_size(size)
    while len(ended) < started:
      time.sleep(1e-4)


def die_with_parent() -> None:
  """Kill this process when its parent ends, even if the parent is killed (Linux only)."""
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_running(number: int) -> bool:
  """Whether a process of this machine exists."""
  try:
    os.kill(number, 0)
  except ProcessLookupError:
    return False
  except (OSError, OverflowError):
    return True  # of another user
  return True


def machine() -> str:
  """Returns a name of this machine and its process numbers.

  Containers may share a host name, a folder or /dev/shm, and yet number their processes separately.
  """
  try:
    numbers = os.stat('/proc/self/ns/pid').st_ino
  except OSError:  # not Linux
    numbers = 0
  return f'{socket.gethostname()[:32]}-{numbers}'


def mark_shared_memory() -> None:
  """Put the parent's process number into the names of shared memory that this worker makes.

  `sweep_shared_memory` recognizes by it what a killed trainer has left.

  Python has no public option for the name; without these two, the default names are kept.
  """
  if hasattr(shared_memory, '_SHM_NAME_PREFIX') and hasattr(shared_memory, '_SHM_SAFE_NAME_LENGTH'):
    prefix = f'/{_shared_prefix()}{os.getppid()}-'
    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 16  # type: ignore[attr-defined]


def sweep_shared_memory() -> None:
  """Delete the shared memory of trainers of this machine that were killed."""
  for path in Path('/dev/shm').glob(f'{_shared_prefix()}*'):
    owner = path.name.removeprefix(_shared_prefix()).partition('-')[0]
    if owner.isdecimal() and not is_running(int(owner)):
      with contextlib.suppress(OSError):
        path.unlink()


def _shared_prefix() -> str:
  return f'jaxsr-{machine()}-'


def leave(code: int) -> NoReturn:
  """End the process without waiting for its threads.

  Python would join threads, of which one may be in a read that never ends, and C++ libraries would
  destroy objects that their running threads still use.
  """
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError, AttributeError):
      stream.flush()
  if 'jax' in sys.modules and sys.modules['jax'].distributed.is_initialized():
    sys.modules['jax'].distributed.shutdown()
  os._exit(code)


def prefetch_map(
  function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
  """Map a function over items in background threads, preserving order.

  At most `2 * threads` results are computed ahead of use. An exception is raised in place of the
  result of its item; items that have not started by then are dropped.

  Args:
    function: The function, called with one item.
    items: The items, taken lazily.
    threads: The number of threads.

  Yields:
    The results, in the order of the items.
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


@contextlib.contextmanager
def reading_signals(
  numbers: Sequence[signal.Signals],
  receive: Callable[[signal.Signals], None],
  handler: Callable[[int, FrameType | None], None],
) -> Iterator[None]:
  """Receive signals in a thread inside the block, and restore the previous handlers after it.

  The thread receives them even while the main thread waits inside a library, where Python runs no
  handlers.

  Args:
    numbers: The signals.
    receive: Called in the thread with each signal.
    handler: Called in the main thread, once Python runs handlers again.
  """

  def read() -> None:
    while received := os.read(reader, 64):
      for number in received:
        if number in numbers:
          receive(signal.Signals(number))

  reader, writer = os.pipe()
  os.set_blocking(writer, False)  # as `set_wakeup_fd` requires
  thread = threading.Thread(target=read, daemon=True)
  thread.start()
  old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  old = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield
  finally:
    for number, previous in old.items():
      signal.signal(number, previous)
    signal.set_wakeup_fd(old_writer)
    os.close(writer)
    thread.join()
    os.close(reader)
