"""DICOM that says more bits, or other ones, than its values or its compressed data have."""

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import imagecodecs
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from data.dicom_films import build, minimal, ramp, save
from jaxsr.data import dicom_out, image_files, remarks
from jaxsr.data.decoded import Method
from jaxsr.errors import ImageError

LEVELS = {True: lambda share: 1 - share, False: lambda share: share}


@pytest.fixture(autouse=True)
def _no_remarks(monkeypatch):
  monkeypatch.setattr(remarks, '_paths', {})


def stretched(stored, bits, *, inverted=False):
  """Spread values from 0 to `2**bits - 1` over uint16, by real numbers."""
  return np.rint(LEVELS[inverted](stored / (2.0**bits - 1)) * 65535).astype(np.uint16)


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize(('said', 'held'), [(16, 12), (16, 14), (15, 12), (14, 10), (16, 8)])
def test_far_fewer_bits_than_stored_are_named_and_can_be_given(
  tmp_path, kind, said, held, signed, capsys
):
  stored, inverted = ramp(held), kind == 'MONOCHROME1'
  path = save(tmp_path / 'film.dcm', minimal(stored, bits=said, kind=kind, signed=signed))
  origin = 2 ** (said - 1) if signed else 0
  wanted = stretched(stored + origin, said, inverted=inverted)
  np.testing.assert_array_equal(image_files.read(path)[..., 0], wanted)
  assert f'its values need {held} bits in {said} bits' in (text := capsys.readouterr().err)
  assert f'use --bits {held}' in text
  found, told = image_files.read(path, bits=held), capsys.readouterr().err
  np.testing.assert_array_equal(found[..., 0], stretched(stored, held, inverted=inverted))
  assert image_files.check(path) == (*stored.shape, 16) and not told
  if held > 8:
    with pytest.raises(ImageError, match=f'need {held} bits, more than the {held - 1} bits that'):
      image_files.read(path, bits=held - 1)


def test_negative_values_of_few_bits_keep_their_sign(tmp_path, capsys):
  stored = ramp(12, signed=True)
  path = save(tmp_path / 'film.dcm', minimal(stored, bits=16, signed=True))
  image_files.read(path)
  assert 'need 12 bits in 16' in capsys.readouterr().err
  found = image_files.read(path, bits=12)[..., 0]
  np.testing.assert_array_equal(found, stretched(stored + 2048, 12))


def test_more_bits_than_stored_do_not_change_a_film(tmp_path, capsys):
  stored = ramp(12)
  path = save(tmp_path / 'film.dcm', minimal(stored))
  for bits in (0, 12, 16):
    np.testing.assert_array_equal(image_files.read(path, bits=bits)[..., 0], stretched(stored, 12))
  assert not capsys.readouterr().err


def test_a_table_of_few_bits_is_named_and_can_be_given(tmp_path, capsys):
  item, values = Dataset(), np.arange(4096)[::-1]
  item.add_new('LUTDescriptor', 'US', [4096, 0, 16])
  item.add_new('LUTData', 'OW', values.astype('<u2').tobytes())
  item.ModalityLUTType = 'US'
  stored = ramp(12)
  path = save(tmp_path / 'film.dcm', minimal(stored, ModalityLUTSequence=[item]))
  np.testing.assert_array_equal(image_files.read(path)[..., 0], 4095 - stored)
  assert 'need 12 bits in 16' in capsys.readouterr().err
  found = image_files.read(path, bits=12)[..., 0]
  np.testing.assert_array_equal(found, stretched(4095 - stored, 12))


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('table', [False, True])
def test_a_result_has_the_bits_that_were_named(tmp_path, signed, table):
  stored, elements = ramp(12), {}
  if table:
    item = Dataset()
    item.add_new('LUTDescriptor', 'US', [4096, 0, 16])
    item.add_new('LUTData', 'OW', np.arange(4096, dtype='<u2').tobytes())
    elements = {'ModalityLUTSequence': [item]}
  path = save(tmp_path / 'film.dcm', build(stored, bits=16, signed=signed, **elements))
  levels = image_files.read(path, bits=12)
  target = tmp_path / 'result.dcm'
  dicom_out.write(target, levels, path, Method('m', 'n', '1', bits=12))
  np.testing.assert_array_equal(image_files.read(target), levels)
  import pydicom

  found = pydicom.dcmread(target)
  assert (found.BitsStored, found.PixelRepresentation) == (12, 0)
  np.testing.assert_array_equal(found.pixel_array, stored)


def compressed(path, samples, syntax, *, declared, allocated=None, **elements):
  """Write a film whose compressed data has the type of `samples`, and which declares other bits."""
  encode = {
    uid.JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
      samples, level=0, reversible=True, codecformat='j2k'
    ),
    uid.JPEGLSLossless: lambda: imagecodecs.jpegls_encode(samples),
    uid.JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(
      samples, lossless=True, predictor=1, bitspersample=8 * samples.itemsize
    ),
    uid.JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(samples, level=100),
    uid.HTJ2KLossless: lambda: imagecodecs.htj2k_encode(samples, reversible=True),
  }
  film = minimal(samples, bits=declared, **elements)
  film.BitsAllocated = allocated or (8 if declared <= 8 else 16)
  film.PixelData = encapsulate([encode[syntax]()])
  return save(path, film, syntax)


EIGHT = (uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1, uid.JPEGExtended12Bit)


@pytest.mark.parametrize('declared', [12, 16])
@pytest.mark.parametrize('syntax', EIGHT)
def test_compressed_data_of_fewer_bits_decides(tmp_path, syntax, declared, capsys):
  samples = ramp(8).astype(np.uint8)
  path = compressed(tmp_path / 'film.dcm', samples, syntax, declared=declared)
  near = 257 if syntax == uid.JPEGExtended12Bit else 0  # with losses
  found = image_files.read(path)[..., 0].astype(int)
  assert np.abs(found - stretched(samples, 8)).max() <= near
  assert f'has 8 bits, BitsStored says {declared}' in capsys.readouterr().err
  found = image_files.read(path, bits=declared)[..., 0].astype(int)
  assert np.abs(found - stretched(samples, declared)).max() <= near


@pytest.mark.parametrize('syntax', [*EIGHT[:3], uid.HTJ2KLossless])
def test_compressed_data_of_more_bits_than_allocated_is_refused(tmp_path, syntax):
  samples = ramp(16).astype(np.uint16)
  path = compressed(tmp_path / 'film.dcm', samples, syntax, declared=8)
  with pytest.raises(ImageError, match=r'allocates 8 bits .* its compressed data has 16'):
    image_files.read(path)


@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('bits', [8, 16])
def test_signed_compressed_data_of_unsigned_values_is_refused(tmp_path, bits, kind):
  samples = ramp(bits, signed=True).astype(np.int8 if bits == 8 else np.int16)
  path = tmp_path / 'film.dcm'
  compressed(path, samples, uid.JPEG2000Lossless, declared=bits, kind=kind)
  with pytest.raises(ImageError, match=r'unsigned in PixelRepresentation .* data is signed'):
    image_files.read(path)


@pytest.mark.parametrize('syntax', EIGHT[1:3])
def test_signed_values_in_fewer_bits_without_a_sign_are_refused(tmp_path, syntax):
  samples = ramp(8).astype(np.uint8)
  path = compressed(tmp_path / 'film.dcm', samples, syntax, declared=16, signed=True)
  with pytest.raises(ImageError, match=r'stores 16 bits with a sign .* data has 8 without one'):
    image_files.read(path)
