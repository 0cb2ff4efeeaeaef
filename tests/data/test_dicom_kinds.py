"""DICOM whose elements are odd: look-up tables in each byte order, and refusals by name."""

import io
import itertools

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from jaxsr.data import image_files
from jaxsr.errors import ImageError

pydicom = pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

from data.dicom_films import SIZE, minimal  # noqa: E402

SYNTAXES = {
  'explicit': (uid.ExplicitVRLittleEndian, '<'),
  'implicit': (uid.ImplicitVRLittleEndian, '<'),
  'big endian': (uid.ExplicitVRBigEndian, '>'),
}


def with_table(stored, table, *, vr, declared, order, bits=12):
  """Make a film with a modality look-up table; `table` is uint8 or uint16."""
  ds = minimal(stored, bits=bits)
  ds.PixelData = stored.astype(f'{order}u2').tobytes()
  item = Dataset()
  item.add_new('LUTDescriptor', 'US', [len(table), 0, declared])
  item.ModalityLUTType = 'US'
  if vr == 'OW':  # words: two values of 8 bits each, the first one in the low byte
    words = table.view('<u2') if table.itemsize == 1 else table
    item.add_new('LUTData', 'OW', words.astype(f'{order}u2').tobytes())
  else:
    item.add_new('LUTData', 'US', table.tolist())
  ds.ModalityLUTSequence = [item]
  return ds


def stretch(values, bits):
  peak = 255 if bits <= 8 else 65535
  return (values.astype(np.int64) * peak + (2**bits - 1) // 2) // (2**bits - 1)


def test_look_up_tables_are_applied_in_every_byte_order(tmp_path, rng):
  stored = rng.integers(0, 4096, SIZE, np.uint16)
  cases = itertools.product(SYNTAXES, ('OW', 'US'), (7, 8, 10, 12, 16), (False, True))
  for syntax, vr, depth, packed in cases:
    if packed and (depth > 8 or vr == 'US'):
      continue
    table = rng.integers(0, 2**depth, 4096).astype(np.uint8 if packed else np.uint16)
    ds = with_table(stored, table, vr=vr, declared=depth, order=SYNTAXES[syntax][1])
    ds.file_meta.TransferSyntaxUID = SYNTAXES[syntax][0]
    ds.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    found = image_files.read_stored(tmp_path / 'a.dcm')
    wanted = stretch(table[stored], depth)
    np.testing.assert_array_equal(found, wanted, err_msg=str((syntax, vr, depth, packed)))
    assert image_files.check(tmp_path / 'a.dcm') == (*SIZE, 8 if depth <= 8 else 16)


@pytest.mark.parametrize('declared', [8, 12])
def test_values_above_the_declared_bits_of_a_table_are_taken_whole(tmp_path, rng, capsys, declared):
  stored, table = rng.integers(0, 4096, SIZE, np.uint16), np.arange(4096, dtype=np.uint16) * 16
  ds = with_table(stored, table, vr='US', declared=declared, order='<')
  ds.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'a.dcm'), table[stored])
  assert image_files.check(tmp_path / 'a.dcm') == (*SIZE, 16)
  assert f'values of 16 bits and declares {declared}' in capsys.readouterr().err


def refused(ds, path, reason):
  ds.save_as(path, enforce_file_format=True)
  with pytest.raises(ImageError, match=reason) as caught:
    image_files.read(path)
  assert '\n' not in str(caught.value)


def test_refusals_name_the_element(tmp_path, rng):
  stored, path = rng.integers(0, 4096, SIZE, np.uint16), tmp_path / 'a.dcm'
  ds = minimal(stored)
  ds.PixelData = ds.PixelData[:-100]
  refused(ds, path, r'is truncated \(668 of 768 bytes of pixels\)')
  refused(minimal(stored, BitsAllocated=12), path, r'allocates 12 bits \(0028,0100\)')
  ds = minimal(stored)
  ds.add_new('PixelPaddingValue', 'US', [0, 5])
  refused(ds, path, r'several values in PixelPaddingValue \(0028,0120\)')
  ds = minimal(stored, ModalityLUTSequence=[Dataset()])
  refused(ds, path, 'a modality look-up table without LUTDescriptor or LUTData')
  ds = minimal(stored, PresentationLUTShape='INVERSE')
  refused(ds, path, r'MONOCHROME2 with PresentationLUTShape \(2050,0020\) INVERSE')


def test_the_usual_shapes_of_the_presentation_table_are_read(tmp_path, rng):
  stored = rng.integers(0, 4096, SIZE, np.uint16)
  for kind, shape in (('MONOCHROME1', 'INVERSE'), ('MONOCHROME2', 'IDENTITY')):
    ds = minimal(stored, kind=kind, PresentationLUTShape=shape)
    ds.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    wanted = stretch(4095 - stored if kind == 'MONOCHROME1' else stored, 12)
    np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'a.dcm'), wanted)


@pytest.mark.parametrize('kind', ['baseline', 'lossless'])
def test_damage_of_jpeg_inside_dicom_is_refused(tmp_path, film, kind):
  gray = film[..., 0]
  if kind == 'baseline':
    file = io.BytesIO()
    Image.fromarray(gray).save(file, 'JPEG', quality=95)
    content, syntax = file.getvalue(), uid.JPEGBaseline8Bit
    wanted = np.asarray(Image.open(file))
  else:
    content, syntax = imagecodecs.jpeg8_encode(gray, lossless=True), uid.JPEGLosslessSV1
    wanted = gray
  for end in (len(content), 2 * len(content) // 3):
    ds = minimal(gray, bits=8)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([content[:end] + b'\xff\xd9'])
    ds['PixelData'].is_undefined_length, ds['PixelData'].VR = True, 'OB'
    ds.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    if end == len(content):
      np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'a.dcm'), wanted)
    else:
      with pytest.raises(ImageError, match='missing or overwritten'):
        image_files.read(tmp_path / 'a.dcm')
