"""Intervals and doubt as DICOM: their values, and their place beside the enlarged image."""

import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import pydicom

from data.dicom_films import SIZE, build, ramp, save
from jaxsr.data import dicom_maps, dicom_out, image_files
from jaxsr.data.decoded import Method
from jaxsr.data.dicom_maps import Shown

NOTE = 'jaxsr 1; edsr x4; weights 0123; source 4567; for research, not for diagnosis'
METHOD = Method('edsr x4', NOTE, '1')
SHOWN = Shown('INTERVAL', NOTE.replace('for research', 'half width; for research'), 'Half.', 10_000)
LARGE = (2 * SIZE[0], 2 * SIZE[1])
CANARY = 'QXCANARYZ7'


@pytest.fixture
def written(tmp_path):
  """A function that makes a film, and returns the data sets of its half widths and its doubt."""

  def make(half, mask, *, compress=None, **options):
    path = save(tmp_path / 'a.dcm', build(ramp(options.get('bits', 12)), **options))
    doubt = SHOWN._replace(kind='DOUBT', note=NOTE + ' doubt', place=20_000)
    args = (half.shape, path, METHOD)
    with (
      dicom_maps.writing_half_widths(tmp_path / 'i.dcm', *args, SHOWN, compress=compress) as i,
      dicom_maps.writing_mask(tmp_path / 'd.dcm', *args, doubt, compress=compress) as d,
    ):
      for writer, rows in ((i, half[:5]), (d, mask), (i, half[5:])):
        writer.write(rows)
    sr = image_files.read(path).repeat(2, 0).repeat(2, 1)
    dicom_out.write(tmp_path / 'sr.dcm', sr, path, METHOD)
    return [pydicom.dcmread(tmp_path / f'{name}.dcm') for name in ('i', 'd', 'sr')]

  return make


@pytest.mark.parametrize('compress', [None, 'jpegls'])
@pytest.mark.parametrize(
  ('bits', 'options'),
  [
    (8, {}),
    (12, {'kind': 'MONOCHROME1', 'PresentationLUTShape': 'INVERSE'}),
    (12, {'RescaleSlope': '-2', 'RescaleIntercept': '5', 'signed': True}),
    (16, {'PixelPaddingValue': 0, 'WindowCenter': '9', 'WindowWidth': '3'}),
  ],
)
def test_values_are_half_widths_in_stored_values(written, bits, options, compress):
  random = np.random.default_rng(0)
  peak = 255 if bits == 8 else 65535
  step = peak / (2**bits - 1)
  half = (20 * step * random.random(LARGE)).astype(np.float32)
  half[3, 7] = 2 * peak  # more than can be stored
  mask = random.random(LARGE) < 0.3
  interval, doubt, image = written(half, mask, bits=bits, compress=compress, **options)
  inside = np.ones(LARGE, bool)
  inside[:2, :2] = 'PixelPaddingValue' not in options
  want = np.floor(half / step).clip(0, 2**bits - 1) * inside
  assert np.abs(interval.pixel_array - want).max() == 0
  np.testing.assert_array_equal(doubt.pixel_array, 255 * (mask & inside))
  slope = abs(float(options.get('RescaleSlope', 1)))
  for ds, top in ((interval, slope * (2**bits - 1)), (doubt, 255)):
    assert ds.PhotometricInterpretation == 'MONOCHROME2' and ds.PixelRepresentation == 0
    assert ds.WindowWidth == top + slope * (ds is interval) + (ds is doubt)
    assert ds.WindowCenter == ds.WindowWidth / 2
    assert 'PixelPaddingValue' not in ds and ds.get('PresentationLUTShape') in (None, 'IDENTITY')
  if 'RescaleSlope' in options:
    assert (interval.RescaleSlope, interval.RescaleIntercept) == (2, 0)
    assert (doubt.RescaleSlope, doubt.RescaleIntercept) == (1, 0)
  assert interval.BitsStored == image.BitsStored and doubt.BitsStored == 8


def test_they_are_instances_of_the_series_that_refer_to_the_image(written):
  half, mask = np.ones(LARGE, np.float32), np.zeros(LARGE, bool)
  interval, doubt, image = written(half, mask, ImageComments=CANARY, PatientName='A^B')
  again = written(half, mask)[0]
  assert again.SOPInstanceUID == interval.SOPInstanceUID
  assert len({ds.SOPInstanceUID for ds in (interval, doubt, image)}) == 3
  for ds in (interval, doubt):
    for name in ('StudyInstanceUID', 'SeriesInstanceUID', 'SeriesDescription', 'SeriesNumber'):
      assert ds[name] == image[name]
    assert (ds.SeriesDate, ds.SeriesTime) == (image.SeriesDate, image.SeriesTime)
    assert ds.PixelSpacing == image.PixelSpacing and ds.PatientName == 'A^B'
    found = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert found == ['1.2.3.4', image.SOPInstanceUID]
    assert CANARY not in str(ds) and ds.ImageComments == 'Half.'
  assert list(interval.ImageType) == ['DERIVED', 'SECONDARY', '', 'INTERVAL']
  assert list(doubt.ImageType) == ['DERIVED', 'SECONDARY', '', 'DOUBT']
  assert (interval.InstanceNumber, doubt.InstanceNumber) == (10_001, 20_001)
  assert interval.DerivationDescription == SHOWN.note


def test_doubt_of_a_capture_of_words_is_one_of_bytes(written):
  words = pydicom.uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
  half, mask = np.ones(LARGE, np.float32), np.zeros(LARGE, bool)
  interval, doubt, image = written(half, mask, bits=16, SOPClassUID=words, Modality='OT')
  assert interval.SOPClassUID == image.SOPClassUID == words
  assert doubt.SOPClassUID == pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
  assert doubt.SourceImageSequence[1].ReferencedSOPClassUID == words


def test_their_provenance_is_read_back(written, tmp_path):
  written(np.zeros(LARGE, np.float32), np.zeros(LARGE, bool))
  assert dicom_out.read_note(tmp_path / 'i.dcm') == SHOWN.note
  assert dicom_out.read_note(tmp_path / 'd.dcm') == NOTE + ' doubt'


@pytest.mark.skipif(not shutil.which('dciodvfy'), reason='dciodvfy is absent (Debian: dicom3tools)')
def test_dciodvfy_finds_no_error_that_the_source_does_not_have(tmp_path, shared):
  def errors(path):
    found = subprocess.run(['dciodvfy', '-new', path], capture_output=True, text=True, timeout=60)
    return {line for line in found.stderr.splitlines() if line.startswith('Error')}

  for source in sorted((shared / 'dicom').glob('*.dcm')):
    height, width, _ = image_files.check(source)
    half = np.ones((height, width), np.float32)
    args = (half.shape, source, METHOD, SHOWN)
    with dicom_maps.writing_half_widths(tmp_path / 'i.dcm', *args) as writer:
      writer.write(half)
    with dicom_maps.writing_mask(tmp_path / 'd.dcm', *args) as writer:
      writer.write(half > 2)
    for name in ('i.dcm', 'd.dcm'):
      assert errors(tmp_path / name) <= errors(source), (source.name, name)
