"""Derived DICOM: its pixels against those that were written, and each rule of its elements."""

import datetime
import itertools
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from data.dicom_films import SIZE, add_overlay, build, ramp, save
from jaxsr.data import dicom_derived, dicom_out, dicom_rules, image_files
from jaxsr.data.decoded import Method
from jaxsr.errors import ImageError

NOTE = 'jaxsr 1; edsr x4; weights 0123; source 4567; for research, not for diagnosis'
METHOD = Method('edsr x4', NOTE, '1')
CANARY = 'QXCANARYZ7'


def enlarge(path, target, *, scale=4, method=METHOD, **options):
  """Repeat each pixel of a file, write that as DICOM, and return its data set."""
  image = image_files.read(path)
  sr = image.repeat(scale, 0).repeat(scale, 1)
  dicom_out.write(target, sr, path, method, **options)
  return pydicom.dcmread(target)


@pytest.fixture
def derived(tmp_path):
  """A function that makes a film with some elements and returns its derived data set."""

  def make(stored=None, *, scale=4, bits=12, **elements):
    source = build(ramp(bits) if stored is None else stored, bits=bits, **elements)
    return enlarge(save(tmp_path / 'a.dcm', source), tmp_path / 'b.dcm', scale=scale)

  return make


def save_big(path, ds):
  """Save a data set of little-endian words as big-endian."""

  def swap(ds):
    for element in ds:
      for item in element.value if element.VR == 'SQ' else ():
        swap(item)
      if isinstance(element.value, bytes):
        element.value = np.frombuffer(element.value, '<u2').astype('>u2').tobytes()

  swap(ds)
  ds.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
  ds.save_as(path, implicit_vr=False, little_endian=False)
  return path


def look_up_table(bits, signed, deep):
  item = Dataset()
  first = -(2 ** (bits - 1)) if signed else 0
  item.add_new(0x00283002, 'SS' if signed else 'US', [2**bits if bits < 16 else 0, first, deep])
  item.ModalityLUTType = 'US'
  table = np.linspace(0, 2**deep - 1, 2**bits).round().astype('<u2')
  item.add_new(0x00283006, 'OW', table.tobytes())
  return [item]


@pytest.mark.parametrize('bits', [8, 10, 12, 15, 16])
@pytest.mark.parametrize('signed', [False, True])
def test_each_kind_of_gray_reads_back_within_half_a_stored_step(tmp_path, signed, bits):
  random = np.random.default_rng(bits)
  marked = np.zeros(SIZE, bool)
  marked[2:5, 3:9] = True
  kinds, changes = ('MONOCHROME1', 'MONOCHROME2'), ('slope 1', 'slope -1', 'table')
  for kind, change, padded in itertools.product(kinds, changes, (False, True)):
    stored = ramp(bits, signed)
    ds = build(stored, bits=bits, signed=signed, kind=kind, ShutterShape='RECTANGULAR')
    ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge = 2, 23
    add_overlay(ds, marked)
    depth = bits
    if change == 'table':
      depth = max(9, bits - 1)
      ds.ModalityLUTSequence = look_up_table(bits, signed, depth)
    else:
      ds.RescaleSlope, ds.RescaleIntercept = change[6:], '5'
    if padded:
      ds.add_new(0x00280120, 'SS' if signed else 'US', int(stored[0, 0]))
    path = save(tmp_path / 'film.dcm', ds)
    levels = image_files.read(path)
    kind_of = levels.dtype
    peak = np.iinfo(kind_of).max
    sr = random.integers(0, peak + 1, (3 * SIZE[0], 2 * SIZE[1], 1)).astype(kind_of)
    dicom_out.write(tmp_path / 'out.dcm', sr, path, METHOD)
    found = image_files.read(tmp_path / 'out.dcm')
    mask = np.zeros(SIZE, bool)
    mask[0, 0] = padded
    mask = mask.repeat(3, 0).repeat(2, 1)[..., None]
    case = (kind, change, padded)
    assert found.dtype == kind_of and not found[mask].any(), case
    error = np.abs(found.astype(int) - sr)[~mask]
    step = peak / (2**depth - 1)
    moved = 1 if padded and change != 'table' else 0  # what would read as padding moves by a step
    assert np.percentile(error, 95) <= np.ceil(step / 2), case
    assert error.max() <= np.ceil(step / 2 + moved * step), case
    ds = pydicom.dcmread(tmp_path / 'out.dcm')
    np.testing.assert_array_equal(ds.overlay_array(0x6000), marked.repeat(3, 0).repeat(2, 1))
    assert (ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge) == (3, 46)
    assert ds.PhotometricInterpretation == kind and ds.BitsStored == depth


def test_pixels_are_black_where_the_source_has_padding(tmp_path):
  """A pixel that equals the padding value by chance is moved by one stored value, others are not.

  All padding gets that value, so values of the source's range no longer mean padding.
  """
  stored = np.full(SIZE, 2000)
  stored[:4] = 105
  path = save(tmp_path / 'a.dcm', build(stored, PixelPaddingValue=100, PixelPaddingRangeLimit=120))
  sr = image_files.read(path).repeat(2, 0).repeat(2, 1)
  sr[20, 20], sr[20, 21] = (round(value * 65535 / 4095) for value in (100, 110))
  dicom_out.write(tmp_path / 'b.dcm', sr, path, METHOD)
  ds = pydicom.dcmread(tmp_path / 'b.dcm')
  assert (ds.pixel_array[:8] == 100).all() and ds.PixelPaddingValue == 100
  assert ds.pixel_array[20, 20] == 101 and ds.pixel_array[20, 21] == 110
  assert (ds.pixel_array == 2000).sum() == 24 * 48 - 2 and 'PixelPaddingRangeLimit' not in ds


def test_padding_of_the_other_sign_is_written_with_that_of_the_pixels(tmp_path):
  stored = ramp(16, signed=True)
  ds = build(stored, bits=16, signed=True)
  ds.add_new('PixelPaddingValue', 'US', 2**15)
  found = enlarge(save(tmp_path / 'a.dcm', ds), tmp_path / 'b.dcm', scale=1)
  assert found.PixelPaddingValue == stored[0, 0] == found.pixel_array[0, 0] == -(2**15)


def test_values_of_more_bits_than_bits_stored_keep_them(derived):
  ds = derived(ramp(13), bits=12)
  assert ds.BitsStored == 13 and ds.HighBit == 12


@pytest.mark.parametrize('big', [False, True])
def test_the_output_of_a_modality_table_is_stored(tmp_path, big):
  source = build(ramp(), ModalityLUTSequence=look_up_table(12, False, 16))
  path = (save_big if big else save)(tmp_path / 'a.dcm', source)
  ds = enlarge(path, tmp_path / 'b.dcm')
  want = np.linspace(0, 65535, 4096).round()[ramp()]
  np.testing.assert_array_equal(ds.pixel_array, want.repeat(4, 0).repeat(4, 1))
  assert 'ModalityLUTSequence' not in ds and ds.BitsStored == 16
  assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, 0, 'US')


KEPT = {
  **{'StudyInstanceUID': '1.2', 'PatientID': 'p', 'PatientName': 'A^B', 'Modality': 'DX'},
  **{'Manufacturer': 'X', 'WindowCenter': '2048', 'WindowWidth': '4096', 'KVP': '120'},
  **{'FrameOfReferenceUID': '1.2.9', 'BurnedInAnnotation': 'YES', 'ImageLaterality': 'U'},
  **{'PhotometricInterpretation': 'MONOCHROME1', 'RescaleSlope': '-1', 'RescaleIntercept': '4095'},
  **{'InstanceNumber': 7, 'StudyDate': '20010203', 'AcquisitionDate': '20010203'},
}


def test_patient_study_acquisition_and_display_are_kept(derived):
  kind = KEPT['PhotometricInterpretation']
  ds = derived(kind=kind, **{k: v for k, v in KEPT.items() if k != 'PhotometricInterpretation'})
  assert {name: str(ds[name].value) for name in KEPT} == {k: str(v) for k, v in KEPT.items()}
  assert ds.SOPClassUID == uid.DigitalXRayImageStorageForPresentation


def test_what_is_burned_in_is_never_claimed(derived):
  assert 'BurnedInAnnotation' not in derived()


@pytest.mark.parametrize(
  ('name', 'value', 'wanted'),
  [
    ('PixelSpacing', ['0.7', '0.5'], [0.175, 0.125]),
    ('ImagerPixelSpacing', ['0.2', '0.1'], [0.05, 0.025]),
    ('NominalScannedPixelSpacing', ['0.2', '0.1'], [0.05, 0.025]),
    ('PresentationPixelSpacing', ['0.2', '0.1'], [0.05, 0.025]),
    ('ShutterLeftVerticalEdge', 5, 17),
    ('ShutterRightVerticalEdge', 24, 96),
    ('ShutterRightVerticalEdge', 2**31 - 1, 2**31 - 1),  # the largest that an element holds
    ('ShutterUpperHorizontalEdge', 1, 1),
    ('ShutterLowerHorizontalEdge', 16, 64),
    ('CollimatorLeftVerticalEdge', 5, 17),
    ('CollimatorRightVerticalEdge', 24, 96),
    ('CollimatorUpperHorizontalEdge', 2, 5),
    ('CollimatorLowerHorizontalEdge', 15, 60),
    ('CenterOfCircularShutter', [8, 12], [30, 46]),
    ('RadiusOfCircularShutter', 7, 28),
    ('CenterOfCircularCollimator', [8, 12], [30, 46]),
    ('RadiusOfCircularCollimator', 7, 28),
    ('VerticesOfThePolygonalShutter', [8, 12, 9, 13, 8, 13], [30, 46, 34, 50, 30, 50]),
    ('VerticesOfThePolygonalCollimator', [8, 12, 9, 13, 8, 13], [30, 46, 34, 50, 30, 50]),
  ],
)
def test_lengths_and_positions_follow_the_scale(derived, name, value, wanted):
  found = derived(**{name: value})[name].value
  assert (list(found) if isinstance(wanted, list) else found) == wanted


def test_a_fractional_scale_has_the_exact_spacing(tmp_path):
  path = save(tmp_path / 'a.dcm', build(ramp(), ShutterLowerHorizontalEdge=16))
  sr = np.zeros((40, 60, 1), np.uint16)
  dicom_out.write(tmp_path / 'b.dcm', sr, path, METHOD)
  ds = pydicom.dcmread(tmp_path / 'b.dcm')
  assert list(ds.PixelSpacing) == [0.28, 0.2] and ds.ShutterLowerHorizontalEdge == 40


def test_the_position_of_the_first_pixel_follows(derived):
  """A pixel of 0.7 by 0.5 mm becomes 16: the first center moves by 3/8 of a pixel."""
  orientation = ['1', '0', '0', '0', '1', '0']
  ds = derived(ImagePositionPatient=['10', '20', '30'], ImageOrientationPatient=orientation)
  assert np.allclose(np.array(ds.ImagePositionPatient, float), [10 - 0.1875, 20 - 0.2625, 30])


@pytest.mark.parametrize('big', [False, True])
def test_overlays_are_repeated_in_either_byte_order(tmp_path, big):
  plane = np.random.default_rng(0).random(SIZE) < 0.3
  ds = build(ramp())
  add_overlay(ds, plane)
  (save_big if big else save)(tmp_path / 'a.dcm', ds)
  ds = enlarge(tmp_path / 'a.dcm', tmp_path / 'b.dcm')
  np.testing.assert_array_equal(ds.overlay_array(0x6000), plane.repeat(4, 0).repeat(4, 1))
  np.testing.assert_array_equal(ds.pixel_array, ramp().repeat(4, 0).repeat(4, 1))
  assert (0x6000, 0x1301) not in ds


BROKEN = {
  'no rows': (0x10, None),
  '0 rows': (0x10, 0),
  'short': (0x3000, b'1234'),
  'text': (0x15, 'x'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_overlay_is_dropped_and_the_others_stay(tmp_path, kind):
  ds, plane = build(ramp()), np.random.default_rng(0).random(SIZE) < 0.3
  for group in (0x6000, 0x6002):
    add_overlay(ds, plane, group)
  ds[0x6002, 0x50].value = None  # the origin, which viewers take as 1 then
  element, value = BROKEN[kind]
  ds.add_new((0x6000, element), {0x15: 'LO', 0x3000: 'OW'}.get(element, 'US'), value)
  ds = enlarge(save(tmp_path / 'a.dcm', ds), tmp_path / 'b.dcm')
  assert not ds.group_dataset(0x6000)
  np.testing.assert_array_equal(ds.overlay_array(0x6002), plane.repeat(4, 0).repeat(4, 1))


def test_overlays_in_unused_bits_are_dropped(tmp_path):
  ds = build(ramp() | (np.indices(SIZE)[0] % 2 << 12))
  ds.add_new(0x60000010, 'US', SIZE[0])
  ds.add_new(0x60000102, 'US', 12)
  ds = enlarge(save(tmp_path / 'a.dcm', ds), tmp_path / 'b.dcm', scale=1)
  assert not ds.group_dataset(0x6000) and ds.BitsStored == 12
  np.testing.assert_array_equal(ds.pixel_array, ramp())


def test_it_says_from_what_and_how_it_was_derived(derived):
  ds = derived()
  assert list(ds.ImageType) == ['DERIVED', 'SECONDARY']
  assert NOTE in ds.DerivationDescription
  code = ds.DerivationCodeSequence[0]
  assert (code.CodeValue, code.CodingSchemeDesignator) == ('113085', 'DCM')
  (source,) = ds.SourceImageSequence
  assert source.ReferencedSOPInstanceUID == '1.2.3.4' and source.SpatialLocationsPreserved == 'YES'
  assert source.ReferencedSOPClassUID == ds.SOPClassUID
  assert source.PurposeOfReferenceCodeSequence[0].CodeValue == '121322'
  (item,) = ds.ContributingEquipmentSequence
  assert item.PurposeOfReferenceCodeSequence[0].CodeValue == '109102'
  assert item.Manufacturer == 'jaxsr' and item.ContributionDescription.startswith(NOTE)
  assert ds.SeriesDescription == 'Chest PA SR edsr x4, not for diagnosis' and ds.SeriesNumber == 304
  assert ds.InstanceNumber == 1


@pytest.mark.parametrize('compress', ['none', 'jpegls'])
def test_the_provenance_counts_until_the_file_is_edited(tmp_path, compress):
  path, source = tmp_path / 'b.dcm', save(tmp_path / 'a.dcm', build(ramp()))
  ds = enlarge(source, path, compress=compress)
  whole = path.read_bytes()
  assert image_files.read_note(path) == NOTE
  path.write_bytes(whole[:-50])
  assert image_files.read_note(path) == NOTE and not dicom_out.is_complete(path)
  path.write_bytes(whole + b'an editor was here')
  assert image_files.read_note(path) == ''
  ds.PhotometricInterpretation = 'MONOCHROME1'
  ds.save_as(path)
  assert image_files.read_note(path) == ''


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_text_that_is_not_of_its_character_set_is_kept_byte_by_byte(tmp_path, syntax):
  item = Dataset()
  item.CodeMeaning = 'Thorax QX'
  ds = build(
    ramp(), SpecificCharacterSet='ISO_IR 192', PatientName='QX^A', ProcedureCodeSequence=[item]
  )
  path = save(tmp_path / 'a.dcm', ds, syntax)
  path.write_bytes(path.read_bytes().replace(b'QX', b'M\xfc').replace(b'Chest', b'Ches\xfc'))
  found = enlarge(path, tmp_path / 'b.dcm')
  content = (tmp_path / 'b.dcm').read_bytes()
  assert content.count(b'M\xfc^A') == content.count(b'Thorax M\xfc ') == 1
  assert found.SeriesDescription == 'Ches PA SR edsr x4, not for diagnosis'


@pytest.mark.parametrize(
  ('name', 'valid', 'text', 'left'),
  [
    ('PixelSpacing', ['0.71', '0.51'], b'0,71\\0,51 ', None),
    ('ImagerPixelSpacing', ['0.71', '0.51'], b'nan\\0.51  ', None),
    ('ShutterLeftVerticalEdge', '5123', b'51px', None),
    ('ImagePositionPatient', ['5.1', '5.2', '5.3'], b'5.1\\5.2\\5mm ', None),
    ('SeriesNumber', '5123', b'No 3', 4),
    ('InstanceNumber', '5123', b'#123', 1),
    ('TimezoneOffsetFromUTC', '+0530', b'053000', None),
  ],
)
def test_text_in_place_of_a_number_does_not_stop_a_film(tmp_path, name, valid, text, left):
  orientation = ['1', '0', '0', '0', '1', '0'] if name == 'ImagePositionPatient' else None
  ds = build(ramp(), ImageOrientationPatient=orientation, **{name: valid})
  content = save(tmp_path / 'a.dcm', ds).read_bytes()
  written = ('\\'.join(valid) if isinstance(valid, list) else valid).encode()
  written += b' ' * (len(written) % 2)
  assert content.count(written) == 1
  (tmp_path / 'a.dcm').write_bytes(content.replace(written, text))
  assert enlarge(tmp_path / 'a.dcm', tmp_path / 'b.dcm').get(name) == left


def test_an_enhanced_object_is_refused_by_name(tmp_path):
  path = save(tmp_path / 'a.dcm', build(ramp(), SharedFunctionalGroupsSequence=[Dataset()]))
  with pytest.raises(ImageError, match='is an enhanced object .* use --format png'):
    enlarge(path, tmp_path / 'b.dcm')


def test_more_rows_than_dicom_counts_are_refused(tmp_path):
  path = save(tmp_path / 'a.dcm', build(ramp()))
  with pytest.raises(ImageError, match='24x65536 pixels; DICOM holds 65535 .* use --format png'):
    dicom_derived.derive(path, (65536, 24), METHOD)


def test_an_image_of_one_bit_is_refused_by_name(tmp_path):
  ds = build(np.zeros(SIZE, int), bits=1)
  ds.BitsAllocated, ds.PixelData = 1, bytes(SIZE[0] * SIZE[1] // 8)
  with pytest.raises(ImageError, match='has 1 bit per pixel, .* use --format png'):
    enlarge(save(tmp_path / 'a.dcm', ds), tmp_path / 'b.dcm')


def test_errors_of_pydicom_do_not_end_a_batch_and_quote_nothing(tmp_path, monkeypatch):
  def fail(*arguments):
    raise OSError(f'for data_element: {CANARY}')  # as pydicom's writer does

  monkeypatch.setattr(dicom_rules, 'mark_time', fail)
  with pytest.raises(ImageError) as error:
    enlarge(save(tmp_path / 'a.dcm', build(ramp())), tmp_path / 'b.dcm')
  assert str(error.value).endswith('derived DICOM (OSError); use --format png')
  monkeypatch.undo()
  monkeypatch.setattr(dicom_rules, 'mark_time', lambda *_: (tmp_path / 'absent').stat())
  with pytest.raises(FileNotFoundError):  # but errors of the disk do
    enlarge(tmp_path / 'a.dcm', tmp_path / 'b.dcm')


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize('kind', ['modality', 'none'])
def test_long_voi_tables_beside_signed_pixels_are_kept(tmp_path, syntax, kind):
  """pydicom reads their number of entries as negative."""
  item, table = Dataset(), np.arange(65535, dtype='<u2').tobytes()
  item.add_new(0x00283002, 'SS', [65535, 0, 16])
  item.add_new(0x00283006, 'OW', table)
  ds = build(ramp(signed=True), signed=True, VOILUTSequence=[item])
  if kind == 'modality':
    ds.ModalityLUTSequence = look_up_table(12, True, 16)
  found = enlarge(save(tmp_path / 'a.dcm', ds, syntax), tmp_path / 'b.dcm').VOILUTSequence[0]
  assert list(found.LUTDescriptor) == [65535, 0, 16] and found.LUTData == table
  signed = found['LUTDescriptor'].VR == 'SS'
  assert signed == (kind == 'none')


def test_junk_behind_the_pixels_and_an_empty_voi_table_stop_nothing(tmp_path):
  path = save(tmp_path / 'a.dcm', build(ramp(), VOILUTSequence=[Dataset()]))
  path.write_bytes(path.read_bytes() + 10 * CANARY.encode())
  found = enlarge(path, tmp_path / 'b.dcm')
  np.testing.assert_array_equal(found.pixel_array, ramp().repeat(4, 0).repeat(4, 1))
  assert CANARY.encode() not in (tmp_path / 'b.dcm').read_bytes()


def test_a_long_description_keeps_the_notice(derived):
  found = derived(SeriesDescription='c' * 64, ImageType=['ORIGINAL', 'PRIMARY', '', 'X'])
  assert len(found.SeriesDescription) == 64
  assert found.SeriesDescription.endswith('not for diagnosis')
  assert list(found.ImageType) == ['DERIVED', 'SECONDARY', '', 'X']


def test_a_description_of_many_bytes_is_cut_at_a_character(derived):
  found = derived(SpecificCharacterSet='ISO_IR 192', SeriesDescription='胸部' * 9)
  assert found.SeriesDescription == '胸部胸部胸部胸部胸部胸 SR edsr x4, not for diagnosis'
  assert len(found.SeriesDescription.encode()) <= 64


def test_earlier_equipment_stays_in_the_list(derived):
  earlier = Dataset()
  earlier.Manufacturer = 'X'
  found = derived(ContributingEquipmentSequence=[earlier]).ContributingEquipmentSequence
  assert [item.Manufacturer for item in found] == ['X', 'jaxsr']


def test_identifiers_are_functions_of_the_source_and_the_method(tmp_path):
  path, target = save(tmp_path / 'a.dcm', build(ramp())), tmp_path / 'b.dcm'

  def identifiers(note=NOTE, **elements):
    save(path, build(ramp(), **elements))
    ds = enlarge(path, target, method=Method('edsr x4', note, '1'))
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    return ds.SOPInstanceUID, ds.SeriesInstanceUID

  first = identifiers()
  assert identifiers() == first and first[0] != '1.2.3.4' and first[1] != '1.2.3'
  other_file = identifiers(NOTE.replace('4567', '4568'))
  assert other_file[0] != first[0] and other_file[1] == first[1]
  for note in (NOTE.replace('0123', '0124'), NOTE.replace('x4', 'x2'), NOTE.replace('r 1', 'r 2')):
    assert not set(identifiers(note)) & set(first)
  assert identifiers(SOPInstanceUID='1.2.3.5')[0] != first[0]
  assert identifiers(SeriesInstanceUID='1.2.4')[1] != first[1]


def test_dates_are_in_the_time_zone_of_the_source(derived):
  before = datetime.datetime.now(datetime.UTC)
  ds = derived(TimezoneOffsetFromUTC='+0530')
  found = datetime.datetime.strptime(f'{ds.ContentDate}{ds.ContentTime}+0530', '%Y%m%d%H%M%S.%f%z')
  assert before <= found <= datetime.datetime.now(datetime.UTC)
  assert (ds.SeriesDate, ds.InstanceCreationTime) == (ds.ContentDate, ds.ContentTime)
  assert ds.TimezoneOffsetFromUTC == '+0530'


@pytest.mark.parametrize(
  ('syntax', 'method'),
  [
    (uid.JPEGBaseline8Bit, 'ISO_10918_1'),
    (uid.JPEGExtended12Bit, 'ISO_10918_1'),
    (uid.JPEGLSNearLossless, 'ISO_14495_1'),
    (uid.JPEG2000, 'ISO_15444_1'),
  ],
)
def test_lossy_once_is_lossy_for_ever(syntax, method):
  ds = build(ramp())
  dicom_rules.keep_lossy(ds, syntax, raw_bytes=1000, stored_bytes=300)
  assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ('01', method)
  assert ds.LossyImageCompressionRatio == 3.33
  dicom_rules.keep_lossy(ds, syntax, raw_bytes=1000, stored_bytes=900)
  assert ds.LossyImageCompressionRatio == 3.33  # that of the source stays


def test_lossless_sources_are_not_called_lossy(derived):
  assert 'LossyImageCompression' not in derived()
  assert derived(LossyImageCompression='01').LossyImageCompression == '01'


def plant(ds, tag, kind):
  """Put the canary into an element, whatever its type is."""
  if kind == 'SQ':
    item = Dataset()
    item.PatientComments = CANARY
    ds.add_new(tag, 'SQ', [item])
  elif kind in ('OB', 'OW', 'UN'):
    ds.add_new(tag, kind, CANARY.encode())
  else:
    ds.add_new(tag, 'LO', CANARY)


def test_what_is_dropped_stands_nowhere_in_the_file(tmp_path):
  """Also not in the preamble, in the file's header, inside sequences or behind the pixels."""
  ds = build(ramp())
  nested = Dataset()
  private = [(0x0009, 0x0010), (0x0009, 0x1001), (0x0029, 0x0010), (0x5001, 0x0010)]
  private += [(0x0008, 0x9999), (0x0006, 0x0010)]  # public, but in no dictionary
  planted = [*private, (0x5000, 0x3000), (0x5000, 0x2500), (0xFFFC, 0xFFFC)]
  numeric = ('US', 'SS', 'UL', 'DA', 'TM', 'UI', 'OV', 'US or SS')
  for name in dicom_rules.DROPPED:
    kind, tag = pydicom.datadict.dictionary_VR(name), pydicom.tag.Tag(name)
    if name != 'PixelData' and kind not in numeric:
      plant(ds, tag, kind)
      planted.append(tag)
  for tag in planted[: len(private) + 3]:
    plant(ds, tag, 'OB' if tag[0] in (0x5000, 0xFFFC) and tag[1] != 0x2500 else 'LO')
  plant(nested, (0x0009, 0x1001), 'LO')
  plant(nested, pydicom.tag.Tag('DigitalSignaturesSequence'), 'SQ')
  ds.RequestAttributesSequence = [nested]
  ds.FileSetID = CANARY  # of a directory
  ds.PerformedProcedureStepStartDate, ds.SmallestImagePixelValue = '19991231', 0
  ds.InstanceCreatorUID, ds.PixelPaddingRangeLimit = '1.2.999999', 5
  ds.preamble = CANARY.encode().ljust(128, b'\0')
  ds.file_meta.PrivateInformationCreatorUID = '1.2.999999'
  ds.file_meta.PrivateInformation = CANARY.encode()
  ds.file_meta.SourceApplicationEntityTitle = CANARY
  path = save(tmp_path / 'a.dcm', ds)
  assert path.read_bytes().count(CANARY.encode()) >= len(planted)
  found = enlarge(path, tmp_path / 'b.dcm')
  content = (tmp_path / 'b.dcm').read_bytes()
  assert all(text not in content for text in (CANARY.encode(), b'19991231', b'1.2.999999'))
  left = {e.keyword for e in found.iterall()}
  assert not left & (set(dicom_rules.DROPPED) - {'PixelData'})
  assert not any(e.tag.is_private for e in found.iterall())


def test_a_patients_data_stand_once_where_they_stood(tmp_path):
  ds = build(ramp())
  for name in ('PatientName', 'PatientID', 'InstitutionName', 'AccessionNumber', 'ImageComments'):
    setattr(ds, name, CANARY)
  path = save(tmp_path / 'a.dcm', ds)
  enlarge(path, tmp_path / 'b.dcm')
  assert (tmp_path / 'b.dcm').read_bytes().count(CANARY.encode()) == 5


@pytest.mark.parametrize('bits', [8, 12, 16])
@pytest.mark.parametrize('signed', [False, True])
def test_compression_loses_nothing(tmp_path, bits, signed):
  path = save(tmp_path / 'a.dcm', build(ramp(bits, signed), bits=bits, signed=signed))
  want = enlarge(path, tmp_path / 'none.dcm')
  for name, syntax in (('jpegls', uid.JPEGLSLossless), ('j2k', uid.JPEG2000Lossless)):
    found = enlarge(path, tmp_path / f'{name}.dcm', compress=name)
    assert found.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(found.pixel_array, want.pixel_array)
    assert len(found.PixelData) < len(want.PixelData)
    assert 'LossyImageCompression' not in found
    assert found.SOPInstanceUID == want.SOPInstanceUID


def test_compression_takes_big_endian_sources_and_names_what_it_does_not(tmp_path):
  path = save_big(tmp_path / 'a.dcm', build(ramp()))
  found = enlarge(path, tmp_path / 'b.dcm', compress='jpegls').pixel_array
  np.testing.assert_array_equal(found, ramp().repeat(4, 0).repeat(4, 1))
  with pytest.raises(ImageError, match='24x16 pixels; --compress j2k takes at least 32 .* jpegls'):
    enlarge(path, tmp_path / 'c.dcm', scale=1, compress='j2k')
  assert not (tmp_path / 'c.dcm').exists()


def test_a_large_film_is_compressed_by_default(tmp_path, monkeypatch):
  path = save(tmp_path / 'a.dcm', build(ramp()))
  assert enlarge(path, tmp_path / 'b.dcm').file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
  monkeypatch.setattr(dicom_out, '_MOST_UNCOMPRESSED', 100)
  assert enlarge(path, tmp_path / 'c.dcm').file_meta.TransferSyntaxUID == uid.JPEGLSLossless
  monkeypatch.setattr(dicom_out, 'MAX_PIXELS', 100)  # it would have to be held in memory
  assert enlarge(path, tmp_path / 'd.dcm').file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


@pytest.mark.parametrize('name', sorted(dicom_rules.REQUIRED))
def test_a_missing_identifier_is_named(tmp_path, name):
  ds = build(ramp())
  ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
  ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
  delattr(ds, name)
  path = save(tmp_path / 'a.dcm', ds)
  with pytest.raises(ImageError, match=f'a.dcm: lacks {name} .*--format png'):
    enlarge(path, tmp_path / 'b.dcm')
  assert not (tmp_path / 'b.dcm').exists()


def test_rows_come_one_by_one(tmp_path):
  """Also with padding and an odd number of bytes."""
  stored = ramp(8)[:15, :23]
  path = save(tmp_path / 'a.dcm', build(stored, bits=8, PixelPaddingValue=7))
  want = enlarge(path, tmp_path / 'b.dcm', scale=3)
  sr = image_files.read(path).repeat(3, 0).repeat(3, 1)
  derived = dicom_derived.derive(path, sr.shape[:2], METHOD._replace(found='Much text.'))
  with dicom_out.writing(tmp_path / 'c.dcm', derived, None) as writer:
    for top in range(0, len(sr), 4):
      writer.write(sr[top : top + 4])
    writer.describe(METHOD._replace(found='Text.'))
  found = pydicom.dcmread(tmp_path / 'c.dcm')
  np.testing.assert_array_equal(found.pixel_array, want.pixel_array)
  assert len(found.PixelData) % 2 == 0 and found.DerivationDescription.endswith('. Text.')


def validator_errors(path):
  """Returns the errors that dciodvfy finds in a file."""
  found = subprocess.run(['dciodvfy', '-new', path], capture_output=True, text=True, timeout=60)
  return {line for line in found.stderr.splitlines() if line.startswith('Error')}


@pytest.mark.skipif(not shutil.which('dciodvfy'), reason='dciodvfy is absent (Debian: dicom3tools)')
def test_dciodvfy_finds_no_error_that_the_source_does_not_have(tmp_path, shared):
  sources = [*sorted((shared / 'dicom').glob('*.dcm')), save(tmp_path / 'a.dcm', build(ramp()))]
  for source in sources:
    enlarge(source, tmp_path / 'b.dcm', scale=1)
    assert validator_errors(tmp_path / 'b.dcm') <= validator_errors(source), source.name


@pytest.mark.skipif(not shutil.which('dcmftest'), reason='dcmftest is absent (Debian: dcmtk)')
def test_dcmtk_reads_the_files(tmp_path):
  path = save(tmp_path / 'a.dcm', build(ramp()))
  enlarge(path, tmp_path / 'b.dcm')
  for command in (['dcmftest'], ['dcm2pnm', '--write-raw-pnm', '--min-max-window']):
    tail = [] if len(command) == 1 else [tmp_path / 'b.pgm']
    done = subprocess.run([*command, tmp_path / 'b.dcm', *tail], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
  assert (tmp_path / 'b.pgm').read_bytes().startswith(b'P5\n96 64\n')


def test_real_films_read_back(tmp_path, shared):
  for source in sorted((shared / 'dicom').glob('*.dcm')):
    levels = image_files.read(source)
    dicom_out.write(tmp_path / 'b.dcm', levels, source, METHOD)
    found = image_files.read(tmp_path / 'b.dcm')
    ds = pydicom.dcmread(tmp_path / 'b.dcm', stop_before_pixels=True)
    step = np.iinfo(levels.dtype).max / (2**ds.BitsStored - 1)
    assert np.abs(found.astype(int) - levels).max() <= step / 2, source.name
    assert ds.get('LossyImageCompression') == ('00' if 'RG3' in source.name else '01') or (
      'nih' in source.name
    )
