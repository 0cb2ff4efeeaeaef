"""Checkpoints that cannot be read now are not taken for damaged ones."""

import errno
import os

import jax
import numpy as np
import pytest

from jaxsr import files, sharding
from jaxsr.checkpoint import CheckpointError, Checkpoints, storage


def state(step):
  return {'ema': {'params': {'kernel': jax.numpy.full((4, 4), step, 'float32')}}}


@pytest.fixture
def two(tmp_path):
  """Save steps 1, which is the best, and 2."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.data = {'train': {'images': 3, 'sample': {'\udcff.png': '00'}}, 'val': {}}
  for step in (1, 2):
    checkpoints.save(step, state(step), psnr=40.0 - step)
  checkpoints.wait()
  return checkpoints


def shapes():
  here = sharding.replicated(sharding.make_mesh(1))
  place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
  return jax.tree.map(place, state(0))


REFUSALS = [
  OSError(errno.EACCES, 'Permission denied'),
  OSError(errno.EMFILE, 'Too many open files'),
  OSError(errno.ESTALE, 'Stale file handle'),
  MemoryError(),
]


@pytest.mark.parametrize('refusal', REFUSALS, ids=lambda error: type(error).__name__)
def test_what_the_system_refuses_is_not_called_damage(two, refusal, monkeypatch):
  """Otherwise each checkpoint in turn would be renamed, and the run could not continue."""

  def fail(path):
    raise refusal

  with monkeypatch.context() as patch:
    patch.setattr(files, 'sha256', fail)
    with pytest.raises(CheckpointError, match='2: cannot be read now .*left as it is'):
      two.restore(shapes(), repair=True)
  assert two.steps() == [1, 2]
  assert int(two.restore(shapes(), repair=True)['ema']['params']['kernel'][0, 0]) == 2


def test_a_device_without_memory_is_not_called_damage(two, monkeypatch):
  def fail(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')

  monkeypatch.setattr(storage.ocp, 'load_checkpointables', fail)
  with pytest.raises(CheckpointError, match='cannot be read now .*RESOURCE_EXHAUSTED'):
    two.restore(shapes(), repair=True)
  assert two.steps() == [1, 2]


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can take another user')
@pytest.mark.parametrize('inner', ['', 'state'])
def test_a_folder_without_permissions_is_not_called_damage(two, inner):
  """`rglob` takes a folder that cannot be listed for an empty one."""
  closed = two.path(2) / inner
  closed.chmod(0)
  os.chmod(two.folder.parent, 0o755)
  try:
    os.seteuid(65534)
    with pytest.raises((CheckpointError, PermissionError)) as raised:
      storage.check(two.path(2))
  finally:
    os.seteuid(0)
    closed.chmod(0o755)
  assert 'cannot be read now' in str(raised.value)


def test_the_best_step_is_kept_while_it_cannot_be_read(two, monkeypatch, capsys):
  read, refuse = storage.read_record, True

  def refused(path):
    if refuse and path.name == '1':
      raise CheckpointError(f'{path}: cannot be read now')
    return read(path)

  monkeypatch.setattr(storage, 'read_record', refused)
  for step in (3, 4):
    two.save(step, state(step), psnr=30.0)
  two.wait()
  assert two.steps() == [1, 2, 3, 4]
  assert 'no older checkpoint is deleted' in capsys.readouterr().err
  refuse = False
  two.save(5, state(5), psnr=30.0)
  two.wait()
  assert two.steps() == [1, 4, 5]


def test_the_fingerprints_of_the_images_are_in_the_newest_checkpoint(two):
  first = two.data
  assert two.trained_on() == first
  two.data = {'train': {'images': 4}, 'val': {}}
  two.save(3, state(3))
  two.wait()
  assert two.trained_on() == two.data
  manifest = next(two.path(3).rglob('*METADATA*'))
  manifest.write_bytes(b'not JSON')
  assert two.trained_on() == first
  assert Checkpoints(two.folder.parent / 'none').trained_on() == {}
  np.testing.assert_array_equal(two.restore(shapes())['ema']['params']['kernel'], 2)


def test_a_foreign_step_is_never_the_best(two):
  """Otherwise a copied step would displace it, and it would be deleted."""
  two.run = 'other'
  two.save(9, state(9), psnr=99.0)
  two.wait()
  two.run = 'this'
  assert two.steps() == [2, 9] and two.best() == 2
  with pytest.raises(CheckpointError, match='9: is of another run'):
    two.restore(shapes())


def test_arrays_of_another_shape_are_refused(two):
  """As of a checkpoint of an older version, which does not know its network."""
  here = sharding.replicated(sharding.make_mesh(1))
  wide = jax.ShapeDtypeStruct((4, 5), 'float32', sharding=here)
  with pytest.raises(CheckpointError, match=r'2: is of another architecture: .*\[4, 4\].*\[4, 5\]'):
    two.restore_variables({'params': {'kernel': wide}})
