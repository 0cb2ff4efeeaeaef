import functools
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from jaxsr import sharding
from jaxsr.checkpoint import CheckpointError, Checkpoints, storage
from jaxsr.checkpoint.storage import sums

# Orbax drops the other reads of a checkpoint that it fails to read, and Python says so.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@functools.cache
def make_state(seed=0, width=64):
  def build():
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
      'ema': {
        'params': {'kernel': jax.random.normal(keys[0], (3, 3, width, 8))},
        'batch_stats': {'mean': jax.random.normal(keys[2], (8,))},
      },
      'generator': {
        'params': {'kernel': jax.random.normal(keys[1], (3, 3, width, 8))},
        'batch_stats': {'mean': jax.random.normal(keys[2], (8,))},
      },
      'step': jnp.int32(seed),
    }

  return jax.jit(build, out_shardings=sharding.replicated(sharding.make_mesh(1)))()


def shapes(state):
  here = sharding.replicated(sharding.make_mesh(1))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


def equal(a, b):
  return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


@pytest.fixture
def two(tmp_path):
  """Save steps 1 and 2."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  for step in (1, 2):
    checkpoints.save(step, make_state(step), psnr=40.0 - step)
  checkpoints.wait()
  return checkpoints


def test_a_state_comes_back_bit_for_bit(two):
  assert equal(two.restore(shapes(make_state())), make_state(2))


def test_inference_reads_only_what_it_needs(two):
  target = shapes(make_state())['ema']
  found, step = two.restore_variables(target)
  assert step == 2
  assert equal(found, make_state(2)['ema'])
  assert two.restore_variables(target, step=1)[1] == 1


def test_a_sharded_state_is_restored_on_other_devices(tmp_path):
  four = sharding.replicated(sharding.make_mesh(4))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(5, jax.device_put(make_state(5), four))
  checkpoints.wait()
  assert equal(checkpoints.restore(shapes(make_state())), make_state(5))


def test_last_two_and_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  for step, psnr in enumerate([30.0, 35.0, 33.0, None, 34.0, 32.0]):
    checkpoints.save(step, make_state(step, width=2), psnr=psnr)
  checkpoints.wait()
  assert checkpoints.steps() == [1, 4, 5]
  assert checkpoints.best() == 1


def fault(path, rng, kind):
  """Damage one file of a checkpoint, larger ones more often."""
  files = [p for p in sorted(path.rglob('*')) if p.is_file()]
  sizes = np.array([p.stat().st_size for p in files], float) + 200
  target = files[rng.choice(len(files), p=sizes / sizes.sum())]
  content = bytearray(target.read_bytes())
  if kind == 'delete':
    target.unlink()
  elif kind == 'truncate':
    target.write_bytes(content[: rng.integers(len(content))] if content else b'')
  elif content:
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    target.write_bytes(content)
  else:
    target.write_bytes(b'x')
  return target


@pytest.mark.parametrize('kind', ['flip', 'truncate', 'delete'])
def test_no_damage_is_silent(two, kind, capsys):
  """Twenty faults of each kind: every one is named, and the step before is used."""
  path, whole = two.folder / '2', two.folder.parent / 'whole'
  shutil.copytree(path, whole)
  for seed in range(20):
    target = fault(path, np.random.default_rng(seed), kind)
    found = two.restore(shapes(make_state()), repair=True)
    assert two.steps() == [1] and equal(found, make_state(1)), f'{kind} of {target} was silent'
    error = capsys.readouterr().err
    assert f'checkpoint {path} is damaged' in error and 'set aside as 2.bad' in error
    shutil.copytree(whole, path)


def test_a_step_that_was_asked_for_is_never_another(two):
  shutil.rmtree(two.folder / '2' / 'state')
  target = {'params': shapes(make_state())['ema']}
  with pytest.raises(CheckpointError, match='2 is damaged .* give another step'):
    two.restore_variables(target, step=2)


def test_without_repair_nothing_is_renamed(two, capsys):
  shutil.rmtree(two.folder / '2' / 'state')
  found = two.restore(shapes(make_state()))
  assert equal(found, make_state(1)) and two.steps() == [1, 2]
  assert 'trying the one before it' in capsys.readouterr().err


def test_when_all_are_damaged_it_does_not_start_over(two, capsys):
  for step in two.steps():
    shutil.rmtree(two.folder / str(step) / 'state')
  with pytest.raises(CheckpointError, match='contains no valid checkpoint'):
    two.restore(shapes(make_state()), repair=True)
  assert capsys.readouterr().err.count('set aside') == 2
  assert two.exists() and not two.steps()
  with pytest.raises(CheckpointError, match='contains no valid checkpoint'):
    two.restore(shapes(make_state()), repair=True)


def test_strays_are_not_taken_for_checkpoints(two):
  (two.folder / '99').mkdir()
  (two.folder / '7.saving.orbax-checkpoint-tmp').mkdir()
  (two.folder / '8.saving').mkdir()
  (two.folder / '.DS_Store').write_bytes(b'x')
  (two.folder / '2' / '.DS_Store').write_bytes(b'x')
  (two.folder / '2' / 'Thumbs.db').write_bytes(b'x')
  for added in ('@eaDir/SHA256SUMS', '.AppleDouble/x', 'SHA256SUMS (conflicted copy)'):
    (two.folder / '2' / added).parent.mkdir(exist_ok=True)
    (two.folder / '2' / added).write_bytes(b'x')
  for name in ('0055', '\N{SUPERSCRIPT THREE}', '-3', '3 (copy)'):
    shutil.copytree(two.folder / '2', two.folder / name)
  assert equal(two.restore(shapes(make_state()), repair=True), make_state(2))
  assert two.steps() == [1, 2]
  two.save(9, make_state(9))
  two.wait()
  assert not list(two.folder.glob('*.saving*'))


@pytest.mark.parametrize(
  'make', [lambda path: path.write_text(''), lambda path: path.symlink_to('x')]
)
def test_what_has_the_name_of_the_next_step_is_set_aside(two, make):
  make(two.folder / '9')
  two.save(9, make_state(9))
  two.wait()
  assert equal(two.restore(shapes(make_state())), make_state(9))
  assert os.path.lexists(two.folder / '9.stray')


def test_a_step_is_on_the_disk_before_it_gets_its_name(two, monkeypatch):
  """Or a power failure would leave empty files in every step of the last half minute."""
  synced, original = set(), os.fsync

  def fsync(number):
    synced.add(os.fstat(number).st_ino)
    original(number)

  def rename(self, target):
    if self.name == '9.saving':
      assert {p.stat().st_ino for p in (self, *self.rglob('*'))} <= synced
      synced.clear()
    return os.rename(self, target)

  monkeypatch.setattr(os, 'fsync', fsync)
  monkeypatch.setattr(Path, 'rename', rename)
  two.save(9, make_state(9))
  two.wait()
  assert two.folder.stat().st_ino in synced


@pytest.mark.parametrize(
  'name', [b'\xff\xfe', b'x[1]*', '\N{HEDGEHOG}'.encode(), b'logs:/w', b'gs:/s3:/a%20b#c']
)
def test_a_folder_of_any_name_is_saved_to_and_read(tmp_path, name):
  checkpoints = Checkpoints(tmp_path / os.fsdecode(name) / 'checkpoints')
  checkpoints.save(1, make_state(1))
  checkpoints.wait()
  assert equal(checkpoints.restore(shapes(make_state())), make_state(1))


def test_arrays_are_checked_even_where_files_are_whole(two, capsys, monkeypatch):
  """A value that changed on its way to the file has a wrong sum under a right manifest."""
  moved = Checkpoints(two.folder.parent / 'moved')
  state = make_state(1)
  honest = storage.sums
  monkeypatch.setattr(
    storage, 'sums', lambda arrays: honest(arrays) | {'step': ['0' * 64, [], 'int32']}
  )
  moved.save(1, state)
  moved.wait()
  monkeypatch.undo()
  with pytest.raises(CheckpointError, match='contains no valid checkpoint'):
    moved.restore(shapes(state))
  assert 'SHA-256 of step differs' in capsys.readouterr().err


def test_a_swapped_step_is_noticed(two):
  shutil.rmtree(two.folder / '2')
  shutil.copytree(two.folder / '1', two.folder / '2')
  assert equal(two.restore(shapes(make_state()), repair=True), make_state(1))
  assert (two.folder / '2.bad').is_dir()


def test_another_architecture_is_no_damage(two):
  with pytest.raises(CheckpointError, match=r'architecture: ema/params/kernel is \[3, 3, 64, 8\]'):
    two.restore(shapes(make_state(width=32)), repair=True)
  target = shapes(make_state())
  target['ema']['bias'] = target['step']
  with pytest.raises(CheckpointError, match='it lacks ema/bias'):
    two.restore(target, repair=True)
  assert two.steps() == [1, 2]


def test_an_empty_folder_says_so(tmp_path):
  with pytest.raises(CheckpointError, match='contains no valid checkpoint'):
    Checkpoints(tmp_path).restore(shapes(make_state()))


def test_sums_see_every_bit():
  array = np.arange(6, dtype=np.float32)
  other = array.copy()
  other.view(np.uint32)[3] ^= 1
  a, b = jnp.asarray(array), jnp.asarray(other)
  assert sums({'x': a}) != sums({'x': b})
  assert sums({'x': a}) != sums({'x': a.reshape(2, 3)})
  assert sums({'x': a}) == sums({'x': a + 0})


@pytest.mark.parametrize('name', ['run[1]', 'a]b', 'lr=1e-3?', 'x*'])
def test_a_folder_with_characters_of_patterns_works(tmp_path, name):
  (tmp_path / 'run1').mkdir()  # which the pattern would match
  checkpoints = Checkpoints(tmp_path / name / 'checkpoints')
  for step in (1, 2):
    checkpoints.save(step, make_state(step))
  checkpoints.wait()
  again = Checkpoints(tmp_path / name / 'checkpoints')
  assert again.steps() == [1, 2]
  assert equal(again.restore(shapes(make_state())), make_state(2))


def test_the_first_checkpoint_of_a_run_is_read_back(tmp_path, monkeypatch):
  read_back, original = [], storage.verify
  monkeypatch.setattr(storage, 'verify', lambda path: (read_back.append(path.name), original(path)))
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(step, make_state(step))
  checkpoints.wait()
  assert [name.partition('.')[0] for name in read_back] == ['1']


def test_a_first_checkpoint_that_is_not_what_was_written_ends_the_run(tmp_path, monkeypatch):
  write = storage.write

  def write_wrongly(path, tree, record):
    finish = write(path, tree, record)

    def damage():
      finish()
      largest = max(path.rglob('*'), key=lambda p: p.stat().st_size if p.is_file() else 0)
      content = bytearray(largest.read_bytes())
      content[len(content) // 2] ^= 1
      largest.write_bytes(content)

    return damage

  monkeypatch.setattr(storage, 'write', write_wrongly)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1))
  with pytest.raises(CheckpointError, match='cannot save.*differs from what was written'):
    checkpoints.wait()
  assert checkpoints.steps() == []


@pytest.mark.parametrize('mount', ['gs', 's3', 'az', 'hf'])
def test_a_folder_at_the_name_of_a_cloud_mount_is_no_url(mount):
  with storage._literal(Path(f'/{mount}/runs/checkpoints/1')) as name:
    assert os.readlink(Path(name).parent) == f'/{mount}/runs/checkpoints'
    assert '://' not in os.fspath(epath.Path(name))
