"""Compiled programs that are kept from one command to the next.

Compilation is most of the time of a command on few images. JAX finds a cached program by its code,
the versions and the flags. A folder per CPU is added here: the CPU is not part of JAX's key, and a
program with instructions that a CPU lacks would end the process.
"""

import contextlib
import hashlib
import os
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsr import runtime

LIMIT = 256 * 2**20  # bytes; the programs written first are removed


@contextlib.contextmanager
def kept() -> Iterator[None]:
  """Keep compiled programs in the user's cache folder, and use those that are there.

  The folder is `$XDG_CACHE_HOME/jaxsr/programs`, by default in `~/.cache`. If JAX's own settings
  name a folder or turn its cache off (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE), or
  if the folder cannot be written, nothing is kept.
  """
  import jax

  config: Any = jax.config  # whose attributes type checkers do not know
  own = config.jax_enable_compilation_cache and not config.jax_compilation_cache_dir
  marker = _prepare() if own else None
  if marker is not None:
    _add_checksums()
    # A program that cannot be read or written is compiled again; users can do nothing about it.
    warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache')
    for name, value in settings(marker.parent).items():
      config.update(name, value)
  try:
    yield
  except KeyboardInterrupt:
    marker = None  # stays, since a thread may be writing
    raise
  finally:
    if marker is not None:
      with contextlib.suppress(OSError):
        marker.unlink()


def settings(folder: Path) -> dict[str, str | float]:
  """Returns the settings by which JAX keeps its compiled programs in a folder, small ones too."""
  return {
    'jax_compilation_cache_dir': str(folder),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    # With XLA's own caches, which only GPUs have, the folder would be a part of a program's key.
    'jax_persistent_cache_enable_xla_caches': 'none',
  }


def _add_checksums() -> None:
  """Make JAX keep programs with a checksum, which is checked when they are read.

  JAX compresses with zstandard if it is installed, without one: most flipped bits would change the
  program. Else it uses zlib, which has one.
  """
  from jax._src import compilation_cache as cache  # has no public option for it

  if (zstandard := getattr(cache, 'zstandard', None)) is not None:
    cache.compress_executable = lambda program: zstandard.ZstdCompressor(
      write_checksum=True
    ).compress(program)


def describe_cpu() -> str:
  """Returns the name of the CPU and its instructions."""
  cpu = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    text = Path('/proc/cpuinfo').read_text()
    cpu += ' '.join(sorted(set(re.findall(r'^(?:flags|Features|model name)\s*:(.*)$', text, re.M))))
  return cpu


def remove_oldest(root: Path, limit: int) -> None:
  """Remove the programs of all machines that were written first, down to `limit` bytes."""
  found = [(path, path.stat()) for path in root.glob('*/*-cache')]
  size = 0
  for path, status in sorted(found, key=lambda each: each[1].st_mtime, reverse=True):
    size += status.st_size
    if size > limit:
      path.unlink(missing_ok=True)


def _prepare() -> Path | None:
  """Returns the file that marks this process in the folder, or None if nothing can be kept."""
  try:
    root = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'jaxsr' / 'programs'
    cpu = f'{describe_cpu()} cores {os.cpu_count()} with checksums'
    folder = root / hashlib.sha256(cpu.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    remove_oldest(root, LIMIT)
    marker = folder / f'{_running()}{os.getpid()}'
    marker.touch()
  except (OSError, RuntimeError):  # no home, read-only, no space
    return None
  return marker


def _running() -> str:
  """Returns how the names of files begin that mark the processes of this machine."""
  return f'running-{runtime.machine()}-'


def _remove_unfinished(folder: Path) -> None:
  """Remove what killed processes may have written in part: all programs since the first began."""
  dead = [
    marker
    for marker in folder.glob('running-*')
    if (number := marker.name.removeprefix(_running())).isdecimal()
    and not runtime.is_running(int(number))
  ]
  if not dead:
    return
  begun = min(marker.stat().st_mtime for marker in dead)
  for path in [*folder.glob('*-cache'), *dead]:
    if path.stat().st_mtime >= begun:
      path.unlink(missing_ok=True)
