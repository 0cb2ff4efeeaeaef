"""Fit tiles into the memory that is free: estimate their size, and halve it if that was too large.

Linux ends a process that exceeds its limit instead of refusing memory, so limits are read first.
XLA's compiler does not survive a refusal either, so an image for which less memory is free than
the compiler takes is not begun.
"""

import functools
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxsr import analysis
from jaxsr.errors import warn
from jaxsr.inference import tiling
from jaxsr.models import Network

_SHARE = 0.6  # of the free memory that the tiles of one call may take
_SIGNS = ('RESOURCE_EXHAUSTED', 'Out of memory')  # of GPUs and of CPUs, in XLA's texts
_COMPILER = 2**28  # bytes that compiling a network on a CPU may take, with its threads
_RESERVED = 2**28  # bytes of addresses that threads reserve and hardly use
_PLENTY = 2**11  # bytes per pixel of a result; the networks need at most 1280
_LEAST = 32  # side of the smallest tile in low-resolution pixels
_CGROUP = Path('/sys/fs/cgroup')

Made = TypeVar('Made')


class OutOfMemory(Exception):
  """The smallest tiles do not fit into memory. `needed` are the bytes that were not available."""

  def __init__(self, needed: int):
    super().__init__(f'{needed} bytes are not available')
    self.needed = needed


class Tiles:
  """The side of tiles, which becomes smaller if they do not fit.

  Args:
    network: the Flax module.
    side: a fixed side in low-resolution pixels, or 'auto' to choose it and to halve it when memory
      runs out.
  """

  def __init__(self, network: Network, side: int | str):
    self.network, self.fixed = network, side != 'auto'
    self._side = None if side == 'auto' else int(side)
    self._lock = threading.Lock()

  @functools.cached_property
  def margin(self) -> int | None:
    """Low-resolution pixels that a tile needs around it; None if it needs the full image."""
    return tiling.margin(self.network)

  def side_for(self, pixels: int) -> int:
    """Returns the side that is tried next for an image of this number of low-resolution pixels.

    Raises OutOfMemory if less memory is free than compiling takes.
    """
    with self._lock:
      if self._side is None:
        free = _for_tiles()
        if _devices() * pixels * self.network.scale**2 * _PLENTY < _SHARE * free:
          return tiling.SIDE  # without the seconds that it takes to trace the network
        self._side = self._estimate(free)
      return self._side

  def run(self, pixels: int, make: Callable[[int], Made]) -> Made:
    """Call a function with the side, and again with half of it as long as memory runs out.

    Smaller sides hold for later calls as well, also in other threads.

    Args:
      pixels: the low-resolution pixels of the image.
      make: upscales the image in tiles of a side.

    Raises:
      OutOfMemory: tiles of a fixed side, or of the least one, do not fit, or `side_for` raises it.
    """
    while True:
      side = self.side_for(pixels)
      try:
        return make(side)
      except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
          raise
        needed = _bytes_of(error)
      if self.fixed or self.margin is None or not self._halve(side):
        raise OutOfMemory(needed)

  def _halve(self, side: int) -> bool:
    """Whether a side smaller than the one that failed can be tried."""
    with self._lock:
      if self._side not in (None, side):  # another thread halved it
        return True
      smaller = max(side // 2, self._least())
      if smaller >= side:
        return False
      self._side = smaller
      warn(f'tiles of {side} pixels do not fit into memory; {smaller} from here on')
      return True

  def _least(self) -> int:
    return max(_LEAST, 2 * (self.margin or 0))

  def _estimate(self, free: int) -> int:
    """Returns the largest usual side whose tiles, one per device, fit into this number of bytes."""
    if self.margin is None:
      return tiling.SIDE
    per_pixel = analysis.activation_bytes(self.network)
    pixels = _SHARE * free / (_devices() * per_pixel)
    fits = int(pixels**0.5) - 2 * self.margin
    side = tiling.SIDE
    while side > max(fits, self._least()):
      side //= 2
    return max(side, self._least())


def _devices() -> int:
  """Returns the number of devices that share one memory."""
  return jax.local_device_count() if jax.default_backend() == 'cpu' else 1


def _for_tiles() -> int:
  """Returns the free bytes beside those that compiling takes; raises OutOfMemory without any."""
  free = free_bytes() - (_COMPILER if jax.default_backend() == 'cpu' else 0)
  if free <= 0:
    raise OutOfMemory(-free)
  return free


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error says that memory could not be allocated."""
  return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)


def free_bytes() -> int:
  """Returns the bytes that the first device can still allocate; of a CPU, those of the process."""
  statistics = jax.local_devices()[0].memory_stats()
  if statistics and 'bytes_limit' in statistics:
    return statistics['bytes_limit'] - statistics.get('bytes_in_use', 0)
  return max(0, min(_free_of_system(), _free_of_group(), _free_of_process()))


def _free_of_system() -> int:
  return _fields(Path('/proc/meminfo')).get('MemAvailable', sys.maxsize)


def _free_of_group() -> int:
  """Returns the bytes that the control group, such as a container, may still allocate (v2, v1)."""
  pairs = (
    (_CGROUP / 'memory.max', _CGROUP / 'memory.current', _CGROUP / 'memory.stat'),
    (
      _CGROUP / 'memory/memory.limit_in_bytes',
      _CGROUP / 'memory/memory.usage_in_bytes',
      _CGROUP / 'memory/memory.stat',
    ),
  )
  for limit, used, statistics in pairs:
    try:
      most, now = limit.read_text().strip(), int(used.read_text())
      cached = dict(line.split() for line in statistics.read_text().splitlines())
    except (OSError, ValueError):
      continue
    if most.isdigit():  # else 'max': there is no limit
      return int(most) - now + int(cached.get('inactive_file', 0))  # pages that can be dropped
  return sys.maxsize


def _free_of_process() -> int:
  """Returns the free part of the address space's limit, without the share that threads reserve."""
  try:
    import resource
  except ImportError:  # Windows has neither
    return sys.maxsize
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit == resource.RLIM_INFINITY:
    return sys.maxsize
  return limit - _fields(Path('/proc/self/status')).get('VmSize', 0) - _RESERVED


def _fields(path: Path) -> dict[str, int]:
  """Read the bytes of the lines `Name: N kB` of a file of /proc; empty without that file."""
  try:
    lines = path.read_text(errors='replace').splitlines()
  except OSError:
    return {}
  found = (re.match(r'(\w+):\s+(\d+) kB', line) for line in lines)
  return {match[1]: 1024 * int(match[2]) for match in found if match}


def _bytes_of(error: BaseException) -> int:
  """Returns the bytes that an error says could not be allocated; 0 if it does not say it."""
  text = str(error)
  if found := re.search(r'allocat\w* ([\d.]+) ?([KMGT]i?)?B', text):  # NumPy, XLA on GPUs
    return int(float(found[1]) * 1024 ** ' KMGT'.index((found[2] or ' ')[0]))
  found: Any = re.search(r'(\d+) bytes', text)
  return int(found[1]) if found else 0
