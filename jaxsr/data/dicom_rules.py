"""How the data set of an enlarged radiograph follows from that of its source.

The result is a copy of the source's own kind of object (CR, DX, ...), not a Secondary Capture, so
that patient, study, projection, laterality, windows and calibration stay. Each function changes one
group of elements of a pydicom data set in place; `docs/dicom.md` has the table of these rules.
"""

import datetime
import functools
from typing import Any

import numpy as np
from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_has_tag, keyword_for_tag, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, format_number_as_ds

from jaxsr.data import seal
from jaxsr.data.decoded import Method
from jaxsr.data.dicom_geometry import Sizes, numbers
from jaxsr.data.dicom_values import FUNCTIONAL_GROUPS
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
  *('LargestPixelValueInSeries', 'SmallestImagePixelValueInPlane', 'LargestImagePixelValueInPlane'),
  *('SmallestValidPixelValue', 'LargestValidPixelValue', 'PixelPaddingRangeLimit'),
  *('IconImageSequence', 'HistogramSequence', 'PixelData', 'LengthToEnd', 'ImageLocation'),
  *('PixelDataProviderURL', 'ExtendedOffsetTable', 'ExtendedOffsetTableLengths'),
  *('MACParametersSequence', 'DigitalSignaturesSequence', 'EncryptedAttributesSequence'),
  *('DisplayedAreaSelectionSequence', 'GraphicAnnotationSequence'),  # of presentation states
  *('DataSetTrailingPadding', 'InstanceCreatorUID', 'StorageMediaFileSetID'),
  *('StorageMediaFileSetUID', 'RetrieveAETitle', 'RetrieveURI', 'InstanceAvailability'),
  *('ReferencedPerformedProcedureStepSequence', 'PerformedProcedureStepStartDate'),
  *('PerformedProcedureStepStartTime', 'PerformedProcedureStepEndDate'),
  *('PerformedProcedureStepEndTime', 'PerformedProcedureStepID'),
  *('PerformedProcedureStepDescription', 'PerformedProtocolCodeSequence'),
  'CommentsOnThePerformedProcedureStep',
)
_OF_DATA_SETS = 0x0008  # the first group; the others are of messages, file headers and directories
_LOSSY = {  # compressions that change pixels, with the terms of LossyImageCompressionMethod
  '1.2.840.10008.1.2.4.50': 'ISO_10918_1',
  '1.2.840.10008.1.2.4.51': 'ISO_10918_1',
  '1.2.840.10008.1.2.4.81': 'ISO_14495_1',
  '1.2.840.10008.1.2.4.91': 'ISO_15444_1',
  '1.2.840.10008.1.2.4.203': 'ISO_15444_15',
}
_WORDS = {'OW': 2, 'OF': 4, 'OL': 4, 'OD': 8, 'OV': 8}  # bytes per value
_LONGEST = 64  # characters of SeriesDescription, and bytes, which some programs count
MOST = 1024  # characters of a short text
_LARGEST = 2**31 - 1  # of an integer string
_PROCESSING = ('109102', 'Processing Equipment')
NAME = 'jaxsr'


def check(dataset: Any, path: Any) -> None:
  """Raise ImageError if the source lacks an identifier, or is of a kind without rules here."""
  if missing := [name for name in REQUIRED if not dataset.get(name)]:
    named = ', '.join(f'{name} ({REQUIRED[name]})' for name in missing)
    raise ImageError(path, f'lacks {named}, which a derived DICOM needs; use --format png')
  if found := [name for name in FUNCTIONAL_GROUPS if name in dataset]:
    reason = f'is an enhanced object (it has {found[0]}), whose geometry is not scaled'
    raise ImageError(path, f'{reason}; use --format png')
  if int(dataset.BitsAllocated) == 1:
    reason = 'has 1 bit per pixel, of which no derived DICOM is made'
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

  Elements of messages, file headers and directories do not belong into a data set either.
  Text that is not of its character set is kept byte by byte, which pydicom would replace.
  """
  for tag in sorted(dataset.keys()):
    raw, name = dataset.get_item(tag), keyword_for_tag(tag)
    is_known = tag.element != 0 and (dictionary_has_tag(tag) or repeater_has_tag(tag))
    is_foreign = tag.group < _OF_DATA_SETS or 0x5000 <= tag.group < 0x5100
    if tag.is_private or not is_known or is_foreign or name in DROPPED:
      del dataset[tag]
    elif (element := dataset[tag]).VR == 'SQ':
      for item in element.value or ():
        clean(item)
    elif element.VR in CUSTOMIZABLE_CHARSET_VR and '\ufffd' in str(element.value):
      dataset[tag] = DataElement(tag, element.VR, _Verbatim(raw.value), already_converted=True)


def keep_voi_tables(dataset: Any, *, signed: bool) -> None:
  """Write the descriptors of VOI tables for pixels of this sign, with unsigned numbers of entries.

  Beside signed pixels they may be read as negative, which pydicom refuses to write.
  """
  for item in dataset.get('VOILUTSequence') or ():
    if 'LUTDescriptor' not in item or item['LUTDescriptor'].VM != 3:
      continue
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
  dataset.SeriesDescription = _series_description(dataset, method)
  number = int((numbers(dataset, 'SeriesNumber') or [0])[0])
  new = 100 * number + round(sizes.ratios[0])
  dataset.SeriesNumber = new if abs(new) <= _LARGEST else number
  dataset.InstanceNumber = int((numbers(dataset, 'InstanceNumber') or [1])[0])


def _series_description(dataset: Any, method: Method) -> str:
  """Returns that of the source, cut so that the text behind it fits in, also as bytes."""
  end = f'SR {method.name}, not for diagnosis'[:_LONGEST]
  start = dataset.get('SeriesDescription') or ''
  start = start.decode('ascii', 'ignore') if isinstance(start, bytes) else str(start)
  encodings = convert_encodings(dataset.get('SpecificCharacterSet') or '')
  while start and len(encode_string(f'{start} {end}', encodings)) > _LONGEST:
    start = start[:-1]
  return f'{start.rstrip()} {end}'.strip()


def describe(method: Method) -> str:
  """Returns the sentences of the derivation's description."""
  return f'Super-resolution by {method.note}. {method.found}'[:MOST].strip()


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
  item.ContributionDescription = seal.opened(method.note, MOST)
  found = list(dataset.get('ContributingEquipmentSequence') or ())
  dataset.ContributingEquipmentSequence = [*found, item]


def read_note(dataset: Any) -> str:
  """Returns the provenance, with its digest, of a file that this program made last; else ''."""
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
