"""DICOM whose elements are odd: look-up tables in each byte order, and refusals by name."""

import io
import itertools
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import jaxsr
from jaxsr.data import dicom, image_files
from jaxsr.errors import ImageError

pydicom = pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

from data.dicom_films import SIZE, build, minimal  # noqa: E402

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


@pytest.mark.parametrize(
  ('count', 'kept', 'declared'),
  [
    (4096, 4095, 12),
    (4096, 2048, 12),
    (4096, 4000, 10),
    (256, 255, 8),
    (256, 128, 8),
    (256, 90, 8),
  ],
)
def test_a_look_up_table_that_was_cut_is_refused(tmp_path, count, kept, declared):
  stored = np.zeros(SIZE, np.uint16)
  table = (np.arange(count) * (2**declared - 1) // (count - 1)).astype(np.uint16)
  ds = with_table(stored, table, vr='OW', declared=declared, order='<')
  item = ds.ModalityLUTSequence[0]
  item.LUTData = item.LUTData[: 2 * kept]
  refused(ds, tmp_path / 'a.dcm', 'look-up table that is cut off')


@pytest.mark.parametrize('content', [b'', None])
def test_empty_pixels_are_refused(tmp_path, content):
  ds = minimal(np.zeros(SIZE, np.uint16))
  ds.PixelData = content
  refused(ds, tmp_path / 'a.dcm', r'empty PixelData \(7FE0,0010\)')


@pytest.mark.parametrize('name', ['Rows', 'BitsStored', 'SamplesPerPixel', 'PixelRepresentation'])
def test_an_empty_element_is_a_missing_one(tmp_path, name):
  ds = minimal(np.zeros(SIZE, np.uint16))
  ds[name].value = None
  refused(ds, tmp_path / 'a.dcm', f'is DICOM that lacks {name}')


@pytest.mark.parametrize('kind', [b'XW', b'FD'])
def test_an_element_whose_type_was_overwritten_is_named_by_all_readers(tmp_path, kind):
  path, source, private = tmp_path / 'a.dcm', np.zeros(SIZE, np.uint16), 'P1'
  ds = build(source, PatientID=private)
  ds.save_as(path, enforce_file_format=True)
  content = path.read_bytes()
  readers = (
    image_files.read,
    image_files.check,
    image_files.patient,
    dicom.may_be_chest,
    lambda like: jaxsr.write(tmp_path / 'b.dcm', source, like=like),
  )
  for name in ('PatientID', 'Modality', 'BodyPartExamined', 'ViewPosition', 'PixelSpacing'):
    tag, raw = pydicom.tag.Tag(name), ds[name].VR.encode()
    start = struct.pack('<HH', tag.group, tag.element)
    assert content.count(start + raw) == 1
    path.write_bytes(content.replace(start + raw, start + kind))
    if name == 'PixelSpacing' and kind == b'FD':
      continue  # a number that means something else
    for reader in readers:
      with pytest.raises(ImageError, match=f'a damaged element: {name}') as caught:
        reader(path)
      assert 'XW' not in str(caught.value)
      assert private not in caught.value.reason


def test_pixels_whose_type_was_overwritten_are_refused(tmp_path):
  path = tmp_path / 'a.dcm'
  minimal(np.zeros(SIZE, np.uint16)).save_as(path, enforce_file_format=True)
  content, start = path.read_bytes(), struct.pack('<HH', 0x7FE0, 0x10)
  for kind in (b'XW', b'FD', b'SQ', b'US', b'UT'):
    path.write_bytes(content.replace(start + b'OW', start + kind))
    with pytest.raises(ImageError, match='PixelData'):
      image_files.read(path)


def test_errors_of_pydicom_are_replaced(tmp_path):
  with pytest.raises(ImageError, match='has damaged elements') as caught, dicom.silent(tmp_path):
    raise NotImplementedError('P1')
  assert 'P1' not in str(caught.value)
  with pytest.raises(OSError, match='full'), dicom.silent(tmp_path):
    raise OSError(28, 'full')


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


@pytest.mark.parametrize('group', ['SharedFunctional', 'PerFrameFunctional'])
def test_the_slope_of_an_enhanced_object_is_applied(tmp_path, rng, group):
  stored = rng.integers(0, 4096, SIZE, np.uint16)
  ds, transform, groups = minimal(stored), Dataset(), Dataset()
  transform.RescaleSlope, transform.RescaleIntercept = -1, 4095
  groups.PixelValueTransformationSequence = [transform]
  setattr(ds, f'{group}GroupsSequence', [groups])
  ds.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
  found = image_files.read_stored(tmp_path / 'a.dcm')
  np.testing.assert_array_equal(found, stretch(4095 - stored, 12))


def compressed(ds, content, syntax):
  ds.file_meta.TransferSyntaxUID = syntax
  ds.PixelData = encapsulate([content])
  ds['PixelData'].is_undefined_length, ds['PixelData'].VR = True, 'OB'
  return ds


def test_color_under_a_kind_of_gray_is_refused_by_name(tmp_path, film):
  color = np.dstack([film[..., 0], film[::-1, :, 0], film[..., 0]])
  for syntax, content in (
    (uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(color)),
    (uid.JPEGLSLossless, imagecodecs.jpegls_encode(color)),
    (uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(color, codecformat='j2k')),
  ):
    ds = compressed(minimal(film[..., 0], bits=8), content, syntax)
    refused(ds, tmp_path / 'a.dcm', r'is MONOCHROME2, but .* in color \(3 samples per pixel\)')


@pytest.mark.parametrize('name', ['RLE', 'JPEG', 'lossless JPEG', 'JPEG-LS', 'JPEG 2000'])
def test_damaged_compressed_pixels_are_refused(tmp_path, film, name, rng):
  gray = np.repeat(film[..., 0].astype(np.uint16), 2, axis=1) * 16
  gray += rng.integers(0, 16, gray.shape, np.uint16)
  if name == 'RLE':
    ds = minimal(gray)
    ds.compress(uid.RLELossless, generate_instance_uid=False)
  elif name == 'JPEG':
    content = imagecodecs.jpeg8_encode((gray >> 4).astype(np.uint8))
    ds = compressed(minimal((gray >> 4).astype(np.uint8), bits=8), content, uid.JPEGBaseline8Bit)
  else:
    encode, syntax = {
      'lossless JPEG': (lambda x: imagecodecs.ljpeg_encode(x, bitspersample=12), 'JPEGLosslessSV1'),
      'JPEG-LS': (imagecodecs.jpegls_encode, 'JPEGLSLossless'),
      'JPEG 2000': (lambda x: imagecodecs.jpeg2k_encode(x, codecformat='j2k'), 'JPEG2000Lossless'),
    }[name]
    ds = compressed(minimal(gray), encode(gray), getattr(uid, syntax))
  path = tmp_path / 'a.dcm'
  ds.save_as(path, enforce_file_format=True)
  whole, true = path.read_bytes(), image_files.read(path)
  start = whole.rindex(b'\xe0\x7f\x10\x00OB')
  item = whole.index(b'\xfe\xff\x00\xe0', start + 20) + 4  # behind the table of offsets
  size = int.from_bytes(whole[item : item + 4], 'little')
  damaged = [whole[: int(rng.integers(start + 12, len(whole)))] for _ in range(4)]
  for change in rng.integers(-size // 2, 60, 4):
    damaged.append(whole[:item] + int(size + change).to_bytes(4, 'little') + whole[item + 4 :])
  for share in (0.3, 0.9):  # a shorter fragment that ends as it should
    end = item + 4 + 2 * int(share * size / 2)
    damaged.append(
      whole[:item] + (end - item - 4).to_bytes(4, 'little') + whole[item + 4 : end] + whole[-8:]
    )
  for content in damaged:
    path.write_bytes(content)
    try:
      np.testing.assert_array_equal(image_files.read(path), true)
    except ImageError as error:
      assert any(word in error.reason for word in ('cannot be decoded', 'is truncated'))


@pytest.mark.parametrize('tail', [b'\xff' * 1000, bytes(3), bytes(9 * 2**20), b'text ' * 99])
@pytest.mark.parametrize('syntax', ['explicit', 'implicit', 'big endian', 'RLE'])
def test_bytes_behind_the_pixels_are_ignored(tmp_path, rng, tail, syntax):
  stored = rng.integers(0, 4096, SIZE)
  ds, path = build(stored), tmp_path / 'a.dcm'
  if syntax == 'RLE':
    ds.compress(uid.RLELossless)
  else:
    ds.file_meta.TransferSyntaxUID, order = SYNTAXES[syntax]
    ds.PixelData = stored.astype(f'{order}u2').tobytes()
  ds.save_as(path, enforce_file_format=True)
  wanted = image_files.read(path)
  assert len(np.unique(wanted)) > 300
  path.write_bytes(path.read_bytes() + tail)
  np.testing.assert_array_equal(image_files.read(path), wanted)
  assert image_files.check(path) == (*SIZE, 16)
  jaxsr.write(tmp_path / 'b.dcm', wanted[..., 0], like=path)
  np.testing.assert_array_equal(jaxsr.read(tmp_path / 'b.dcm'), wanted[..., 0])
