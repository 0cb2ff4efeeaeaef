"""The files of a run, as editors, spreadsheets and other programs leave them."""

import json
import os
import shutil

import pytest

from jaxsr import config as configs
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.config import to_dict
from jaxsr.data import fingerprint, sources
from jaxsr.errors import UserError
from jaxsr.inference.model import load
from jaxsr.training.train import train


@pytest.fixture
def run(finished, tmp_path):
  """A copy of a finished run, which may be changed."""
  shutil.copytree(finished[1], tmp_path / 'run')
  return finished[0], tmp_path / 'run'


@pytest.mark.parametrize(
  'save',
  [
    lambda text: b'\xef\xbb\xbf' + text,
    lambda text: text.replace(b'\n', b'\r\n'),
    lambda text: b''.join(reordered(text)),
  ],
  ids=['mark', 'CRLF', 'reordered'],
)
def test_a_table_that_keeps_its_values_is_read(run, save):
  folder = run[1]
  path = folder / run_dir.METRICS
  before = run_dir.MetricsTable(folder, step=9).rows
  path.write_bytes(save(path.read_bytes()))
  assert run_dir.MetricsTable(folder, step=9).rows == before
  assert run_dir.MetricsTable(folder, step=9).last()['step'] == '4'


def reordered(text):
  header, *lines = text.splitlines(True)
  return [header, *reversed(lines)]


@pytest.mark.parametrize(
  'save',
  [
    lambda text: text.replace(b',', b';').replace(b'\n', b'\r\n'),
    lambda text: text.decode().encode('utf-16'),
    lambda text: text.replace(b'4,', b'4.00E+00,'),
    lambda text: b'\0' + text,
    lambda text: b'',
  ],
  ids=['semicolons', 'UTF-16', 'scientific', 'NUL', 'empty'],
)
def test_a_table_that_lost_values_is_refused_or_empty(run, save):
  path = run[1] / run_dir.METRICS
  path.write_bytes(save(path.read_bytes()))
  try:
    assert run_dir.MetricsTable(run[1], step=9).rows == [] and not path.read_bytes()
  except UserError as error:
    assert 'is not as jaxsr wrote it' in str(error)


def test_a_config_with_a_byte_order_mark_is_read(run):
  path = run[1] / run_dir.CONFIG
  before = run_dir.read_config(run[1])
  path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
  assert run_dir.read_config(run[1]) == before


@pytest.mark.parametrize(
  'save',
  [
    lambda text: text.decode().encode('utf-16'),
    lambda text: text[: len(text) // 2],
    lambda text: b'[' * 200_000,
    lambda text: b'',
  ],
  ids=['UTF-16', 'cut', 'nested', 'empty'],
)
def test_a_config_that_cannot_be_read_is_named(run, save):
  path = run[1] / run_dir.CONFIG
  path.write_bytes(save(path.read_bytes()))
  with pytest.raises(UserError, match=r'config.json: is not the config of a run'):
    run_dir.check_config(run[1], to_dict(run[0]), allowed=False)


@pytest.mark.parametrize(
  'name', [run_dir.CONFIG, run_dir.METRICS, run_dir.SAVED, run_dir.SKIPPED, run_dir.ROLLBACKS]
)
def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(run, name):
  (run[1] / name).unlink(missing_ok=True)
  os.mkfifo(run[1] / name)
  config = configs.copy(run[0])
  config.steps = 6
  with pytest.raises(UserError, match=f'{name}: '):
    train(config, run[1])


@pytest.mark.parametrize(
  ('name', 'text'), [('config.json', '{"model_type": "bert"}'), ('metrics.csv', 'epoch,loss\n')]
)
def test_files_of_another_program_are_not_replaced(tiny, tmp_path, name, text):
  (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match=f'{name}: '):
    train(tiny, tmp_path)
  assert (tmp_path / name).read_text() == text


def test_checkpoints_that_are_no_folder_are_named_at_the_start(run, tmp_path):
  (tmp_path / 'new').mkdir()
  (tmp_path / 'new' / 'checkpoints').write_text('')
  with pytest.raises(UserError, match='checkpoints: cannot be written'):
    train(run[0], tmp_path / 'new')
  assert not (tmp_path / 'new' / 'config.json').exists()


def test_changed_images_are_noticed_without_the_config(tiny, folder, tmp_path):
  """The fingerprint in the checkpoint is compared if config.json is another or is lost."""
  tiny.data.train = tiny.data.val = str(folder)
  tiny.steps = 2
  run = tmp_path / 'run'
  assert train(tiny, run) == 0
  checkpoints = Checkpoints(run / 'checkpoints')
  found = {'train': fingerprint.of(sources.Folder(folder))}
  assert checkpoints.trained_on()['train'] == found['train']
  saved = json.loads((run / 'config.json').read_text())
  (folder / 'b.png').unlink()
  now = {'train': fingerprint.of(sources.Folder(folder))}
  run_dir.write_config(run, saved['config'], data=now)  # as if from another run
  longer = configs.copy(tiny)
  longer.steps = 4
  with pytest.raises(UserError, match='have changed since the last checkpoint: there were 4'):
    train(longer, run)
  run_dir.check_data(run, {}, now, allowed=False)  # a checkpoint of an older version


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    (run_dir.SAVED, '{"step": 1e999, "crop_psnr": []}'),
    (run_dir.CONFIG, '{"config": {}, "environment": {}, "step": 1e999}'),
    (run_dir.ROLLBACKS, '[{"spiked": 1e999, "back_to": 1}]'),
  ],
)
def test_an_infinite_step_is_named(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match=f'{name}: is not the'):
    run_dir.read_crop_psnr(tmp_path)
    run_dir.read_config(tmp_path)
    run_dir.rollbacks(tmp_path)


@pytest.mark.parametrize('row', ['4,nan', '4,inf', '4,2931.5', '2,29.0', '4_0,29.0'])
def test_a_row_that_no_validation_gives_is_named(tmp_path, row):
  (tmp_path / run_dir.METRICS).write_text(f'step,psnr\n2,29.5\n{row}\n')
  with pytest.raises(UserError, match=r'row 2 is not as jaxsr wrote it'):
    run_dir.MetricsTable(tmp_path, step=100)


def test_spaces_in_the_table_are_removed(tmp_path):
  (tmp_path / run_dir.METRICS).write_text('step,psnr\n 2, 29.5 \n')
  assert run_dir.MetricsTable(tmp_path, step=9).rows == [{'step': '2', 'psnr': '29.5'}]


def test_the_last_validation_has_numbers_only(tmp_path):
  table = tmp_path / run_dir.METRICS
  table.write_text('step,psnr,loss\n2,29.5,nan\n4,29.5,"0,01"\n')
  assert run_dir.last_row(tmp_path, step=2) == {'step': 2.0, 'psnr': 29.5}
  with pytest.raises(UserError, match=r'metrics.csv: the row of step 4 is not as jaxsr wrote it'):
    run_dir.last_row(tmp_path, step=4)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    (('model', 'name'), 5),
    (('model',), None),
    (('data',), None),
    (('channels',), 0),
    (('loss',), 5),
  ],
  ids=str,
)
def test_a_damaged_config_is_named_where_the_network_is_loaded(run, path, value):
  file = run[1] / run_dir.CONFIG
  saved = json.loads(file.read_text())
  section = saved['config']
  for name in path[:-1]:
    section = section[name]
  section[path[-1]] = value
  file.write_text(json.dumps(saved))
  with pytest.raises(UserError) as raised:
    load(str(run[1]))
  assert len(str(raised.value).splitlines()) == 1
