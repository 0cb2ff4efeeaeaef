"""Programs that the commands keep from one to the next."""

import os
import subprocess
import sys

import jax
import pytest
from jax._src.compilation_cache import decompress_executable
from jax.experimental.compilation_cache import compilation_cache

from jaxsr.commands import compiled_programs
from jaxsr.data import image_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The cache folder of a user who has set nothing."""
  before = {name: getattr(jax.config, name) for name in compiled_programs.settings(tmp_path)}
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()
  yield tmp_path / 'jaxsr' / 'programs'
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def programs(folder):
  return sorted(path.name for path in folder.glob('*/*-cache'))


def compute(name):
  def function(x):
    return x + 1

  function.__name__ = name
  return jax.jit(function)(1.0)


def test_a_program_is_kept_and_the_folder_is_no_part_of_its_key(folder, tmp_path, monkeypatch):
  with compiled_programs.kept():
    compute('first')
  assert any('first' in name for name in programs(folder))
  before = programs(folder)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'moved'))
  jax.config.update('jax_compilation_cache_dir', None)
  compilation_cache.reset_cache()
  jax.clear_caches()
  with compiled_programs.kept():
    compute('first')
  after = programs(tmp_path / 'moved' / 'jaxsr' / 'programs')
  assert after
  assert set(after) <= set(before)


def test_a_flipped_bit_in_a_kept_program_is_noticed(folder):
  """Without a checksum, six of ten would be executed."""
  with compiled_programs.kept():
    compute('flipped')
  [path] = [path for path in folder.glob('*/*-cache') if 'flipped' in path.name]
  whole = path.read_bytes()
  assert decompress_executable(whole)
  for place in range(0, 8 * len(whole), 97):
    content = bytearray(whole)
    content[place // 8] ^= 1 << place % 8
    try:
      same = decompress_executable(bytes(content)) == decompress_executable(whole)
    except Exception:  # of zstandard or zlib, whichever JAX has used
      continue
    assert same, f'a flip of bit {place} was silent'


def test_what_a_killed_process_wrote_is_not_used(folder):
  with compiled_programs.kept():
    compute('whole')
  [place] = folder.iterdir()
  assert not list(place.glob('running-*'))
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  old, part = place / 'old-cache', place / 'part-cache'
  marker = place / f'{compiled_programs._running()}{ended.pid}'
  other = place / f'{compiled_programs._running()}2-{ended.pid}'  # of the machine NAME-2
  other.touch()
  for age, path in ((1000, old), (100, marker), (50, part)):
    path.write_bytes(b'part')
    os.utime(path, (path.stat().st_mtime - age,) * 2)
  jax.config.update('jax_compilation_cache_dir', None)
  with compiled_programs.kept():
    assert old.exists()
    assert not part.exists()
    assert not marker.exists()
    assert other.exists()


def test_an_interrupted_command_leaves_its_mark_and_a_failed_one_does_not(folder):
  for error in (ValueError, KeyboardInterrupt):
    jax.config.update('jax_compilation_cache_dir', None)
    with pytest.raises(error), compiled_programs.kept():
      raise error
    assert len(list(folder.glob('*/running-*'))) == (error is KeyboardInterrupt)


def test_the_oldest_are_removed(tmp_path):
  (tmp_path / 'machine').mkdir()
  for age, name in enumerate(('new', 'older', 'oldest')):
    path = tmp_path / 'machine' / f'{name}-cache'
    path.write_bytes(bytes(100))
    os.utime(path, (path.stat().st_mtime - 10 * age,) * 2)
  compiled_programs.remove_oldest(tmp_path, 250)
  assert programs(tmp_path) == ['new-cache', 'older-cache']


def test_settings_of_jax_are_respected(folder, tmp_path):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
  with compiled_programs.kept():
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'own')
  assert not folder.exists()


def test_without_a_place_to_write_nothing_is_kept(folder, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  with compiled_programs.kept():
    assert not jax.config.jax_compilation_cache_dir


def test_a_command_keeps_its_programs(tmp_path, film):
  image_files.write(tmp_path / 'a.png', film[:32, :32])
  environment = {key: value for key, value in os.environ.items() if not key.startswith('JAX_')}
  environment |= {'XDG_CACHE_HOME': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu'}
  command = 'from jaxsr import cli; cli.main()', 'upscale', 'a.png', '--checkpoint', 'edsr_x4_tiny'
  subprocess.run(
    [sys.executable, '-c', *command], cwd=tmp_path, env=environment, check=True, timeout=300
  )
  assert programs(tmp_path / 'cache' / 'jaxsr' / 'programs')
