"""Threads that work ahead, and memory that is kept."""

import os
import runpy
import subprocess
import sys
import threading

import pytest

from jaxsr import cli, runtime

PATIENCE = 60.0  # seconds, which pass only where something is broken


def test_results_come_in_order_however_long_each_takes():
  second_is_done = threading.Event()

  def do(i):
    if i == 0:
      assert second_is_done.wait(PATIENCE)
    if i == 1:
      second_is_done.set()
    return i * i

  assert list(runtime.prefetch_map(do, range(9), threads=2)) == [i * i for i in range(9)]


def test_no_more_is_begun_than_is_wanted():
  begun = []
  results = runtime.prefetch_map(begun.append, range(100), threads=2)
  for _ in range(3):
    next(results)
  results.close()
  assert 3 <= len(begun) <= 3 + 2 * 2


def test_an_error_comes_at_its_turn_and_ends_it():
  begun = []

  def do(i):
    begun.append(i)
    if i == 3:
      raise ValueError('the third')
    return i

  results = runtime.prefetch_map(do, range(100), threads=1)
  assert [next(results) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ValueError, match='the third'):
    next(results)
  assert len(begun) < 10


CODE = """
import ctypes, resource, sys
from jaxsr import runtime
if sys.argv[1] == 'keep':
  runtime.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(3):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = ctypes.c_void_p(libc.malloc(1 << 28))
  ctypes.memset(block, 1, 1 << 28)
  libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc is told to')
def test_memory_that_was_freed_is_kept_unless_the_environment_decides():
  pages = (1 << 28) // os.sysconf('SC_PAGE_SIZE')
  clean = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES' and 'MALLOC_' not in k}
  assert _faults('keep', clean) < pages / 100
  decided = clean | {'GLIBC_TUNABLES': 'glibc.malloc.mmap_max=65536'}
  assert _faults('keep', decided) == pytest.approx(_faults('leave', clean), rel=0.1) != 0


def _faults(way: str, environment: dict[str, str]) -> int:
  command = [sys.executable, '-c', CODE, way]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
  return int(done.stdout)


@pytest.mark.parametrize('program', ['main.py', 'jaxsr'])
def test_programs_have_memory_kept(monkeypatch, program):
  called = []
  monkeypatch.setattr(runtime, 'keep_freed_memory', lambda: called.append(program))
  monkeypatch.setattr(runtime, 'leave', sys.exit)  # which would end the tests, too
  monkeypatch.setattr(sys, 'argv', [program, '--misspelt'])
  with pytest.raises(SystemExit):
    runpy.run_path('main.py', run_name='__main__') if program == 'main.py' else cli.main()
  assert called == [program]
