"""`jaxsr degrade`: films as a detector, a dose or an archive makes them."""

import numpy as np
import pytest
from PIL import Image

from jaxsr import cli
from jaxsr.data import acquisition, decoded, image_files, remarks
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
    (['--output', 'lr.png'], '--output lr.png: is the name of an image; give a folder'),
  ],
)
def test_mistakes_are_named(films, tmp_path, capsys, options, message):
  assert degrade(films, tmp_path / 'lr', *options) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'lr').exists()


def test_what_cannot_be_written_or_read_fails_alone(films, tmp_path, capsys):
  content = (films / 'a.png').read_bytes()
  for name in ('IM0001', '1.2.840.1', '1.2.840.2', 'l' * 255, 'cut.png'):
    (films / name).write_bytes(content[:-200] if name == 'cut.png' else content)
  source = films / 'later.png'
  Image.fromarray(phantom(5, 0, size=136)).save(source)
  damaged = bytearray(source.read_bytes())
  damaged[len(damaged) // 2] ^= 1  # which its header does not show
  source.write_bytes(damaged)
  assert degrade(films, tmp_path / 'lr') == 1
  told = capsys.readouterr()
  assert 'wrote 5 images' in told.out
  for text in ('File name too long', 'later.png: cannot be decoded', 'cut.png: is truncated'):
    assert text in told.err
  found = sorted(p.name for p in (tmp_path / 'lr').iterdir())
  assert found == ['1.2.840.1.png', '1.2.840.2.png', 'IM0001.png', 'a.png', 'deeper']


def test_bits_without_a_tag_are_named_and_given(tmp_path, capsys, monkeypatch):
  """As the same film with a tag; results keep the range, so that --bits holds for both."""
  monkeypatch.setattr(remarks, '_paths', {})
  stored = (phantom(5, 0, size=136, bits=16) >> 4)[..., None]
  full = decoded.to_full_range(stored, 12)
  for name in ('films', 'tagged'):
    (tmp_path / name).mkdir()
  image_files.write(tmp_path / 'films' / 'a.png', stored)
  image_files.write(tmp_path / 'tagged' / 'a.png', full, info=image_files.ImageInfo(12))
  assert degrade(tmp_path / 'films', tmp_path / 'dark') == 0
  assert 'use --bits 12 ' in capsys.readouterr().err
  assert degrade(tmp_path / 'films', tmp_path / 'lr', '--bits', '12') == 0
  assert degrade(tmp_path / 'tagged', tmp_path / 'lr_tagged') == 0
  found, expected, dark = (
    image_files.read(tmp_path / name / 'a.png') for name in ('lr', 'lr_tagged', 'dark')
  )
  np.testing.assert_array_equal(found, expected)
  assert found.max() > 12 * dark.max()
  assert image_files.load(tmp_path / 'lr' / 'a.png')[1].bits == 12


def test_nothing_is_replaced(films, tmp_path, capsys):
  assert degrade(films, tmp_path / 'lr') == 0
  assert degrade(films, tmp_path / 'lr') == 2
  assert 'is not replaced' in capsys.readouterr().err


def test_results_of_one_name_get_distinct_names_and_nothing_is_begun_in_vain(
  films, tmp_path, capsys
):
  image_files.write(films / 'a.tif', phantom(5, 2, size=136)[..., None])
  (films / 'deeper' / 'b.tif').rename(films / 'a.dat')
  output = tmp_path / 'lr'
  assert degrade(films, output, '--condition', 'clean') == 0
  assert {path.name for path in output.iterdir()} == {'a.png', 'a.tif.png', 'a.dat.png'}
  (output / 'a.png').unlink()
  assert degrade(films, output, '--condition', 'clean') == 2
  assert 'a.dat.png, ' in capsys.readouterr().err and not (output / 'a.png').exists()
