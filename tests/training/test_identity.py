"""Checkpoints of another run, and a config that was edited after training."""

import json
import re
import shutil

import numpy as np
import pytest

from jaxsr import cli
from jaxsr import config as configs
from jaxsr.checkpoint import storage
from jaxsr.data import image_files
from jaxsr.errors import UserError
from jaxsr.inference.model import load
from jaxsr.training.train import train


@pytest.fixture
def run(finished, tmp_path):
  """A copy of a finished run, which may be changed."""
  shutil.copytree(finished[1], tmp_path / 'run')
  return finished[0], tmp_path / 'run'


@pytest.fixture(scope='module')
def other(finished, tmp_path_factory):
  """Another run of the same config, with a later step."""
  config = configs.copy(finished[0])
  config.steps = 6
  folder = tmp_path_factory.mktemp('other')
  assert train(config, folder) == 0
  return folder


def longer(config, steps=8):
  config = configs.copy(config)
  config.steps = steps
  return config


def edit(folder, change):
  path = folder / 'config.json'
  saved = json.loads(path.read_text())
  change(saved)
  path.write_text(json.dumps(saved))


def set_option(name, value):
  def change(saved):
    *sections, last = name.split('.')
    place = saved['config']
    for section in sections:
      place = place[section]
    place[last] = value

  return change


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('model.residual_scaling', 0.5),
    ('model.bicubic_skip', False),
    ('model.name', 'rdn'),
    ('scale', 2),
    ('channels', 3),
  ],
)
def test_an_edited_network_is_refused(run, tmp_path, film, capsys, name, value):
  """With some edits the arrays still fit, and other pixels would come out."""
  folder = run[1]
  edit(folder, set_option(name, value))
  image_files.write(tmp_path / 'lr.png', film[:32, :32])
  output = tmp_path / 'sr.png'
  command = ['upscale', str(tmp_path / 'lr.png'), '--checkpoint', str(folder)]
  assert cli.run([*command, '--output', str(output)]) == 2, f'{name} was silent'
  (line,) = capsys.readouterr().err.splitlines()
  assert 'another network' in line or 'another architecture' in line or 'has no option' in line
  if name.startswith('model.') and name != 'model.name':
    assert re.search(rf'4: was trained with config.{name}=.*config.json has {value}', line)
  assert not output.exists()


def test_an_edited_network_is_refused_on_resume(run):
  """Even if the command has the same value."""
  config, folder = longer(run[0]), run[1]
  edit(folder, set_option('model.residual_scaling', 0.5))
  config.model.residual_scaling = 0.5
  with pytest.raises(UserError, match=r'was trained with config.model.residual_scaling=1.0'):
    train(config, folder)


def test_what_a_continued_run_may_have_changed_is_told(run, capsys):
  edit(run[1], set_option('data.degradation.kind', 'acquisition'))
  load(run[1])
  text = 'was trained with config.data.degradation.kind=bicubic, but config.json has acquisition'
  assert text in capsys.readouterr().err


def test_values_that_decide_no_pixel_may_be_edited(run, capsys):
  edit(run[1], set_option('data.train', '/moved'))
  load(run[1])
  assert not capsys.readouterr().err


def test_a_step_of_another_run_is_refused(run, other):
  config, folder = run
  shutil.copytree(other / 'checkpoints' / '6', folder / 'checkpoints' / '6')
  before = (folder / 'config.json').read_text()
  for use in (lambda: load(folder), lambda: train(longer(config), folder)):
    with pytest.raises(UserError, match=r'6: is of another run \(\w{16}, but \w{16} in .*move it'):
      use()
  assert (folder / 'checkpoints' / '6').is_dir()
  assert (folder / 'config.json').read_text() == before
  assert load(folder, step=4).step == 4
  shutil.rmtree(folder / 'checkpoints' / '6')
  assert train(longer(config, 5), folder) == 0


def test_the_config_of_another_run_is_refused(run, other):
  config, folder = run
  shutil.copy(other / 'config.json', folder / 'config.json')
  with pytest.raises(UserError, match='restore config.json'):
    train(longer(config), folder)


def test_copied_and_moved_runs_keep_their_id(run, tmp_path):
  config, folder = run
  folder.rename(tmp_path / 'moved')
  assert load(tmp_path / 'moved').step == 4
  identity = json.loads((tmp_path / 'moved' / 'config.json').read_text())['run']
  assert train(longer(config, 5), tmp_path / 'moved') == 0
  assert json.loads((tmp_path / 'moved' / 'config.json').read_text())['run'] == identity
  (tmp_path / 'moved' / 'config.json').unlink()
  assert train(longer(config, 6), tmp_path / 'moved', allow_config_change=True) == 0
  assert json.loads((tmp_path / 'moved' / 'config.json').read_text())['run'] == identity


def test_runs_of_older_versions_continue(finished, tmp_path, monkeypatch):
  """Their records and config.json have no ID and no network."""
  write, folder = storage.write, tmp_path / 'run'
  older = lambda path, tree, record: write(
    path, tree, {k: v for k, v in record.items() if k not in ('run', 'network')}
  )
  with monkeypatch.context() as patch:
    patch.setattr(storage, 'write', older)
    assert train(finished[0], folder) == 0
  edit(folder, lambda saved: saved.pop('run'))
  model = load(folder)
  lr = np.zeros((8, 8), np.uint8)
  np.testing.assert_array_equal(model.upscale(lr), load(finished[1]).upscale(lr))
  assert train(longer(finished[0], 5), folder) == 0
  saved = json.loads((folder / 'config.json').read_text())
  assert storage.read_record(folder / 'checkpoints' / '5')['run'] == saved['run']
  assert load(folder, step=4).step == 4 and load(folder).step == 5
