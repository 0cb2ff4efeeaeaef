"""How the data set of an enlarged radiograph follows from that of its source.

The result is a copy of the source's own kind of object (CR, DX, ...), not a Secondary Capture, so
that patient, study, projection, laterality, windows and calibration stay. Each function changes one
group of elements of a pydicom data set in place; `docs/dicom.md` has the table of these rules.
"""

import datetime
import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from pydicom.datadict import dictionary_has_tag, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, format_number_as_ds

from jaxsr.data.decoded import Method
from jaxsr.errors import ImageError

REQUIRED = {
  'SOPClassUID': '0008,0016',
  'SOPInstanceUID': '0008,0018',
  'StudyInstanceUID': '0020,000D',
  'SeriesInstanceUID': '0020,000E',
}
# Elements that describe the source's pixels, its file, or the procedure step that made it.
DROPPED = (
  *('SmallestImagePixelValue', 'LargestImagePixelValue', 'SmallestPixelValueInSeries'),
  *('LargestPixelValueInSeries', 'IconImageSequence', 'HistogramSequence', 'PixelData'),
  *('PixelDataProviderURL', 'ExtendedOffsetTable', 'ExtendedOffsetTableLengths'),
  *('MACParametersSequence', 'DigitalSignaturesSequence', 'EncryptedAttributesSequence'),
  *('DataSetTrailingPadding', 'InstanceCreatorUID', 'StorageMediaFileSetID'),
  *('StorageMediaFileSetUID', 'RetrieveAETitle', 'RetrieveURI', 'InstanceAvailability'),
  *('ReferencedPerformedProcedureStepSequence', 'PerformedProcedureStepStartDate'),
  *('PerformedProcedureStepStartTime', 'PerformedProcedureStepEndDate'),
  *('PerformedProcedureStepEndTime', 'PerformedProcedureStepID'),
  *('PerformedProcedureStepDescription', 'PerformedProtocolCodeSequence'),
)
_FUNCTIONAL = ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')
_STATISTICS = (0x1301, 0x1302, 0x1303)  # of an overlay's region, in pixels
_SPACINGS = (
  *('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing'),
  'PresentationPixelSpacing',
)
_ENDS = {'LeftVertical': 1, 'RightVertical': 1, 'UpperHorizontal': 0, 'LowerHorizontal': 0}
_RADII = ('RadiusOfCircularShutter', 'RadiusOfCircularCollimator')
_POINTS = (
  *('CenterOfCircularShutter', 'CenterOfCircularCollimator'),
  *('VerticesOfThePolygonalShutter', 'VerticesOfThePolygonalCollimator'),
)
_LOSSY = {  # compressions that change pixels, with the terms of LossyImageCompressionMethod
  '1.2.840.10008.1.2.4.50': 'ISO_10918_1',
  '1.2.840.10008.1.2.4.51': 'ISO_10918_1',
  '1.2.840.10008.1.2.4.81': 'ISO_14495_1',
  '1.2.840.10008.1.2.4.91': 'ISO_15444_1',
  '1.2.840.10008.1.2.4.203': 'ISO_15444_15',
}
_WORDS = {'OW': 2, 'OF': 4, 'OL': 4, 'OD': 8, 'OV': 8}  # bytes per value
_LONGEST = 64  # characters of SeriesDescription
_LARGEST = 2**31 - 1  # of an integer string
_PROCESSING = ('109102', 'Processing Equipment')
NAME = 'jaxsr'


class Sizes(NamedTuple):
  """Height and width in pixels of the source and of the result."""

  source: tuple[int, int]
  result: tuple[int, int]

  @property
  def ratios(self) -> tuple[Fraction, Fraction]:
    """Result pixels per source pixel, down and across."""
    (h, w), (tall, wide) = self
    return Fraction(tall, h), Fraction(wide, w)


def check(dataset: Any, path: Any) -> None:
  """Raise ImageError if the source lacks an identifier, or is of a kind without rules here."""
  if missing := [name for name in REQUIRED if not dataset.get(name)]:
    named = ', '.join(f'{name} ({REQUIRED[name]})' for name in missing)
    raise ImageError(path, f'lacks {named}, which a derived DICOM needs; use --format png')
  if found := [name for name in _FUNCTIONAL if name in dataset]:
    reason = f'is an enhanced object (it has {found[0]}), whose geometry is not scaled'
    raise ImageError(path, f'{reason}; use --format png')


def to_little_endian(dataset: Any) -> Dataset:
  """Returns a copy of a big-endian data set with swapped binary values, which pydicom leaves."""
  new = Dataset()
  for element in dataset:
    if element.VR == 'SQ':
      element.value = [to_little_endian(item) for item in element.value]
    elif element.VR in _WORDS and isinstance(element.value, bytes):
      element.value = np.frombuffer(element.value, f'u{_WORDS[element.VR]}').byteswap().tobytes()
    new.add(element)
  return new


class _Verbatim(bytes):
  """Text that cannot be decoded and is written as it is; pydicom calls `encode` for names."""

  def encode(self, encodings: Any) -> bytes:
    return self


def clean(dataset: Any) -> None:
  """Delete private and unknown elements, curves, group lengths and `DROPPED`, also in sequences.

  Text that is not of its character set is kept byte by byte, which pydicom would replace.
  """
  for tag in sorted(dataset.keys()):
    raw, element = dataset.get_item(tag), dataset[tag]
    is_known = tag.element != 0 and (dictionary_has_tag(tag) or repeater_has_tag(tag))
    is_curve = 0x5000 <= tag.group < 0x5100
    if tag.is_private or not is_known or is_curve or element.keyword in DROPPED:
      del dataset[tag]
    elif element.VR == 'SQ':
      for item in element.value or ():
        clean(item)
    elif element.VR in CUSTOMIZABLE_CHARSET_VR and '\ufffd' in str(element.value):
      dataset[tag] = DataElement(tag, element.VR, _Verbatim(raw.value), already_converted=True)


def scale_geometry(dataset: Any, sizes: Sizes) -> None:
  """Divide spacings, and multiply positions in pixels."""
  down, across = sizes.ratios
  _shift_position(dataset, sizes)
  for name in _SPACINGS:
    if values := _numbers(dataset, name):
      pair = zip(values, (down, across), strict=False)
      setattr(dataset, name, [format_number_as_ds(v / float(r)) for v, r in pair])
  for kind in ('Shutter', 'Collimator'):
    for end, axis in _ENDS.items():
      rule = _first if end in ('LeftVertical', 'UpperHorizontal') else _last
      _replace(dataset, f'{kind}{end}Edge', lambda n, i, a=axis, f=rule: f(n, sizes.ratios[a]))
  for name in _POINTS:  # row, column, row, column, ...
    _replace(dataset, name, lambda n, i: _center(n, sizes.ratios[i % 2]))
  for name in _RADII:
    _replace(dataset, name, lambda n, i: round(n * down))


def _replace(dataset: Any, name: str, rule: Callable[[int, int], int]) -> None:
  """Replace each integer of an element, if it is there, by a function of it and its index."""
  if new := [rule(int(n), i) for i, n in enumerate(_numbers(dataset, name))]:
    setattr(dataset, name, new if len(new) > 1 else new[0])


def _numbers(dataset: Any, name: str) -> list[float]:
  """Returns the numbers of an element; one with other text in it means nothing and is dropped."""
  value = dataset.get(name)
  if value is None or value == '':
    return []
  try:
    found = [float(n) for n in ([value] if isinstance(value, str | int | float) else value)]
  except (TypeError, ValueError):
    found = [math.nan]
  if np.isfinite(found).all():
    return found
  del dataset[name]
  return []


def _first(n: int, ratio: Fraction) -> int:
  """Returns the first of the pixels that source pixel n, counted from 1, becomes."""
  return math.floor(ratio * (n - 1)) + 1


def _last(n: int, ratio: Fraction) -> int:
  return math.ceil(ratio * n)


def _center(n: int, ratio: Fraction) -> int:
  half = Fraction(1, 2)
  return round(ratio * (n - half) + half)


def _shift_position(dataset: Any, sizes: Sizes) -> None:
  """Move the position of the first pixel's center, in mm, which smaller pixels change."""
  names = ('ImagePositionPatient', 'ImageOrientationPatient', 'PixelSpacing')
  position, directions, spacing = (_numbers(dataset, name) for name in names)
  if (len(position), len(directions), len(spacing)) != (3, 6, 2):
    return
  moved = np.array(position)
  row, column = np.array(directions).reshape(2, 3)
  for direction, step, ratio in zip((column, row), spacing, sizes.ratios, strict=True):
    moved += direction * step * float(1 / ratio - 1) / 2
  dataset.ImagePositionPatient = [format_number_as_ds(float(value)) for value in moved]


def scale_overlays(dataset: Any, sizes: Sizes) -> None:
  """Repeat the bits of overlay planes; drop overlays that lie in unused bits of the pixels."""
  for group in range(0x6000, 0x6100, 2):
    data, rows, columns = (dataset.get((group, n)) for n in (0x3000, 0x0010, 0x0011))
    if data is None or rows is None or columns is None:
      for element in list(dataset.group_dataset(group)):
        del dataset[element.tag]
      continue
    for n in _STATISTICS:
      dataset.pop((group, n), None)
    shape = (rows.value, columns.value)
    bits = np.unpackbits(np.frombuffer(data.value, np.uint8), bitorder='little')
    frames = int(getattr(dataset.get((group, 0x0015)), 'value', None) or 1)
    planes = bits[: frames * math.prod(shape)].reshape(frames, *shape)
    new = tuple(round(n * ratio) for n, ratio in zip(shape, sizes.ratios, strict=True))
    planes = planes[:, nearest(shape[0], new[0])][:, :, nearest(shape[1], new[1])]
    packed = np.packbits(planes.ravel(), bitorder='little').tobytes()
    rows.value, columns.value = new
    dataset.add_new((group, 0x3000), 'OW', packed + bytes(len(packed) % 2))
    dataset.add_new((group, 0x0100), 'US', 1)
    dataset.add_new((group, 0x0102), 'US', 0)
    if origin := dataset.get((group, 0x0050)):
      pair = zip(origin.value, sizes.ratios, strict=True)
      origin.value = [_first(int(n), ratio) for n, ratio in pair]


def nearest(source: int, result: int) -> np.ndarray:
  """Returns the source pixel of each result pixel along one axis."""
  return np.arange(result) * source // result


def keep_voi_tables(dataset: Any, *, signed: bool) -> None:
  """Write the descriptors of VOI tables for pixels of this sign, with unsigned numbers of entries.

  Beside signed pixels they may be read as negative, which pydicom refuses to write.
  """
  for item in dataset.get('VOILUTSequence') or ():
    count, first, bits = (int(value) % 2**16 for value in item.LUTDescriptor)
    first -= 2**16 if signed and first >= 2**15 else 0
    item.add_new('LUTDescriptor', 'SS' if signed else 'US', [count, first, bits])


def keep_lossy(dataset: Any, syntax: str, *, raw_bytes: int, stored_bytes: int) -> None:
  """Mark the pixels as lossy if the transfer syntax of the source is, even if its tags do not."""
  if syntax in _LOSSY:
    dataset.LossyImageCompression = '01'
    if not dataset.get('LossyImageCompressionMethod'):
      dataset.LossyImageCompressionMethod = _LOSSY[syntax]
    if not dataset.get('LossyImageCompressionRatio'):
      ratio = format_number_as_ds(round(raw_bytes / max(1, stored_bytes), 2))
      dataset.LossyImageCompressionRatio = ratio


def mark_derived(dataset: Any, method: Method, sizes: Sizes) -> None:
  """Set new UIDs, and the elements that describe the source and how the image was derived."""
  dataset.SourceImageSequence = [source_item(dataset)]
  kind = list(dataset.get('ImageType') or ['ORIGINAL', 'PRIMARY'])
  dataset.ImageType = ['DERIVED', 'SECONDARY', *kind[2:]]
  dataset.DerivationDescription = describe(method)
  dataset.DerivationCodeSequence = [_code('113085', 'Spatial resampling')]
  dataset.SOPInstanceUID = new_uid('instance', dataset.SOPInstanceUID, method.note)
  # Without the hashes of files, so that the films of one series stay together.
  parts = method.note.split('; ')
  shared = '; '.join(part for part in parts if not part.startswith(('source ', 'pixels ')))
  dataset.SeriesInstanceUID = new_uid('series', dataset.SeriesInstanceUID, shared)
  end = f'SR {method.name}, not for diagnosis'[:_LONGEST]
  found = dataset.get('SeriesDescription') or ''
  found = found.decode('ascii', 'ignore') if isinstance(found, bytes) else str(found)
  start = found[: max(0, _LONGEST - len(end) - 1)]
  dataset.SeriesDescription = f'{start} {end}'.strip()
  number = int((_numbers(dataset, 'SeriesNumber') or [0])[0])
  new = 100 * number + round(sizes.ratios[0])
  dataset.SeriesNumber = new if abs(new) <= _LARGEST else number
  dataset.InstanceNumber = int((_numbers(dataset, 'InstanceNumber') or [1])[0])


def describe(method: Method) -> str:
  """Returns the sentences of the derivation's description."""
  return f'Super-resolution by {method.note}. {method.found}'[:1024].strip()


def mark_time(dataset: Any, now: datetime.datetime) -> None:
  """Set the dates of creation, in the time zone that the source's own dates and times have."""
  if found := dataset.get('TimezoneOffsetFromUTC'):
    try:
      now = now.astimezone(datetime.datetime.strptime(str(found), '%z').tzinfo)
    except ValueError:
      del dataset.TimezoneOffsetFromUTC
  times = {'InstanceCreation': now, 'Content': now, 'Series': _start().astimezone(now.tzinfo)}
  for name, time in times.items():
    setattr(dataset, f'{name}Date', f'{time:%Y%m%d}')
    setattr(dataset, f'{name}Time', f'{time:%H%M%S.%f}')


@functools.cache
def _start() -> datetime.datetime:
  """Returns when the first image of this process was derived, for all images of a series."""
  return datetime.datetime.now().astimezone()


def add_equipment(dataset: Any, method: Method, now: datetime.datetime) -> None:
  """Add this program to the equipment that contributed, whose list the source may have begun."""
  item = Dataset()
  item.PurposeOfReferenceCodeSequence = [_code(*_PROCESSING)]
  item.Manufacturer, item.ManufacturerModelName = NAME, method.name[:64]
  item.SoftwareVersions = f'{NAME} {method.version}'
  item.ContributionDateTime = f'{now:%Y%m%d%H%M%S.%f%z}'
  item.ContributionDescription = method.note[:1024]
  found = list(dataset.get('ContributingEquipmentSequence') or ())
  dataset.ContributingEquipmentSequence = [*found, item]


def read_note(dataset: Any) -> str:
  """Returns the provenance of a file whose pixels this program wrote last; else ''."""
  found = dataset.get('ContributingEquipmentSequence')
  last = found[-1] if found else Dataset()
  return str(last.get('ContributionDescription', '')) if last.get('Manufacturer') == NAME else ''


def source_item(dataset: Any) -> Dataset:
  """Returns the reference to an image that another one of the same geometry is derived from."""
  item = Dataset()
  item.ReferencedSOPClassUID = dataset.SOPClassUID
  item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
  item.SpatialLocationsPreserved = 'YES'
  item.PurposeOfReferenceCodeSequence = [
    _code('121322', 'Source image for image processing operation')
  ]
  return item


def new_uid(*parts: object) -> UID:
  """Returns an identifier that is a function of the parts."""
  return generate_uid(entropy_srcs=[str(part) for part in parts])


def _code(value: str, meaning: str) -> Dataset:
  item = Dataset()
  item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, 'DCM', meaning
  return item
