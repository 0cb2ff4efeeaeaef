"""Signals to commands at moments at which Python would lose them or print tracebacks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import os, sys, time
sys.path.insert(0, os.getcwd())
from jaxsr.commands import interrupts
interrupts.handle()
interrupts._SECONDS = 1.0
def ready():
  print('ready', flush=True)
"""
SLOW = """
import time
try:
  print('ready', flush=True)
  time.sleep(60)
except KeyboardInterrupt:
  raise ImportError('as of a compiled module') from None
"""
SCRIPTS = {  # what runs, and what is printed after the signal
  'while a module is imported': ('import slow', ''),
  'in a callback, where Python drops it': (
    """
class Callback:
  def __del__(self):
    ready()
    time.sleep(60)
try:
  Callback()
  time.sleep(60)
except KeyboardInterrupt:
  print('raised', flush=True)
  os._exit(130)
""",
    'raised\n',
  ),
  'dropped by a library': (
    """
try:
  ready()
  time.sleep(60)
except BaseException:
  time.sleep(60)
""",
    '',
  ),
  'after the work': ('interrupts.end_at_once()\nready()\ntime.sleep(60)', ''),
}


def start(folder, script, **options):
  (folder / 'slow.py').write_text(SLOW)
  return subprocess.Popen(
    [sys.executable, '-c', HEAD + script],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    **options,
  )


@pytest.mark.parametrize('script', SCRIPTS)
def test_an_early_interrupt_is_neither_lost_nor_a_traceback(tmp_path, script):
  text, printed = SCRIPTS[script]
  process = start(tmp_path, text)
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=20)[0] == printed
  assert process.returncode == 130


TWICE = """
interrupts._SECONDS = 60
try:
  ready()
  time.sleep(60)
finally:
  ready()
  time.sleep(60)
"""


def test_a_second_interrupt_ends_a_command_at_once(tmp_path):
  process = start(tmp_path, TWICE)
  for _ in range(2):
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=20)[0] == ''
  assert process.returncode == 130


WORKERS = """
import ctypes, subprocess
with interrupts.ending_workers():
  child = 'import time; print("child", flush=True); time.sleep(60)'
  subprocess.Popen(f"{sys.executable} -c '{child}'", shell=True)
  while True:
    ctypes.CDLL(None).sleep(60)  # where no handler runs
"""


@pytest.mark.parametrize('group', [False, True], ids=['alone', 'group'])
@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP'])
def test_a_signal_ends_all_workers(tmp_path, name, group):
  process = start(tmp_path, WORKERS, start_new_session=True)
  assert process.stdout.readline() == 'child\n'
  number = getattr(signal, name)
  os.killpg(process.pid, number) if group else process.send_signal(number)
  told = process.communicate(timeout=20)[0]  # until the worker has closed it, too
  assert f'stopped by {name}; run the same command to continue\n' in told
  assert group or told.count('\n') == 1  # the worker of a group may be faster
  assert process.returncode == 75


def test_a_command_is_interrupted_in_its_first_imports(tmp_path):
  command = [sys.executable, '-v', '-m', 'jaxsr', 'upscale', str(tmp_path)]
  process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
  for line in process.stderr:
    if line.startswith("import 'tyro"):
      process.send_signal(signal.SIGINT)
      break
  assert 'Traceback' not in process.communicate(timeout=60)[1]
  assert process.returncode == 130
