"""Compiled programs that are kept from one test run to the next.

Compilation is most of the tests' time. If JAXSR_TEST_CACHE names a folder, a run starts with the
programs there and adds its own. Each run works in a folder of its own, since JAX does not write its
cache atomically and tests kill processes that write to it: only programs that can be read are kept.
JAX finds a program by its code, the versions and the flags; a folder per machine is added here.
"""

import hashlib
import os
import platform
import shutil
from pathlib import Path

import jax
import jaxlib
import numpy as np
from jax._src.compilation_cache import decompress_executable

from jaxsr.commands import compiled_programs

LIMIT = 2**30  # bytes that are kept for all machines; the oldest programs are removed first


def machine():
  """Identify all that the last bits of a result depend on: the CPU, its cores and the versions."""
  cpu = compiled_programs.describe_cpu()
  features = hashlib.sha256(cpu.encode()).hexdigest()[:12]
  return (
    f'{platform.machine()} {features} cores {os.cpu_count()} jax {jax.__version__} '
    f'jaxlib {jaxlib.__version__} numpy {np.__version__}'
  )


def kept():
  """Returns the folder of this machine, or None if nothing is kept."""
  if not (given := os.environ.get('JAXSR_TEST_CACHE')):
    return None
  return Path(given) / hashlib.sha256(machine().encode()).hexdigest()[:16]


def restore(source, folder):
  """Fill a run's folder with the cached compiled programs."""
  for path in source.glob('*-cache'):
    try:
      os.link(path, folder / path.name)
    except OSError:  # another file system
      shutil.copy(path, folder / path.name)


def keep(folder, target):
  """Add a run's programs to those that are kept, and remove the oldest above the limit."""
  target.mkdir(parents=True, exist_ok=True)
  for path in folder.glob('*-cache'):
    if not (target / path.name).exists() and is_whole(path):
      temporary = target / f'{path.name}.{os.getpid()}'
      shutil.copy(path, temporary)
      temporary.replace(target / path.name)
  compiled_programs.remove_oldest(target.parent, LIMIT)


def is_whole(path):
  """Whether a file was written to its end."""
  try:
    return bool(decompress_executable(path.read_bytes()))
  except Exception:  # of zstandard or zlib, whichever JAX has used
    return False
