"""Names that file systems allow, and what killed processes leave behind."""

import _thread
import errno
import os
import socket
import subprocess
import sys
import threading

import pytest

from jaxsr import files, runtime
from jaxsr.errors import argument, describe


@pytest.mark.parametrize(
  'name', [b'a' * 251 + b'.png', '\N{HEDGEHOG}'.encode() * 62 + b'.png', b'\xff\xfe.png', b'-x.png']
)
def test_any_name_can_be_written(tmp_path, name):
  path = tmp_path / os.fsdecode(name)
  files.write_text(path, 'text')
  assert [os.fsencode(p.name) for p in tmp_path.iterdir()] == [name]
  files.write_manifest(tmp_path)
  files.verify_manifest(tmp_path)


def dead():
  """Returns the number of a process that has ended."""
  process = subprocess.Popen([sys.executable, '-c', ''])
  process.wait()
  return process.pid


def test_temporary_files_of_a_killed_process_are_swept(tmp_path):
  kill = 'import os; from jaxsr import files; from pathlib import Path\n'
  kill += 'with files.atomic(Path("a.png")): os.kill(os.getpid(), 9)'
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
  subprocess.run([sys.executable, '-c', kill], cwd=tmp_path, env=environment, check=False)
  (left,) = tmp_path.iterdir()
  own = tmp_path / f'.jaxsr-{runtime.machine()}-{os.getpid()}-x'
  other = tmp_path / f'.jaxsr-elsewhere-{dead()}-x'
  contained = tmp_path / f'.jaxsr-{socket.gethostname()}-1-{dead()}-x'  # its numbers are its own
  for path in (own, other, contained):
    path.touch()
  files.make_folder(tmp_path)
  assert sorted(tmp_path.iterdir()) == sorted([own, other, contained]), left


@pytest.mark.skipif(not os.path.isdir('/dev/shm'), reason='needs /dev/shm')
def test_shared_memory_of_killed_workers_is_swept():
  """A worker names its memory by its parent; memory of parents that live stays."""
  code = 'from jaxsr import runtime; from multiprocessing import shared_memory as s; import sys\n'
  code += 'runtime.mark_shared_memory(); m = s.SharedMemory(create=True, size=8)\n'
  code += 'print(m.name, flush=True); import os; os.kill(os.getpid(), 9)'
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
  out = subprocess.run(
    [sys.executable, '-c', code], env=environment, capture_output=True, text=True
  )
  name = out.stdout.strip()
  kept, orphan = f'/dev/shm/{name}', f'/dev/shm/{name.replace(str(os.getpid()), str(dead()))}'
  assert str(os.getpid()) in name
  for path in (kept, orphan):
    open(path, 'w').close()
  try:
    runtime.sweep_shared_memory()
    assert os.path.exists(kept) and not os.path.exists(orphan)
  finally:
    os.unlink(kept)


def test_a_limit_of_threads_is_found_before_a_library_aborts(monkeypatch):
  runtime.check_threads(8)
  start, left = _thread.start_new_thread, iter(range(5))

  def limited(*arguments):
    if next(left, None) is None:
      raise RuntimeError("can't start new thread")
    return start(*arguments)

  before = threading.stack_size()
  monkeypatch.setattr(_thread, 'start_new_thread', limited)
  with pytest.raises(RuntimeError, match="can't start new thread"):
    runtime.check_threads(8)
  assert threading.stack_size() == before


def test_a_limit_of_open_files_is_named():
  error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), 'a.png')
  assert describe(error) == 'a.png: Too many open files; raise the limit of open files (ulimit -n)'


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
  with pytest.raises(OSError) as raised, files.atomic(tmp_path / 'summary.json'):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert describe(raised.value) == f'{tmp_path / "summary.json"}: No space left on device'
  for name in (None, 'README.md'):
    with pytest.raises(OSError) as raised, files.new_folder(tmp_path / 'package') as temporary:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name and str(temporary / name))
    assert describe(raised.value) == f'{tmp_path / "package"}: No space left on device'
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'name',
  [
    b'-dash/w',
    b'~',
    b'~user/x',
    b"it's $(a) `b` \\x",
    b'\xff\xfe41',
    b'a\nb\t\x1b[2Jc',
    b"'\xff\\",
  ],
)
def test_a_path_in_a_printed_command_can_be_pasted(name):
  text = argument(os.fsdecode(name))
  assert text.isprintable() and text.isascii() and not text.startswith(('-', '~'))
  command = ['bash', '-c', f'printf %s {text}']
  pasted = subprocess.run(command, capture_output=True, check=True).stdout
  assert os.path.normpath(pasted) == os.path.normpath(name)
