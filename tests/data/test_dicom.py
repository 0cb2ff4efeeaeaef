"""DICOM files made here, of every kind of gray, and real ones, against plain NumPy."""

import itertools
import logging
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder

from data.dicom_films import minimal as build
from data.dicom_films import ramp, save
from jaxsr.data import dicom_child, dicom_limits, image_files, sources
from jaxsr.errors import ImageError

KINDS = ('MONOCHROME1', 'MONOCHROME2')
IMPLICIT, EXPLICIT = uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian
CANARY = 'QXCANARYZ7'
NUMBER = '1234567890'  # as long as the canary, which takes its place where numbers are due
TOLD = ('PatientName', 'PatientID', 'InstitutionName', 'AccessionNumber', 'ImageComments')
PERSONAL = dict.fromkeys(TOLD, CANARY)


def expected(stored, *, bits, signed=False, inverted=False):
  """Spread stored values over the whole range of uint8 or uint16, by real numbers."""
  part = (stored + (2.0 ** (bits - 1) if signed else 0.0)) / (2.0**bits - 1)
  dtype = np.uint8 if bits <= 8 else np.uint16
  return np.rint((1 - part if inverted else part) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize('slope', [1, -10])
@pytest.mark.parametrize('bits', [8, 10, 12, 15, 16])
@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_each_stored_value_has_its_level_over_the_whole_range(tmp_path, kind, signed, bits, slope):
  stored = ramp(bits, signed, count=2**bits)
  ds = build(stored, bits=bits, signed=signed, kind=kind, RescaleSlope=slope, RescaleIntercept=7)
  path = save(tmp_path / 'film.dcm', ds, IMPLICIT if signed else EXPLICIT)
  found, inverted = image_files.read(path), (kind == 'MONOCHROME1') != (slope < 0)
  wanted = expected(stored, bits=bits, signed=signed, inverted=inverted)
  assert found.dtype == wanted.dtype
  np.testing.assert_array_equal(found[..., 0], wanted)
  assert len(np.unique(found)) == 2**bits
  assert (found.min(), found.max()) == (0, np.iinfo(found.dtype).max)
  assert image_files.check(path) == (*stored.shape, 8 * found.itemsize)
  np.testing.assert_array_equal(image_files.read(path, channels=3), np.repeat(found, 3, axis=2))


WAYS = {  # to store gray
  'kind': KINDS,
  'signed': (False, True),
  'bits': (8, 10, 12, 15, 16),
  'slope': (1, -10, 0.5, None),
  'syntax': (IMPLICIT, EXPLICIT, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
  + (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless),
  'frames': (None, 1),
  'window': (False, True),
  'overlay': (False, True),
}


def check_dicom(path, rng, *, kind, signed, bits, slope, syntax, frames, window, overlay):
  """Write and read one combination; returns False if pydicom does not write it."""
  stored = rng.permuted(ramp(bits, signed, count=4096).reshape(-1)).reshape(64, 64)
  ds = build(stored, bits=bits, signed=signed, kind=kind)
  if frames is not None:
    ds.NumberOfFrames = frames
  if slope is not None:
    ds.RescaleSlope, ds.RescaleIntercept = slope, 7
  if window:
    ds.WindowCenter, ds.WindowWidth = 100, 50
  if overlay and bits < 16 and ds.BitsAllocated == 16:
    ds.add_new((0x6000, 0x0102), 'US', bits)
    marked = stored & 2**bits - 1 | rng.integers(0, 2, stored.shape) << bits
    ds.PixelData = marked.astype('<u2').tobytes()
  if syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
    if (signed and bits not in (8, 16)) or overlay:
      return False  # encoders want their samples extended by the sign
    ds.compress(syntax)
  elif not syntax.is_little_endian:
    swapped = np.frombuffer(ds.PixelData, f'<u{ds.BitsAllocated // 8}').byteswap()
    ds.PixelData = swapped.tobytes()
    ds['PixelData'].VR = 'OW' if ds.BitsAllocated > 8 else 'OB'
  wanted = expected(
    stored, bits=bits, signed=signed, inverted=(kind == KINDS[0]) != ((slope or 1) < 0)
  )
  found = image_files.read(save(path, ds, syntax))[..., 0]
  np.testing.assert_array_equal(found, wanted)
  return True


@pytest.mark.parametrize('seed', range(2))
def test_gray_of_random_kinds_is_read_back(tmp_path, seed):
  rng = np.random.default_rng(seed)
  every = list(itertools.product(*WAYS.values()))
  read = 0
  for i in rng.choice(len(every), 250, replace=False):
    read += check_dicom(tmp_path / 'film.dcm', rng, **dict(zip(WAYS, every[i], strict=True)))
  assert read > 150


@pytest.mark.slow
def test_gray_of_every_kind_is_read_back(tmp_path, rng):
  every = [dict(zip(WAYS, way, strict=True)) for way in itertools.product(*WAYS.values())]
  assert sum(check_dicom(tmp_path / 'film.dcm', rng, **way) for way in every) > 2_000


def with_overlay(ds):
  """Store an overlay in bit 13 of the pixels."""
  ds.add_new((0x6000, 0x0102), 'US', 13)
  return ds


@pytest.mark.parametrize('signed', [False, True])
def test_an_overlay_above_the_stored_bits_is_ignored(tmp_path, rng, signed, capsys):
  stored = ramp(12, signed)
  dirty = stored & 0xFFF | rng.integers(1, 16, stored.shape) << 12
  one, two = build(stored, signed=signed), with_overlay(build(dirty, signed=signed))
  found = image_files.read(save(tmp_path / 'dirty.dcm', two))
  np.testing.assert_array_equal(found, image_files.read(save(tmp_path / 'clean.dcm', one)))
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('signed', [False, True])
def test_values_above_the_stored_bits_are_read_whole_and_named_once(tmp_path, signed, kind, capsys):
  stored = ramp(14, signed)
  path = save(tmp_path / 'film.dcm', build(stored, bits=10, signed=signed, kind=kind))
  found = [image_files.read(path) for _ in range(2)]
  wanted = expected(stored, bits=14, signed=signed, inverted=kind == 'MONOCHROME1')
  for each in found:
    np.testing.assert_array_equal(each[..., 0], wanted)
  assert capsys.readouterr().err.count('need 14 bits, BitsStored says 10') == 1


def test_signed_values_without_sign_extension_are_read(tmp_path, capsys):
  stored = ramp(12, signed=True)
  path = save(tmp_path / 'film.dcm', build(stored & 0xFFF, signed=True))
  wanted = expected(stored, bits=12, signed=True)
  np.testing.assert_array_equal(image_files.read(path)[..., 0], wanted)
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('syntax', [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize('count', [1, 11])
@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_padding_is_black_and_nothing_else_changes(tmp_path, kind, signed, count, syntax):
  stored = np.arange(1000, 1064).reshape(8, 8) - 2048 * signed
  first, last = (int(stored.flat[i]) for i in (20, 19 + count))
  ds = build(stored, signed=signed, kind=kind, PixelPaddingValue=first)
  if count > 1:
    ds.PixelPaddingRangeLimit = last
  wanted = expected(stored, bits=12, signed=signed, inverted=kind == 'MONOCHROME1')
  wanted[(stored >= first) & (stored <= last)] = 0
  found = image_files.read(save(tmp_path / 'film.dcm', ds, syntax))
  np.testing.assert_array_equal(found[..., 0], wanted)
  assert (found == 0).sum() == count


def look_up(table, *, first, depth):
  item = Dataset()
  item.LUTDescriptor, item.ModalityLUTType = [len(table), first, depth], 'US'
  item.LUTData = table.astype('<u2').tobytes()
  return {'ModalityLUTSequence': [item]}


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_a_modality_table_takes_the_place_of_the_slope(tmp_path, rng, kind, signed):
  stored, table = ramp(8, signed), rng.permutation(65536)[:100]
  first = -50 if signed else 20
  elements = look_up(table, first=first, depth=16) | {'RescaleSlope': -1, 'RescaleIntercept': 0}
  ds = build(stored, signed=signed, kind=kind, **elements)
  values = table[np.clip(stored - first, 0, 99)]
  found = image_files.read(save(tmp_path / 'film.dcm', ds))
  np.testing.assert_array_equal(found[..., 0], 65535 - values if kind == 'MONOCHROME1' else values)


@pytest.mark.parametrize('bits, depth', [(8, 8), (8, 16), (12, 8), (12, 16)])
def test_headers_tell_the_depth_of_the_pixels(tmp_path, bits, depth):
  elements = look_up(np.arange(64) << (depth - 8), first=0, depth=depth)
  path = save(tmp_path / 'film.dcm', build(ramp(6), bits=bits, **elements))
  assert image_files.check(path)[2] == 8 * image_files.read(path).itemsize


@pytest.mark.parametrize('syntax', ['RLELossless', 'JPEG2000Lossless', 'JPEGLSLossless'])
def test_lossless_compression_changes_nothing(tmp_path, rng, syntax):
  stored, syntax = rng.integers(0, 4096, (64, 64)), getattr(uid, syntax)
  if not get_encoder(syntax).is_available:
    pytest.skip(f'nothing here encodes {syntax.name}')
  (ds := build(stored)).compress(syntax)
  found = image_files.read(save(tmp_path / 'film.dcm', ds))
  np.testing.assert_array_equal(found[..., 0], expected(stored, bits=12))


REFUSED = {  # elements, and what is said
  'frames': ({'NumberOfFrames': 3}, 'holds 3 frames'),
  'rgb': ({'kind': 'RGB', 'PlanarConfiguration': 0}, r'is in color \(3 samples\)'),
  'palette': ({'kind': 'PALETTE COLOR'}, 'is in color'),
  'other kind': ({'kind': CANARY}, 'only MONOCHROME1 and MONOCHROME2'),
  'no image': ({'Rows': None, 'Columns': None}, 'without an image'),
  'no pixels': ({'PixelData': None}, 'lacks PixelData'),
  'no gray': ({'PhotometricInterpretation': None}, r'lacks Photometric.* \(0028,0004\)'),
  'no sign': ({'PixelRepresentation': None}, r'lacks PixelRepresentation \(0028,0103\)'),
  'high bit': ({'HighBit': 15}, '12 bits up to bit 15'),
  'huge': ({'Rows': 65535, 'Columns': 65535}, '65535x65535 pixels, more than'),
  'video': ({'syntax': uid.MPEG2MPML}, 'which is not supported'),
  'damaged': ({'syntax': uid.JPEG2000Lossless}, 'cannot be decoded'),
  'word for frames': ({'NumberOfFrames': NUMBER}, r'no number in NumberOfFrames \(0028,0008\)'),
  'word for slope': ({'RescaleSlope': NUMBER}, r'no number in RescaleSlope \(0028,1053\)'),
  'no syntax': ({}, 'film.dcm: '),
  'other syntax': ({}, 'film.dcm: '),
}


def spoil(path, kind):
  """Write a file that is refused for one reason; its text is full of the canary."""
  elements = PERSONAL | REFUSED[kind][0]
  syntax = elements.pop('syntax', EXPLICIT)
  ds = build(np.zeros((8, 8, 3)) if kind == 'rgb' else ramp(), **elements)
  ds.private_block(0x11, CANARY, create=True).add_new(1, 'LO', CANARY)
  if syntax != EXPLICIT:
    ds.PixelData = encapsulate([CANARY.encode() * 20])
    ds['PixelData'].VR, ds['PixelData'].is_undefined_length = 'OB', True
  content = save(path, ds, syntax).read_bytes().replace(NUMBER.encode(), CANARY.encode())
  if kind == 'no syntax':
    content = content.replace(b'\x02\x00\x10\x00UI', b'\x02\x00\x99\x00UI')  # an unknown element
  elif kind == 'other syntax':
    content = content.replace(f'{EXPLICIT}\0'.encode(), f'1.2.840.{CANARY}\0\0'.encode())
  path.write_bytes(content)


@pytest.mark.parametrize('kind', REFUSED)
def test_a_refusal_is_a_line_without_the_patient(tmp_path, kind, capfd, caplog, recwarn):
  path = tmp_path / 'film.dcm'
  spoil(path, kind)
  save(tmp_path / 'good.dcm', build(ramp(), **PERSONAL))
  tracemalloc.start()
  with pytest.raises(ImageError, match=REFUSED[kind][1]) as caught:
    image_files.read(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**24  # bytes; the huge one would take gigabytes
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)
  source = sources.Folder(tmp_path)
  assert 'good.dcm' in source.names
  told = [str(caught.value), *capfd.readouterr(), caplog.text, vars(source)]
  told += [caught.value.__cause__, *(w.message for w in recwarn)]
  assert CANARY in path.read_bytes().decode('latin1')
  assert CANARY not in ' '.join(map(str, told))


def test_files_that_are_cut_anywhere_and_random_bytes_are_refused(tmp_path, rng):
  whole = save(tmp_path / 'film.dcm', build(ramp(count=64))).read_bytes()
  cut = [whole[:length] for length in (*range(132, len(whole), 7), len(whole) - 1)]
  for content in cut + [whole[:132] + rng.bytes(rng.integers(2000)) for _ in range(100)]:
    (tmp_path / 'film.dcm').write_bytes(content)
    with pytest.raises(ImageError):
      image_files.read(tmp_path / 'film.dcm')


def test_a_missing_plug_in_is_named(tmp_path, monkeypatch):
  decoder = get_decoder(uid.JPEG2000Lossless)
  missing = {'one': ('first>=2', 'second>=3'), 'two': ('third>=4',)}
  monkeypatch.setattr(decoder, '_available', {})
  monkeypatch.setattr(decoder, '_unavailable', missing)
  spoil(tmp_path / 'film.dcm', 'damaged')
  for what in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match=r'first>=2 and second>=3.*third>=4.*jaxsr-xray\[dicom\]'):
      what(tmp_path / 'film.dcm')


@pytest.mark.parametrize(
  'kind', ['MediaStorageDirectoryStorage', 'BasicTextSRStorage', 'EncapsulatedPDFStorage']
)
def test_objects_without_an_image_are_passed_over_in_folders(tmp_path, capsys, kind):
  """But fail if they are named, and so do images that cannot be read."""
  ds = build(ramp(), SOPClassUID=getattr(uid, kind))
  del ds.Rows, ds.Columns, ds.PixelData
  for name in ('DICOMDIR', 'report.dcm'):
    save(tmp_path / name, ds)
  save(tmp_path / 'IM1', build(ramp()))
  save(tmp_path / 'broken.dcm', build(ramp(), Rows=None, Columns=None))
  os.mkfifo(tmp_path / 'pipe.dcm')
  found = image_files.find(tmp_path)
  assert [path.name for path in found] == ['IM1', 'broken.dcm', 'pipe.dcm']
  assert 'passed over 2 files, not images: DICOMDIR, report.dcm' in capsys.readouterr().err
  with pytest.raises(ImageError, match='without an image'):
    image_files.check(*image_files.find(tmp_path / 'report.dcm'))


def test_films_of_a_patient_share_an_identity_that_hides_whose(tmp_path):
  whose = {'a': 'Smith7', 'b.dcm': 'Smith7', 'c.DCM': 'Jones3', 'd': None, 'e': ''}
  for name, patient in whose.items():
    save(tmp_path / name, build(ramp(), **{} if patient is None else {'PatientID': patient}))
  (tmp_path / 'README').write_text('no image')
  source = sources.Folder(tmp_path)
  assert source.names == list(whose)
  assert source.identities[0] == source.identities[1]
  assert len(set(source.identities)) == 4
  assert 'Smith7' not in str(vars(source))


def test_an_identifier_that_is_too_long_is_taken_in_silence(tmp_path):
  long = pydicom.DataElement('PatientID', 'LO', CANARY * 10, validation_mode=0)
  (ds := build(ramp())).add(long)
  assert sources.Folder(save(tmp_path / 'film.dcm', ds)).names == ['film.dcm']


def test_threads_do_not_let_one_another_speak(tmp_path, recwarn, caplog):
  """What silences pydicom belongs to the process, and each thread that is done takes it away."""
  path = tmp_path / 'film.dcm'
  spoil(path, 'word for frames')
  level = logging.getLogger('pydicom').level

  def refused(number):
    with pytest.raises(ImageError):
      image_files.check(path)

  with ThreadPoolExecutor(8) as pool:
    list(pool.map(refused, range(200)))
  assert not recwarn.list and CANARY not in caplog.text
  assert logging.getLogger('pydicom').level == level


REAL = {  # height, width, bits
  'nih_chest.dcm': (1024, 1024, 8),
  'rsna_chest.dcm': (1024, 1024, 8),
  'txv_Fake_MONOHR1.dcm': (1024, 1024, 8),
  'RG1_JLSN.dcm': (1955, 1841, 16),
  'RG3_J2KR.dcm': (1760, 1760, 16),
}


@pytest.fixture(scope='module')
def real(shared):
  if not (shared / 'dicom').is_dir():
    pytest.skip(f'{shared / "dicom"} is absent (real DICOM files)')
  return shared / 'dicom'


@pytest.mark.parametrize('name', REAL)
def test_real_files_equal_pydicom(real, name):
  found, ds = image_files.read(real / name), pydicom.dcmread(real / name)
  inverted = ds.PhotometricInterpretation == 'MONOCHROME1'
  wanted = expected(ds.pixel_array.astype(int), bits=ds.BitsStored, inverted=inverted)
  np.testing.assert_array_equal(found[..., 0], wanted)
  assert image_files.check(real / name) == REAL[name] == (*found.shape[:2], 8 * found.itemsize)
  grid = expected(np.arange(2**ds.BitsStored), bits=ds.BitsStored)
  assert np.isin(found, grid).all()


def test_a_film_is_the_same_as_png_and_the_inverse_of_the_other_monochrome(real, shared):
  png = image_files.read(shared / 'nih' / 'train' / '00000002_000.png')
  found, one, two = (image_files.read(real / name) for name in list(REAL)[:3])
  np.testing.assert_array_equal(found, png)
  np.testing.assert_array_equal(one, 255 - two)


def jpeg(ds, stored, syntax, **options):
  """Put a JPEG stream of stored values, by imagecodecs, into a data set."""
  imagecodecs = pytest.importorskip('imagecodecs')
  bits = int(ds.BitsStored)
  array = (stored & (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
  content = imagecodecs.jpeg8_encode(array, bitspersample=bits, **options)
  ds.PixelData = encapsulate([content + b'\0' * (len(content) % 2)])
  ds['PixelData'].VR, ds['PixelData'].is_undefined_length = 'OB', True
  ds.file_meta.TransferSyntaxUID = syntax
  return ds


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('bits', [8, 10, 12, 15, 16])
@pytest.mark.parametrize('predictor', [1, 4, 7])
def test_lossless_jpeg_changes_nothing(tmp_path, rng, bits, predictor, signed):
  stored = rng.integers(0, 2**bits, (64, 48)) - 2 ** (bits - 1) * signed
  syntax = uid.JPEGLosslessSV1 if predictor == 1 else uid.JPEGLossless
  ds = jpeg(
    build(stored, bits=bits, signed=signed), stored, syntax, lossless=True, predictor=predictor
  )
  path = save(tmp_path / 'film.dcm', ds)
  wanted = expected(stored, bits=bits, signed=signed)
  np.testing.assert_array_equal(image_files.read(path)[..., 0], wanted)
  assert image_files.check(path) == (64, 48, 8 * wanted.itemsize)


def test_jpeg_of_twelve_bits_is_read(tmp_path, film):
  stored = film[..., 0].astype(np.int64) * 16
  ds = jpeg(build(stored), stored, uid.JPEGExtended12Bit, level=98)
  found = image_files.read(save(tmp_path / 'film.dcm', ds))
  assert np.abs(found[..., 0].astype(int) - expected(stored, bits=12)).max() <= 16 * 64


@pytest.mark.parametrize('syntax', [IMPLICIT, EXPLICIT, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize('name', ['film.dcm', 'film', 'IM0001', 'film.IMA', '1.2.840.1'])
def test_a_file_without_a_preamble_is_found_and_read(tmp_path, syntax, name):
  stored = ramp()
  ds = build(stored)
  del ds.file_meta
  little = syntax != uid.ExplicitVRBigEndian
  ds.PixelData = stored.astype('<u2' if little else '>u2').tobytes()
  ds.save_as(
    tmp_path / name, implicit_vr=syntax == IMPLICIT, little_endian=little, enforce_file_format=False
  )
  assert image_files.find(tmp_path) == [tmp_path / name]
  np.testing.assert_array_equal(
    image_files.read(tmp_path / name)[..., 0], expected(stored, bits=12)
  )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bits', [12, 16])
def test_padding_of_the_other_sign_is_black(tmp_path, kind, bits):
  """PixelPaddingValue is often written as unsigned beside signed pixels."""
  low = -(2 ** (bits - 1))
  stored = ramp(bits, signed=True)
  stored[0, :4] = low
  ds = build(stored, bits=bits, signed=True, kind=kind)
  ds.add(pydicom.DataElement('PixelPaddingValue', 'US', low + 2**16))
  wanted = expected(stored, bits=bits, signed=True, inverted=kind == 'MONOCHROME1')
  wanted[stored == low] = 0
  np.testing.assert_array_equal(image_files.read(save(tmp_path / 'a.dcm', ds))[..., 0], wanted)


def test_padding_above_the_stored_bits_does_not_widen_them(tmp_path, capsys):
  stored = ramp()
  stored[0, :3] = 65535
  path = save(tmp_path / 'film.dcm', build(stored, PixelPaddingValue=65535))
  wanted = expected(stored & 0xFFF, bits=12)
  wanted[0, :3] = 0
  np.testing.assert_array_equal(image_files.read(path)[..., 0], wanted)
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_a_modality_table_of_twelve_bits_is_stretched(tmp_path, rng, kind, packed):
  stored, table = ramp(12, count=4096), rng.permutation(4096)
  elements = look_up(table, first=0, depth=12)
  if not packed:
    del elements['ModalityLUTSequence'][0].LUTData
    elements['ModalityLUTSequence'][0].add_new('LUTData', 'US', table.tolist())
  found = image_files.read(save(tmp_path / 'film.dcm', build(stored, kind=kind, **elements)))
  wanted = expected(table[stored], bits=12, inverted=kind == 'MONOCHROME1')
  np.testing.assert_array_equal(found[..., 0], wanted)


def test_the_spacing_of_pixels_becomes_their_resolution(tmp_path):
  path = save(tmp_path / 'film.dcm', build(ramp(), ImagerPixelSpacing=[0.127, 0.254]))
  assert image_files.load(path)[1].dpi == pytest.approx((100, 200))


def test_deflated_files_are_read_and_a_bomb_is_not_inflated(tmp_path):
  ds = build(ramp())
  path = save(tmp_path / 'film.dcm', ds, uid.DeflatedExplicitVRLittleEndian)
  np.testing.assert_array_equal(image_files.read(path)[..., 0], expected(ramp(), bits=12))
  ds.PixelData = bytes(160 << 20)
  save(path, ds, uid.DeflatedExplicitVRLittleEndian)
  assert path.stat().st_size < 2**20
  del ds
  tracemalloc.start()
  for function in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match='inflates to more than 144 MiB'):
      function(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**24


def test_a_million_elements_are_not_parsed(tmp_path):
  """Be they plain, items of a sequence, or in a sequence that pydicom parses when it is used."""
  item, end = struct.pack('<HHI', 0xFFFE, 0xE000, 0), struct.pack('<HHI', 0xFFFE, 0xE0DD, 0)
  begin = struct.pack('<HH2sHI', 0x0008, 0x1140, b'SQ', 0, 0xFFFFFFFF)
  plain = struct.pack('<HH2sH', 0x0009, 0x1001, b'LO', 0)
  lazy = struct.pack('<HH2sHI', 0x0028, 0x3000, b'SQ', 0, len(item) * 10**6)
  content = save(tmp_path / 'film.dcm', build(ramp())).read_bytes()
  at = content.index(struct.pack('<HH', 0x0028, 0x0002))
  bad = tmp_path / 'bad.dcm'
  for inserted in (plain * 10**6, begin + item * 10**6 + end, lazy + item * 10**6):
    at = content.index(b'\xe0\x7f\x10\0') if inserted.startswith(lazy) else at
    bad.write_bytes(content[:at] + inserted + content[at:])
    begun = time.process_time()
    with pytest.raises(ImageError, match='no radiograph needs|than any radiograph needs'):
      image_files.check(bad)
    assert time.process_time() - begun < 3


def fill(ds, syntax, frame):
  """Give a radiograph these compressed pixels."""
  ds.PixelData = encapsulate([frame])
  ds['PixelData'].VR = 'OB'
  ds.file_meta.TransferSyntaxUID = syntax
  return ds


def rle(*segments):
  """Compose a frame of RLE from its segments."""
  starts = np.cumsum([64, *map(len, segments[:-1])])
  numbers = [len(segments), *starts, *[0] * (15 - len(segments))]
  return struct.pack('<16L', *numbers) + b''.join(segments)


def test_rle_is_decoded_in_little_time_and_memory_and_never_past_its_size(tmp_path):
  ds = build(ramp(16), bits=16)
  ds.Rows = ds.Columns = 4096
  zeros = b'\x81\0' * (4096 * 4096 // 128)
  path = save(tmp_path / 'large.dcm', fill(ds, uid.RLELossless, rle(zeros, zeros)))
  begun = time.process_time()
  assert image_files.read(path).shape == (4096, 4096, 1)
  assert time.process_time() - begun < 3
  ds.Rows = ds.Columns = 16
  tracemalloc.start()
  with pytest.raises(ImageError, match='cannot be decoded'):
    image_files.read(save(path, fill(ds, uid.RLELossless, rle(zeros, zeros))))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**23


@pytest.mark.parametrize('name', ['JPEGLSLossless', 'JPEG2000Lossless'])
def test_compressed_pixels_of_another_size_than_declared_are_not_decoded(
  tmp_path, name, monkeypatch
):
  syntax = getattr(uid, name)
  ds = build(ramp(count=64 * 64).reshape(64, 64))
  ds.compress(syntax, generate_instance_uid=False)
  path = save(tmp_path / 'film.dcm', ds)
  assert image_files.read(path).shape == (64, 64, 1)
  ds.Rows = 32
  monkeypatch.setattr(dicom_limits, '_ask', lambda _: pytest.fail('it was decoded'))
  with pytest.raises(ImageError, match='declares 64x32 pixels, but its compressed data has 64x64'):
    image_files.read(save(path, ds))


def test_a_decoder_that_crashes_costs_one_film(tmp_path):
  ds = build(ramp())
  ds.compress(uid.RLELossless, generate_instance_uid=False)
  path = save(tmp_path / 'film.dcm', ds)
  whole = image_files.read(path)
  dicom_limits._child.process.kill()
  dicom_limits._child.process.wait()
  np.testing.assert_array_equal(image_files.read(path), whole)  # a new child
  child = dicom_limits._child.started()
  child.send_signal(signal.SIGSTOP)
  threading.Timer(0.3, child.kill).start()
  with pytest.raises(ImageError, match='too much time or memory, or crashed'):
    image_files.read(path)
  np.testing.assert_array_equal(image_files.read(path), whole)


def test_the_child_has_limits_to_its_memory_and_time(monkeypatch):
  found = {}
  monkeypatch.setattr(dicom_child, '_lower', found.__setitem__)
  dicom_child._limit(10**6, 1000)
  assert found[resource.RLIMIT_CPU] < time.process_time() + 15
  assert found[resource.RLIMIT_AS] > 2**28
  code = (
    'from jaxsr.data import dicom_child as c; import numpy as np; c._limit(10**6, 1000)\n'
    'try: np.ones(2**27)\n'
    'except MemoryError: print("refused")'
  )
  ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert ran.stdout == 'refused\n'
