"""Read DICOM radiographs: one frame of gray, brighter where more was absorbed, whole depth.

Stored values are taken without windows (VOI), which are for looking. The modality's rescale, of
which a radiograph's only sign matters, or look-up table comes first; MONOCHROME1, whose smallest
value is white, is inverted. The stored range of `BitsStored` bits becomes that of uint8, if it has
at most eight, else of uint16: 4095 of 12 bits becomes 65535, and nothing is lost. Padding is black.

Of the patient nothing is read but the identifier, and of that only a hash is kept, in memory, to
tell whose film it is. Errors name the file and never an element's value.
"""

import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from jaxsr.errors import ImageError

File = io.BufferedReader | io.BytesIO
SUFFIXES = ('.dcm', '.dicom')
_MAGIC_AT, _MAGIC = 128, b'DICM'
_GRAY = ('MONOCHROME1', 'MONOCHROME2')
_ONE_AT_A_TIME = threading.Lock()


def recognise(file: File) -> bool:
  """Tell a DICOM file by its preamble; leaves the position where it was."""
  place = file.tell()
  file.seek(_MAGIC_AT)
  found = file.read(len(_MAGIC)) == _MAGIC
  file.seek(place)
  return found


def check(file: File, path: Path) -> tuple[int, int, int]:
  """Check a header; return height, width and bits a pixel, 8 or 16.

  Raises ImageError for colour, several frames, what no plug-in here can decode, and no image.
  """
  with _silent():
    dataset = _header(file, path, stop=True)
    _decodable(dataset, path)
    return int(dataset.Rows), int(dataset.Columns), 8 if _depth(dataset) <= 8 else 16


def read(file: File, path: Path) -> UInt[np.ndarray, 'h w 1']:
  """Decode a file; raises ImageError as `check` does, and where the pixels are damaged."""
  with _silent():
    dataset = _header(file, path, stop=False)
    _decodable(dataset, path)
    try:
      return _levels(dataset)[..., None]
    except Exception as error:  # pydicom and its plug-ins raise many kinds
      raise ImageError(path, f'cannot be decoded ({type(error).__name__})') from None


def patient(path: Path) -> str:
  """Tell whose film it is, by a hash; without an identifier a film is of its own."""
  with path.open('rb') as file, _silent():
    dataset = _header(file, path, stop=True)
    found = str(dataset.get('PatientID', '')) or str(path.resolve())
  return hashlib.sha256(found.encode()).hexdigest()[:16]


@contextmanager
def _silent() -> Iterator[None]:
  """Keep pydicom's warnings and log, which quote elements, from being shown.

  Filters are the process's, so one thread at a time reads DICOM: another that is done would let
  the first one speak.
  """
  log = logging.getLogger('pydicom')
  with _ONE_AT_A_TIME, warnings.catch_warnings():
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    warnings.simplefilter('ignore')
    try:
      yield
    finally:
      log.setLevel(level)


def _pydicom(path: Path) -> Any:
  try:
    import pydicom
  except ImportError as error:
    raise ImageError(path, "is DICOM, which needs: pip install 'jaxsr-xray[dicom]'") from error
  return pydicom


def _header(file: File, path: Path, *, stop: bool) -> Any:
  """Read the elements, and refuse what is no single gray frame."""
  pydicom = _pydicom(path)
  try:
    dataset = pydicom.dcmread(file, stop_before_pixels=stop)
    kind = str(dataset.get('PhotometricInterpretation', ''))
    samples = int(dataset.get('SamplesPerPixel', 1))
    frames = int(dataset.get('NumberOfFrames', 1) or 1)
    height, width = int(dataset.get('Rows', 0)), int(dataset.get('Columns', 0))
    stored = int(dataset.get('BitsStored', 0))
    high = int(dataset.get('HighBit', stored - 1))
    _depth(dataset)
  except Exception as error:
    raise ImageError(path, f'is no DICOM file that can be read ({type(error).__name__})') from None
  if not height or not width or not kind or not stored:
    raise ImageError(path, 'is DICOM without an image')
  if samples != 1 or kind not in _GRAY:
    what = f'is in colour ({samples} samples)' if samples != 1 else 'is in colour, or no known gray'
    raise ImageError(path, f'{what}; give {" or ".join(_GRAY)}')
  if frames != 1:
    raise ImageError(path, f'holds {frames} frames; split it first')
  if not 0 < stored <= 16 or high != stored - 1:
    raise ImageError(path, f'stores {stored} bits up to bit {high}; at most 16 from bit 0 are read')
  return dataset


def _decodable(dataset: Any, path: Path) -> None:
  """Refuse a compression that no plug-in here can undo, and name those that could."""
  from pydicom.pixels.decoders.base import get_decoder
  from pydicom.uid import UID

  try:
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    compressed = syntax.is_compressed
  except (AttributeError, TypeError, ValueError):
    raise ImageError(path, 'does not say by a known transfer syntax how it is written') from None
  if not compressed:
    return
  try:
    decoder = get_decoder(syntax)
  except NotImplementedError:
    raise ImageError(path, f'is compressed as {syntax.name}, which nothing here undoes') from None
  if not decoder.is_available:
    missing = '; or '.join(decoder.missing_dependencies)
    needs = f"{missing} (pip install 'jaxsr-xray[dicom]' brings those for JPEG-LS and JPEG 2000)"
    raise ImageError(path, f'is compressed as {syntax.name}, which {needs}')


def _depth(dataset: Any) -> int:
  """Tell how many bits a pixel has: those that are stored, or those of the look-up table."""
  if dataset.get('ModalityLUTSequence'):
    return int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
  return int(dataset.get('BitsStored', 0))


def _levels(dataset: Any) -> UInt[np.ndarray, 'h w']:
  """Turn stored values into levels of gray over the whole range of their type."""
  bits, signed = int(dataset.BitsStored), bool(dataset.get('PixelRepresentation', 0))
  stored = _stored(dataset.pixel_array, bits, signed)
  low = -(2 ** (bits - 1)) if signed else 0
  values, top = stored - low, 2**bits - 1
  if dataset.get('ModalityLUTSequence'):
    from pydicom.pixels.processing import apply_modality_lut

    bits = _depth(dataset)
    values, top = apply_modality_lut(stored, dataset).astype(np.int64), 2**bits - 1
  elif float(dataset.get('RescaleSlope', 1) or 1) < 0:
    values = top - values
  if dataset.PhotometricInterpretation == 'MONOCHROME1':
    values = top - values
  kind = np.uint8 if bits <= 8 else np.uint16
  peak = np.iinfo(kind).max
  levels = (values.clip(0, top) * peak + top // 2) // top
  if (padding := dataset.get('PixelPaddingValue')) is not None:
    limit = dataset.get('PixelPaddingRangeLimit', padding)
    first, last = sorted((int(padding), int(limit)))
    levels[(stored >= first) & (stored <= last)] = 0
  return levels.astype(kind)


def _stored(array: np.ndarray, bits: int, signed: bool) -> Int[np.ndarray, 'h w']:
  """Take the bits that are stored; others may hold anything."""
  values = array.astype(np.int64) & (2**bits - 1)
  return np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if signed else values
