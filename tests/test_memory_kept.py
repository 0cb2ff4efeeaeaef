import os
import runpy
import subprocess
import sys

import pytest

from jaxsr import cli, runtime

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
  monkeypatch.setattr(sys, 'argv', [program, '--misspelt'])
  with pytest.raises(SystemExit):
    runpy.run_path('main.py', run_name='__main__') if program == 'main.py' else cli.main()
  assert called == [program]
