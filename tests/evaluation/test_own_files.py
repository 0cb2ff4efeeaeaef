"""Results of earlier evaluations are replaced; files that jaxsr did not write are not."""

import numpy as np
import pytest

import jaxsr
from jaxsr import cli
from jaxsr.data import image_files, tiff_segments
from jaxsr.evaluation import own_files

NAMES = ('summary.json', 'per_image.csv', 'contact_sheet.png', 'report.html')


@pytest.fixture(scope='module')
def films(tmp_path_factory):
  folder = tmp_path_factory.mktemp('films')
  image_files.write(
    folder / 'a.png', np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8)
  )
  return folder


@pytest.fixture(scope='module')
def run(films):
  def evaluate(output, command=('evaluate', '--checkpoint', 'bicubic', '--scale', '4')):
    return cli.run([*command, '--data', str(films), '--output', str(output)])

  return evaluate


def test_an_evaluation_replaces_its_own_files(tmp_path, run):
  pytest.importorskip('jinja2')
  pytest.importorskip('matplotlib')
  for _ in range(2):
    assert run(tmp_path / 'out') == 0
  written = {path.name for path in (tmp_path / 'out').iterdir() if not path.name.startswith('.')}
  assert written == set(NAMES)
  assert written < set(own_files._MARKS)


@pytest.mark.parametrize('name', [*NAMES, 'strata.csv', 'trust.json', 'conditions.png'])
@pytest.mark.parametrize('kind', ['text', 'link', 'folder'])
def test_files_of_others_are_named_and_stay(tmp_path, run, capsys, name, kind):
  path = tmp_path / name
  if kind == 'text':
    path.write_text('{"mine": 1}')
  elif kind == 'link':
    path.symlink_to(tmp_path / 'gone')
  else:
    path.mkdir()
  assert run(tmp_path) == 2
  error = capsys.readouterr().err
  assert f'{path}: ' in error
  assert 'is not replaced; choose another --output' in error
  assert [each.name for each in tmp_path.iterdir()] == [name]
  assert kind != 'text' or path.read_text() == '{"mine": 1}'


def test_a_comparison_replaces_no_files_of_others(tmp_path, run, capsys):
  pytest.importorskip('jinja2')
  (tmp_path / 'compare.csv').write_text('mine')
  command = ('compare', 'bicubic', 'lanczos', '--scale', '4')
  assert run(tmp_path, command) == 2
  assert 'compare.csv: is not marked as written by jaxsr' in capsys.readouterr().err


def test_phantoms_and_simulated_films_replace_nothing(tmp_path, films, capsys):
  draw = ('phantom', '--output', str(tmp_path), '--count', '1', '--size', '64')
  for _ in range(2):
    assert cli.run(draw) == 0
  (drawn,) = tmp_path.iterdir()
  drawn.unlink()
  drawn.symlink_to(tmp_path / 'gone')
  (tmp_path / 'a.png').symlink_to(tmp_path / 'gone')
  assert cli.run(draw) == 2
  low = ('degrade', str(films), '--output', str(tmp_path), '--condition', 'clean')
  assert cli.run(low) == 2
  assert capsys.readouterr().err.count('is not replaced; choose another --output') == 2
  assert all(path.is_symlink() for path in tmp_path.iterdir())


def test_a_picture_that_a_user_saved_stays(tmp_path, run, capsys):
  jaxsr.write(tmp_path / 'contact_sheet.png', np.full((8, 8), 7, np.uint8))
  assert run(tmp_path) == 2
  assert 'contact_sheet.png: is not marked as written by jaxsr' in capsys.readouterr().err


def test_an_image_that_does_not_fit_into_memory_is_left_out(
  tmp_path, run, films, monkeypatch, capsys
):
  image_files.write(films / 'large.tif', np.full((64, 64, 1), 128, np.uint8))

  def fail(page):
    raise MemoryError

  monkeypatch.setattr(tiff_segments, 'read', fail)
  assert run(tmp_path / 'out') == 1
  assert 'large.tif: does not fit into memory' in capsys.readouterr().err
  (films / 'large.tif').unlink()
