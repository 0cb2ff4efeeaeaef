"""Read DICOM radiographs: one gray frame at its full depth, brighter where more was absorbed.

Stored values are read without VOI windows, which are for display. The modality's rescale, of which
only the sign matters for a radiograph, or its look-up table comes first; MONOCHROME1, whose
smallest value is white, is inverted. The range of `BitsStored` bits is then stretched to uint8 if
it has at most eight bits, else to uint16: 4095 of 12 bits becomes 65535, without loss. Padding
becomes black.

The only patient data that is read is the identifier, of which a hash is kept in memory to tell
which images show the same patient. Error messages name the file and never an element's value.
"""

import hashlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxsr.data import bit_depth, dicom_limits, dicom_values
from jaxsr.data.decoded import MAX_PIXELS, Decoded
from jaxsr.data.dicom_limits import File, Unsupported
from jaxsr.errors import ImageError, UserError

SUFFIXES = ('.dcm', '.dicom', '.ima')
_MAGIC_AT, _MAGIC = 128, b'DICM'
_HEADER = 1024  # bytes that hold the kind of object
_KIND = b'\x02\x00\x02\x00UI'  # MediaStorageSOPClassUID; its length and value follow
_DOCUMENTS = (
  b'1.2.840.10008.1.3.10',  # the directory of a medium (DICOMDIR)
  b'1.2.840.10008.5.1.4.1.1.11.',  # presentation states
  b'1.2.840.10008.5.1.4.1.1.88.',  # structured reports and key objects
  b'1.2.840.10008.5.1.4.1.1.104.',  # PDF and other documents
)
_GROUPS = (b'\x02\x00', b'\x08\x00')  # the first group of a file without the preamble
_BIG_ENDIAN_GROUP = b'\x00\x08'
_VALUE_TYPES = (b'UL', b'UI', b'CS', b'DA', b'TM', b'LO', b'SH', b'OB', b'DT', b'IS', b'US')
_LONGEST = 256  # bytes of such a file's first element
_GRAY = ('MONOCHROME1', 'MONOCHROME2')
_REQUIRED = {
  'SamplesPerPixel': '0028,0002',
  'PhotometricInterpretation': '0028,0004',
  'Rows': '0028,0010',
  'Columns': '0028,0011',
  'BitsAllocated': '0028,0100',
  'BitsStored': '0028,0101',
  'PixelRepresentation': '0028,0103',
}
_SINGLE = (*_REQUIRED, 'HighBit', 'NumberOfFrames', 'PixelPaddingValue', 'PixelPaddingRangeLimit')
_SINGLE += ('RescaleSlope', 'RescaleIntercept', 'PresentationLUTShape')
_TEXTS = ('PhotometricInterpretation', 'PresentationLUTShape')
_OTHERS = ('PatientID', 'PixelSpacing', 'ImagerPixelSpacing', 'PixelData')  # that are used here
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # as floats, as doubles, as integers
_ALLOCATED = (1, 8, 16, 32)
_CHEST = {  # values that a radiograph of the chest may have; without an element it may be one
  'Modality': ('CR', 'DX', 'DR', 'RG', 'RF', 'OT'),
  'BodyPartExamined': (
    'CHEST',
    'THORAX',
    'LUNG',
    'LUNGS',
    'RIB',
    'RIBS',
    'CHESTABDOMEN',
    'PORTCHEST',
  ),
  'ViewPosition': (
    *('PA', 'AP', 'LL', 'RL', 'LLD', 'RLD', 'LLO', 'RLO', 'LAT', 'LATERAL', 'LEFTLATERAL'),
    *('RIGHTLATERAL', 'RAO', 'LAO', 'RPO', 'LPO', 'APSUPINE', 'SUPINE', 'ERECT'),
  ),
}
_ONE_AT_A_TIME = threading.Lock()


def recognize(file: File) -> bool:
  """Whether a file is DICOM, by its preamble or its first element; keeps the position."""
  place = file.tell()
  head = file.read(_MAGIC_AT + len(_MAGIC))
  file.seek(place)
  return head[_MAGIC_AT:] == _MAGIC or _begins_with_element(head)


def is_dicom(path: Path) -> bool:
  """Whether a file can be opened and is DICOM."""
  try:
    if not path.is_file():
      return False
    with path.open('rb') as file:
      return recognize(file)
  except OSError:
    return False


def is_document(path: Path) -> bool:
  """Whether the header of a file says that it is DICOM of a kind without an image."""
  try:
    if not path.is_file():  # a pipe would wait for its writer
      return False
    with path.open('rb') as file:
      head = file.read(_HEADER)
  except OSError:
    return False
  _, found, kind = head[_MAGIC_AT + len(_MAGIC) :].partition(_KIND)
  return head[_MAGIC_AT:].startswith(_MAGIC) and bool(found) and kind[2:].startswith(_DOCUMENTS)


def _begins_with_element(head: bytes) -> bool:
  """Whether a file begins with an element of DICOM's first groups, as those without preamble do."""
  is_big_endian = head.startswith(_BIG_ENDIAN_GROUP)
  if len(head) < _MAGIC_AT or not (is_big_endian or head[:2] in _GROUPS):
    return False
  if is_big_endian or head[4:6].isalpha():
    return head[4:6] in _VALUE_TYPES
  return int.from_bytes(head[4:8], 'little') <= _LONGEST and head[2:4] <= b'\x70\x00'


def check(file: File, path: Path) -> tuple[int, int, int]:
  """Check a header without decoding pixels.

  Returns the height, the width and the bits per pixel, 8 or 16. Raises ImageError for color, for
  several frames, for a compression that cannot be decoded here, and for files without an image.
  """
  with silent(path):
    dataset = header(file, path, stop=True)
    _check_compression(dataset, path)
    height, width = int(dataset.Rows), int(dataset.Columns)
    deep = dicom_values.depth(dataset) > 8
    may_be_deep = int(dataset.BitsStored) <= 8 < int(dataset.BitsAllocated)
  if may_be_deep and not deep and height * width <= MAX_PIXELS:
    file.seek(0)
    deep = read(file, path).pixels.itemsize > 1  # values may exceed BitsStored
  return height, width, 16 if deep else 8


def read(file: File, path: Path, bits: int = 0) -> Decoded:
  """Decode a file; raises ImageError as `check` does, and if the pixels are damaged.

  `bits` is the number of bits that values have if `BitsStored` says more, 0 to trust it.
  """
  with silent(path):
    dataset = header(file, path, stop=False)
    _check_compression(dataset, path)
    _check_pixels(dataset, path)
    try:
      levels, found = dicom_values.levels(dataset, bits)
      if found.few:
        bit_depth.name_few(path, f'need {found.few} bits', found.bits, found.few)
      dpi = _resolution(dataset)
      return Decoded(levels[..., None], exact=True, dpi=dpi, remarks=found.remarks)
    except Unsupported as error:
      raise ImageError(path, str(error)) from None
    except Exception:  # pydicom's texts may quote elements
      reason = 'cannot be decoded (its pixels, or its look-up table, contradict its header)'
      raise ImageError(path, reason) from None


def patient(path: Path) -> str:
  """Returns a hash of the patient's identifier, or of the path if there is no identifier."""
  with path.open('rb') as file, silent(path):
    dataset = header(file, path, stop=True)
    found = str(dataset.get('PatientID', '')) or str(path.resolve())
  return hashlib.sha256(found.encode(errors='surrogateescape')).hexdigest()[:16]


def may_be_chest(path: Path) -> bool:
  """Whether a file may be a radiograph of the chest; only DICOM can say that it is not."""
  if not is_dicom(path):
    return True
  with path.open('rb') as file, silent(path):
    dataset = header(file, path, stop=True)
  return all(
    not (found := ''.join(filter(str.isalnum, str(dataset.get(name) or '').upper())))
    or found in known
    for name, known in _CHEST.items()
  )


@contextmanager
def silent(path: Path) -> Iterator[None]:
  """Suppress pydicom's warnings and log, and replace its errors: all of them quote elements.

  Warning filters belong to the process, so one thread at a time reads DICOM: a thread that
  finishes would otherwise restore the filters while another one still reads.
  """
  with _ONE_AT_A_TIME, warnings.catch_warnings():
    warnings.simplefilter('ignore')
    _import_pydicom(path)  # before the level is changed: importing pydicom sets it
    log = logging.getLogger('pydicom')
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
      yield
    except (UserError, MemoryError):
      raise
    except Exception as error:
      if isinstance(error, OSError) and error.errno is not None:  # of the disk; pydicom's have none
        raise
      raise ImageError(path, 'has damaged elements; fetch it again') from None
    finally:
      log.setLevel(level)


def _import_pydicom(path: Path) -> Any:
  try:
    import pydicom

    from jaxsr.data import dicom_codecs
  except ImportError as error:
    raise ImageError(path, "is DICOM, which needs: pip install 'jaxsr-xray[dicom]'") from error
  dicom_codecs.register()
  return pydicom


def header(file: File, path: Path, *, stop: bool) -> Any:
  """Read the elements; raises ImageError unless they describe a single gray frame."""
  pydicom = _import_pydicom(path)
  start = file.tell()
  has_preamble = file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
  file.seek(start)
  content = dicom_limits.bounded(file, path)
  try:
    dataset = pydicom.filereader.read_partial(content, _end(stop=stop), force=not has_preamble)
    if not has_preamble and 'TransferSyntaxUID' not in dataset.file_meta:
      dataset.file_meta.TransferSyntaxUID = _syntax(*dataset.original_encoding)
    _check_elements(dataset)
    _check_single(dataset)
    kind = str(dataset.get('PhotometricInterpretation', ''))
    samples, frames = _number(dataset, 'SamplesPerPixel', 1), _number(dataset, 'NumberOfFrames', 1)
    height, width = _number(dataset, 'Rows', 0), _number(dataset, 'Columns', 0)
    stored = _number(dataset, 'BitsStored', 0)
    high = _number(dataset, 'HighBit', stored - 1)
    allocated = _number(dataset, 'BitsAllocated', 16)
    missing = [name for name in _REQUIRED if dataset.get(name) in (None, '')]
    sequences = ('ModalityLUTSequence', *dicom_values.FUNCTIONAL_GROUPS)
    dicom_limits.check_sequences(dataset, sequences)
    dicom_values.depth(dataset)
  except Unsupported as error:
    raise ImageError(path, str(error)) from None
  except Exception:  # pydicom's texts may quote elements
    reason = 'is not a DICOM file that can be read (its elements are damaged, or it ends in one)'
    raise ImageError(path, reason) from None
  if not height and not width:
    if not stop:  # pydicom drops all elements if the file ends in compressed pixels
      file.seek(start)
      header(file, path, stop=True)
      raise ImageError(path, 'is truncated (it ends in its compressed pixels); fetch it again')
    raise ImageError(path, 'is DICOM without an image (it has neither Rows nor Columns)')
  if missing:
    named = ', '.join(f'{name} ({_REQUIRED[name]})' for name in missing)
    raise ImageError(path, f'is DICOM that lacks {named}, without which pixels mean nothing')
  if not height or not width or not stored:
    raise ImageError(path, 'is DICOM without an image (its Rows, Columns or BitsStored are 0)')
  if samples != 1 or kind not in _GRAY:
    what = f'is in color ({samples} samples)' if samples != 1 else 'is in color, or no known gray'
    raise ImageError(path, f'{what}; only {" and ".join(_GRAY)} are read')
  if frames != 1:
    raise ImageError(path, f'holds {frames} frames; split it first')
  if not 0 < stored <= 16 or high != stored - 1:
    raise ImageError(path, f'stores {stored} bits up to bit {high}; at most 16 from bit 0 are read')
  if allocated not in _ALLOCATED or stored > allocated:
    text = f'allocates {allocated} bits (0028,0100) and stores {stored} of them'
    raise ImageError(path, f'{text}, which is not supported; only 1, 8, 16 or 32 are read')
  if kind == 'MONOCHROME2' and str(dataset.get('PresentationLUTShape', '')) == 'INVERSE':
    text = 'is MONOCHROME2 with PresentationLUTShape (2050,0020) INVERSE, which contradict each'
    raise ImageError(path, f'{text} other on whether the largest value is white; correct one')
  return dataset


def _end(*, stop: bool) -> Callable[[int, str | None, int], bool]:
  """Returns the function by which pydicom ends at the pixels, or behind them.

  Bytes behind the pixels may be no element.
  """
  found = False

  def is_end(tag: int, vr: str | None, length: int) -> bool:
    nonlocal found
    was_found, found = found, found or tag in _PIXELS
    return found if stop else was_found

  return is_end


def _number(dataset: Any, name: str, default: int) -> int:
  """Returns the value of an element; the default if it is missing or empty."""
  value = dataset.get(name)
  return default if value in (None, '') else int(value)


def _syntax(implicit: bool | None, little_endian: bool | None) -> Any:
  """Returns the transfer syntax of uncompressed pixels in this encoding."""
  from pydicom import uid

  if implicit:
    return uid.ImplicitVRLittleEndian
  return uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian


def _check_elements(dataset: Any) -> None:
  """Raise Unsupported if an element that is used cannot be parsed, as if its type is damaged."""
  from pydicom.tag import Tag

  for name in (*_OTHERS, *_CHEST):
    try:
      dataset.get(name)  # which parses the element
    except Exception:
      raise Unsupported(f'has a damaged element: {name} {Tag(name)}; fetch it again') from None


def _check_single(dataset: Any) -> None:
  """Raise Unsupported if an element has several values or no number, and must have one."""
  from pydicom.tag import Tag

  for name in _SINGLE:
    if name not in dataset:
      continue
    try:
      element = dataset[name]
      several = element.VM > 1
      if name not in _TEXTS and not several and element.value not in (None, ''):
        float(element.value)
    except Exception:  # pydicom converts a value when it is first used, and quotes it
      raise Unsupported(f'has no number in {name} {Tag(name)}') from None
    if several:
      raise Unsupported(f'has several values in {name} {element.tag}, which has one')


def _check_pixels(dataset: Any, path: Path) -> None:
  if 'PixelData' not in dataset:
    floats = 'FloatPixelData' in dataset or 'DoubleFloatPixelData' in dataset
    found = '; its pixels are floats, which are not supported' if floats else ''
    raise ImageError(path, f'is DICOM that lacks PixelData (7FE0,0010){found}')
  pixels = dataset.PixelData
  if not isinstance(pixels, bytes | None):
    raise ImageError(path, 'has a damaged element: PixelData (7FE0,0010); fetch it again')
  if not pixels:
    raise ImageError(path, 'is DICOM with an empty PixelData (7FE0,0010); fetch it again')
  if not dataset.file_meta.TransferSyntaxUID.is_compressed:
    needed = -(-dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8)
    if len(pixels) < needed:
      text = f'is truncated ({len(pixels)} of {needed} bytes of pixels)'
      raise ImageError(path, f'{text}; fetch it again')


def _check_compression(dataset: Any, path: Path) -> None:
  """Raise ImageError for a compression without a decoder, and name the plug-ins that have one."""
  from pydicom.pixels.decoders.base import get_decoder
  from pydicom.uid import UID

  try:
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    compressed = syntax.is_compressed
  except (AttributeError, TypeError, ValueError):
    raise ImageError(path, 'lacks a known TransferSyntaxUID (0002,0010)') from None
  if not compressed:
    return
  try:
    decoder = get_decoder(syntax)
  except NotImplementedError:
    reason = f'is compressed as {syntax.name}, which is not supported; decompress it first'
    raise ImageError(path, reason) from None
  if not decoder.is_available:
    missing = '; or '.join(decoder.missing_dependencies)
    needs = f"{missing} (pip install 'jaxsr-xray[dicom]' brings those for JPEG-LS and JPEG 2000)"
    raise ImageError(path, f'is compressed as {syntax.name}, which {needs}')


def _resolution(dataset: Any) -> tuple[float, float] | None:
  """Returns pixels per inch, across and down."""
  for name in ('PixelSpacing', 'ImagerPixelSpacing'):
    try:
      down, across = (float(value) for value in dataset.get(name) or ())
    except (TypeError, ValueError):
      continue
    if min(down, across) > 0:
      return 25.4 / across, 25.4 / down
  return None
