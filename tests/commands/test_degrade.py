"""`jaxsr degrade`: films as a detector, a dose or an archive makes them."""

import numpy as np
import pytest

from jaxsr import cli
from jaxsr.data import acquisition, image_files
from jaxsr.data.acquisition.film import acquire
from jaxsr.data.phantom import phantom


@pytest.fixture
def films(tmp_path):
  (tmp_path / 'films/deeper').mkdir(parents=True)
  for i, name in enumerate(('a.png', 'deeper/b.tif')):
    image_files.write(tmp_path / 'films' / name, phantom(5, i, size=136)[..., None])
  return tmp_path / 'films'


def degrade(films, output, *options):
  return cli.run(['degrade', str(films), '--output', str(output), *options])


def test_films_are_those_of_the_condition(films, tmp_path, capsys):
  assert degrade(films, tmp_path / 'lr', '--condition', 'mixed') == 0
  out = capsys.readouterr().out
  assert 'wrote 2 images in condition mixed' in out and 'Nyquist frequency: 0.47' in out
  for i, name in enumerate(('a.png', 'deeper/b.tif')):
    hr = phantom(5, i, size=136)[..., None]
    rng = acquisition.generator(name.split('/')[-1], 'mixed')
    wanted = acquire(hr, acquisition.CONDITIONS['mixed'], rng, scale=4)
    found = image_files.read((tmp_path / 'lr' / name).with_suffix('.png'))
    np.testing.assert_array_equal(found, wanted)


def test_a_lower_dose_has_more_noise(films, tmp_path):
  errors = []
  for dose in ('1.0', '0.01'):
    assert degrade(films, tmp_path / dose, '--dose', dose) == 0
    found = image_files.read(tmp_path / dose / 'a.png')
    clean = acquire(
      phantom(5, 0, size=136)[..., None],
      acquisition.CONDITIONS['binned'],
      np.random.default_rng(0),
      scale=4,
    )
    errors.append(np.abs(found - clean.astype(float)).mean())
  assert errors[1] > 3 * errors[0]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--condition', 'lowdose'], "did you mean 'low_dose'"),
    (['--condition', 'jpeg75', '--dose', '0.1'], '--condition one of low_dose'),
    (['--dose', '-1'], 'give a positive dose'),
    (['--scale', '1'], '--scale 1 must be at least 2'),
  ],
)
def test_mistakes_are_named(films, tmp_path, capsys, options, message):
  assert degrade(films, tmp_path / 'lr', *options) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'lr').exists()


def test_nothing_is_replaced(films, tmp_path, capsys):
  assert degrade(films, tmp_path / 'lr') == 0
  assert degrade(films, tmp_path / 'lr') == 2
  assert 'is not replaced' in capsys.readouterr().err
