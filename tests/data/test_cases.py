"""Files that other tools, or earlier versions, read wrongly or refused wrongly."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from jaxsr.data import degradation, image_files
from jaxsr.errors import ImageError
from jaxsr.evaluation import protocol

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(os.environ.get('JAXSR_SHARED', ROOT.parent / 'shared')) / 'cases'
# What JPEG of their quality loses; Pillow and libjpeg-turbo decode the second one 18 levels off.
LOSSY = {'jpg_exif2.jpg': 12, 'jpg_mpo.jpg': 18}
REASONS = {
  'tif_float16.tif': 'float16 samples',
  'tif_int8.tif': 'signed 8-bit samples',
  'no_photometric.dcm': r'lacks PhotometricInterpretation \(0028,0004\)',
}


def rows(right):
  if not CASES.is_dir():
    why = f'{CASES} is absent (files that were read wrongly; set JAXSR_SHARED)'
    return [pytest.param('', marks=pytest.mark.skip(reason=why))]
  with (CASES / 'cases.csv').open(newline='') as file:
    return [row['file'] for row in csv.DictReader(file) if row['right'] == right]


@pytest.mark.parametrize('name', rows('array'))
def test_the_true_array_is_read(name):
  wanted = np.load(CASES / 'expected' / f'{name}.npy')
  found = image_files.read_stored(CASES / name)
  assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
  assert np.abs(found.astype(int) - wanted).max() <= LOSSY.get(name, 0)
  image, info = image_files.load(CASES / name)
  assert image_files.check(CASES / name) == (*wanted.shape, 8 * wanted.itemsize)
  top = 2**info.bits - 1
  full = np.rint(found / top * np.iinfo(found.dtype).max)
  np.testing.assert_array_equal(image[..., 0], full)


@pytest.mark.parametrize('name', rows('refuse'))
def test_a_refusal_names_the_property(name):
  for function in (image_files.check, image_files.read, image_files.read_stored):
    with pytest.raises(ImageError, match=REASONS[name]):
      function(CASES / name)


@pytest.mark.parametrize('name', [n for n in rows('evaluate') if n == 'eval_in12.png'])
def test_a_film_of_twelve_bits_is_measured_as_the_same_film_of_sixteen(name, capsys):
  """Bicubic's figure was 24 dB too high when the range was taken for that of 16 bits."""
  figures = []
  for path in (CASES / name, CASES / 'eval_full16.png'):
    pair = protocol.xray(image_files.read(path, bits=12 if path.name == name else 0), 4)
    figures.append(-10 * np.log10(np.mean((pair.bicubic - pair.hr) ** 2)))
  assert figures[0] == pytest.approx(figures[1], abs=0.02)
  image_files.read(CASES / name)
  assert '--bits 12' in capsys.readouterr().err


@pytest.mark.parametrize('name', [n for n in rows('evaluate') if n == 'eval_colour_250x251.png'])
def test_luma_of_rgb_is_measured_at_any_size(name):
  image = image_files.read(CASES / name, 3)
  pair, cut = (protocol.luma_of_rgb(x, 4) for x in (image, degradation.cut(image, 4)))
  for found, wanted in zip(pair, cut, strict=True):
    np.testing.assert_array_equal(found, wanted)
