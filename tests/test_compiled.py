"""Compiled programs are kept between runs: whole ones, and no more than the limit."""

import os

from jax._src.compilation_cache import compress_executable

import compiled


def test_only_whole_programs_are_kept_and_the_oldest_are_removed(tmp_path, monkeypatch):
  folder, kept, later = (tmp_path / name for name in ('run', 'kept/machine', 'later'))
  folder.mkdir()
  later.mkdir()
  program = compress_executable(os.urandom(1000))
  for name, data in (('a', program), ('b', program), ('killed', program[:-10])):
    (folder / f'{name}-cache').write_bytes(data)
  compiled.keep(folder, kept)
  assert sorted(path.name for path in kept.iterdir()) == ['a-cache', 'b-cache']
  os.utime(kept / 'a-cache', (1, 1))
  monkeypatch.setattr(compiled, 'LIMIT', len(program))
  compiled.keep(folder, kept)
  assert [path.name for path in kept.iterdir()] == ['b-cache']
  compiled.restore(kept, later)
  assert (later / 'b-cache').read_bytes() == program


def test_nothing_is_kept_unless_a_folder_is_named(monkeypatch):
  monkeypatch.delenv('JAXSR_TEST_CACHE', raising=False)
  assert compiled.kept() is None
