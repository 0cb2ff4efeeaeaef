"""Write an enlarged radiograph as DICOM, derived from the file that it was made from.

`derive` makes the data set by `dicom_rules` and the table from gray levels to stored values, the
inverse of what `dicom.read` does. The pixels may come at once (`write`) or row by row (`Writer`).
"""

import datetime
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt

from jaxsr.data import dicom, dicom_limits, dicom_values
from jaxsr.data.decoded import MAX_PIXELS, Method
from jaxsr.errors import ImageError
from jaxsr.files import atomic

_SYNTAXES = {'jpegls': 'JPEGLSLossless', 'j2k': 'JPEG2000Lossless'}
_HEADER = 12  # bytes of the element before the pixels
_END = b'\xfe\xff\xdd\xe0\0\0\0\0'  # of compressed pixels
_MOST_UNCOMPRESSED = 32 * 2**20  # bytes of pixels


class Derived(NamedTuple):
  """A derived data set without pixels, and how gray levels become its stored values.

  `table` has the stored value of each level; pixels under `padding`, a mask of the source's size,
  get `fill`.
  """

  dataset: Any
  shape: tuple[int, int]
  table: Shaped[np.ndarray, 'levels']
  padding: Bool[np.ndarray, 'h w'] | None
  fill: int

  def stored(self, levels: UInt[np.ndarray, 'rows w'], top: int) -> Shaped[np.ndarray, 'rows w']:
    """Returns the stored values of some rows of the result, the first of which is `top`."""
    from jaxsr.data.dicom_rules import nearest

    values = self.table[levels]
    if self.padding is not None:
      h, w = self.padding.shape
      rows = nearest(h, self.shape[0])[top : top + len(levels)]
      values[self.padding[rows][:, nearest(w, self.shape[1])]] = self.fill
    return values


def check_target(path: Path, array: np.ndarray) -> None:
  """Raise ImageError if a derived DICOM cannot hold the array."""
  if array.shape[2] != 1:
    raise ImageError(path, 'DICOM is written in gray only; use a model with 1 channel, or PNG')


def derive(path: Path, shape: tuple[int, int], method: Method) -> Derived:
  """Derive the data set of an enlarged radiograph.

  Args:
    path: the source, a DICOM file.
    shape: height and width of the result in pixels.
    method: how it was made.

  Raises:
    ImageError: the source is not a DICOM file with one gray frame, or lacks an identifier.
  """
  with path.open('rb') as file:
    if not dicom.recognize(file):
      raise ImageError(path, 'is not DICOM and has no patient or study; give DICOM, or write PNG')
    with converting(path):
      from jaxsr.data import dicom_rules as rules

      dataset = dicom.header(file, path, stop=False)
      dicom_limits.check_sequences(dataset, list(dataset.keys()))
      found = dicom_values.stored_values(dataset)
      rules.check(dataset, path)
      now = datetime.datetime.now().astimezone()
      sizes = rules.Sizes((int(dataset.Rows), int(dataset.Columns)), shape)
      syntax = str(dataset.file_meta.TransferSyntaxUID)
      rules.keep_lossy(
        dataset,
        syntax,
        raw_bytes=dataset.Rows * dataset.Columns * int(dataset.BitsAllocated) // 8,
        stored_bytes=len(dataset.PixelData),
      )
      rules.clean(dataset)
      if not dataset.original_encoding[1]:
        dataset = rules.to_little_endian(dataset)
      rules.scale_geometry(dataset, sizes)
      rules.scale_overlays(dataset, sizes)
      rules.mark_derived(dataset, method, sizes)
      rules.mark_time(dataset, now)
      rules.add_equipment(dataset, method, now)
      return _with_pixels(dataset, found, shape)


def _with_pixels(dataset: Any, found: dicom_values.Stored, shape: tuple[int, int]) -> Derived:
  """Set the elements that describe the new pixels; returns how levels become stored values."""
  from jaxsr.data import dicom_rules as rules

  bits, signed = found.bits, bool(dataset.PixelRepresentation)
  inverted = dataset.PhotometricInterpretation == 'MONOCHROME1'
  wide = bits > 8 or int(dataset.BitsAllocated) > 8
  looked_up = bool(dataset.get('ModalityLUTSequence'))
  if looked_up:
    item = dataset.ModalityLUTSequence[0]
    bits, signed = dicom_values.depth(dataset), False
    wide = bits > 8
    _store_output(dataset, str(item.get('ModalityLUTType') or 'US'))
  elif float(dataset.get('RescaleSlope', 1) or 1) < 0:
    inverted = not inverted
  rules.keep_voi_tables(dataset, signed=signed)
  kind = np.dtype(f'<{"i" if signed else "u"}{2 if wide else 1}')
  low = -(2 ** (bits - 1)) if signed else 0
  top, peak = 2**bits - 1, 255 if bits <= 8 else 65535
  table = (np.arange(peak + 1, dtype=np.int64) * top + peak // 2) // peak
  table = (top - table if inverted else table) + low
  fill, ends = (
    int(table[0]),
    None if looked_up else dicom_values.padding_ends(dataset, bits, signed),
  )
  if ends is not None and low <= ends[0] and ends[1] <= low + top:
    fill = ends[0] if int(dataset.PixelPaddingValue) in (ends[0], ends[0] + 2**bits) else ends[1]
    table = _avoid(table, ends, low, low + top)
  else:  # black, since no stored value means padding
    for name in ('PixelPaddingValue', 'PixelPaddingRangeLimit'):
      dataset.pop(name, None)
  dataset.Rows, dataset.Columns = shape
  dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * kind.itemsize, bits, bits - 1
  dataset.PixelRepresentation = int(signed)
  padding = found.padding if found.padding.any() else None
  return Derived(dataset, shape, table.astype(kind), padding, fill)


def _avoid(
  table: Shaped[np.ndarray, 'levels'], ends: tuple[int, int], low: int, high: int
) -> Shaped[np.ndarray, 'levels']:
  """Move levels by one stored value where they would read as padding."""
  first, last = ends
  hidden = (table >= first) & (table <= last)
  free = last + 1 if last < high else first - 1
  return np.where(hidden, free, table) if free >= low else table


def _store_output(dataset: Any, kind: str) -> None:
  """Describe pixels that are the output of the modality's look-up table, which is dropped."""
  del dataset.ModalityLUTSequence
  dataset.pop('RealWorldValueMappingSequence', None)  # a function of the values before the table
  dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = '0', '1', kind


class Writer:
  """Writes the rows of one derived image into an open file, from the top.

  Uncompressed rows go into the file at once, so that memory does not grow with the image;
  compression needs all of them.
  """

  def __init__(self, file: BinaryIO, path: Path, derived: Derived, compression: str):
    self.file, self.path, self.derived = file, path, derived
    self.top, self.compression = 0, compression
    kind, size = derived.table.dtype, derived.table.itemsize * derived.shape[0] * derived.shape[1]
    self.held = np.empty(derived.shape, kind) if compression != 'none' else None
    self.pad = size % 2
    if self.held is None:
      self._write_header()
      name = b'OB' if kind.itemsize == 1 else b'OW'
      file.write(struct.pack('<HH2sHL', 0x7FE0, 0x0010, name, 0, size + self.pad))

  def _write_header(self) -> None:
    with converting(self.path):
      _save(self.file, self.derived.dataset, 'ExplicitVRLittleEndian')

  def write(self, levels: UInt[np.ndarray, 'rows w 1']) -> None:
    """Add rows of gray levels over the whole range of their type."""
    values = self.derived.stored(levels[..., 0], self.top)
    if self.held is None:
      self.file.write(np.ascontiguousarray(values).tobytes())
    else:
      self.held[self.top : self.top + len(values)] = values
    self.top += len(values)

  def describe(self, method: Method) -> None:
    """Replace the description of the derivation by one that is not longer."""
    from jaxsr.data import dicom_rules as rules

    self.set_texts(DerivationDescription=rules.describe(method))

  def set_texts(self, **texts: str) -> None:
    """Replace texts of the data set by others that are not longer, after the first rows."""
    for name, text in texts.items():
      old = self.derived.dataset[name]
      old.value = text if old.VR == 'DS' else text.ljust(len(old.value))
    if self.held is None:
      self.file.seek(0)
      self._write_header()
      self.file.seek(0, os.SEEK_END)

  def close(self) -> None:
    """Complete the file after its last row."""
    if self.held is None:
      self.file.write(bytes(self.pad))
      return
    with converting(self.path):
      dataset, syntax = self.derived.dataset, _SYNTAXES[self.compression]
      _compress(dataset, self.held, syntax, self.path)
      self.held = None  # memory for the other files of the film
      _save(self.file, dataset, syntax)


@contextmanager
def writing(path: Path, derived: Derived, compress: str | None) -> Iterator[Writer]:
  """Yield a writer of a file that appears when it is complete, or not at all.

  Args:
    path: the file.
    derived: of `derive`.
    compress: 'none', 'jpegls' or 'j2k' (both lossless); None: JPEG-LS for more than 32 MB, and
      none for more pixels than are held in memory.
  """
  with atomic(path) as temporary, temporary.open('wb') as file:
    writer = Writer(file, path, derived, compress or _default_compression(derived))
    yield writer
    writer.close()


def write(
  path: Path,
  levels: UInt[np.ndarray, 'h w 1'],
  like: Path,
  method: Method,
  *,
  compress: str | None = None,
) -> None:
  """Write an enlarged radiograph as DICOM.

  Args:
    path: the file.
    levels: the image, over the whole range of its type.
    like: the DICOM file that it was made from.
    method: how it was made.
    compress: as `writing` takes it.

  Raises:
    ImageError: as `derive` does, or the image's type has another depth than the source.
  """
  check_target(path, levels)
  derived = derive(like, levels.shape[:2], method)
  if len(derived.table) != np.iinfo(levels.dtype).max + 1:
    depth = 8 if len(derived.table) == 256 else 16
    raise ImageError(path, f'is {levels.dtype}, but {like} has {depth}-bit levels')
  with writing(path, derived, compress) as writer:
    writer.write(levels)


def read_note(path: Path) -> str:
  """Returns the provenance that `write` put into a file, '' if there is none."""
  with path.open('rb') as file, dicom.silent(path):
    from jaxsr.data import dicom_rules as rules

    return rules.read_note(dicom.header(file, path, stop=True))


def is_complete(path: Path) -> bool:
  """Whether all pixels of a file that was written here are there, without decoding them."""
  with path.open('rb') as file, dicom.silent(path):
    dataset = dicom.header(file, path, stop=True)
    start, size = file.tell(), path.stat().st_size
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
      file.seek(-len(_END), os.SEEK_END)
      return file.read() == _END
    pixels = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    return size == start + _HEADER + pixels + pixels % 2


def _default_compression(derived: Derived) -> str:
  pixels = derived.shape[0] * derived.shape[1]
  few = derived.table.itemsize * pixels <= _MOST_UNCOMPRESSED
  return 'none' if few or pixels > MAX_PIXELS else 'jpegls'


def _compress(dataset: Any, values: Shaped[np.ndarray, 'h w'], name: str, path: Path) -> None:
  from pydicom import uid
  from pydicom.pixels.encoders.base import get_encoder

  syntax = getattr(uid, name)
  if not get_encoder(syntax).is_available:
    need = "pip install 'jaxsr-xray[dicom]', or choose --compress none"
    raise ImageError(path, f'compression as {syntax.name} needs: {need}')
  dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian  # of the array
  dataset.compress(syntax, values, generate_instance_uid=False)


def _save(file: BinaryIO, dataset: Any, name: str) -> None:
  """Write a data set with a new file header; nothing of the source's header is kept."""
  from pydicom import uid
  from pydicom.dataset import FileMetaDataset

  dataset.preamble, dataset.file_meta = bytes(128), FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = getattr(uid, name)
  dataset.save_as(file, enforce_file_format=True, implicit_vr=False, little_endian=True)


@contextmanager
def converting(path: Path) -> Iterator[None]:
  """Report errors of pydicom by the name of the file, since their texts quote elements."""
  with dicom.silent(path):
    try:
      yield
    except ImageError:
      raise
    except dicom_values.Unsupported as error:
      raise ImageError(path, str(error)) from None
    except Exception as error:
      if isinstance(error, OSError) and error.errno is not None:  # of the disk; pydicom's have none
        raise
      reason = f'cannot be converted to a derived DICOM ({type(error).__name__})'
      raise ImageError(path, f'{reason}; use --format png') from None
