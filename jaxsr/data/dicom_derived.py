"""The data set of an enlarged radiograph, and how its gray levels become stored values.

The data set follows from that of the source by `dicom_rules` and `dicom_geometry`; the table from
levels to stored values is the inverse of what `dicom.read` does.
"""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt

from jaxsr.data import dicom, dicom_limits, dicom_values
from jaxsr.data.decoded import Method
from jaxsr.errors import ImageError

_MOST = 2**16 - 1  # rows and columns, which DICOM stores as words


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
    from jaxsr.data.dicom_geometry import nearest

    values = self.table[levels]
    if self.padding is not None:
      h, w = self.padding.shape
      rows = nearest(h, self.shape[0])[top : top + len(levels)]
      values[self.padding[rows][:, nearest(w, self.shape[1])]] = self.fill
    return values


def derive(path: Path, shape: tuple[int, int], method: Method) -> Derived:
  """Derive the data set of an enlarged radiograph.

  Args:
    path: the source, a DICOM file.
    shape: height and width of the result in pixels.
    method: how it was made.

  Raises:
    ImageError: the source is not a DICOM file with one gray frame, or lacks an identifier, or the
      result is too large for DICOM.
  """
  with path.open('rb') as file:
    if not dicom.recognize(file):
      raise ImageError(path, 'is not DICOM and has no patient or study; give DICOM, or write PNG')
    if max(shape) > _MOST:
      size = f'would have {shape[1]}x{shape[0]} pixels'
      raise ImageError(path, f'{size}; DICOM holds {_MOST} in a row or column; use --format png')
    with converting(path):
      from jaxsr.data import dicom_geometry as geometry
      from jaxsr.data import dicom_rules as rules

      dataset = dicom.header(file, path, stop=False)
      dicom_limits.check_sequences(dataset, list(dataset.keys()))
      if dataset.get('ModalityLUTSequence'):
        _, found = dicom_values.levels(dataset, method.bits)
      else:
        found = dicom_values.stored_values(dataset, method.bits)
      depth = max(dicom_values.depth(dataset), found.bits)
      rules.check(dataset, path)
      now = datetime.datetime.now().astimezone()
      sizes = geometry.Sizes((int(dataset.Rows), int(dataset.Columns)), shape)
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
      geometry.scale_geometry(dataset, sizes)
      geometry.scale_overlays(dataset, sizes)
      rules.mark_derived(dataset, method, sizes)
      rules.mark_time(dataset, now)
      rules.add_equipment(dataset, method, now)
      return _with_pixels(dataset, found, depth, shape)


def _with_pixels(
  dataset: Any, found: dicom_values.Stored, depth: int, shape: tuple[int, int]
) -> Derived:
  """Set the elements that describe the new pixels; returns how levels become stored values.

  `depth` is the number of bits of the levels' type, of which the values may have fewer.
  """
  from jaxsr.data import dicom_rules as rules

  bits, signed = found.bits, found.signed
  inverted = dataset.PhotometricInterpretation == 'MONOCHROME1'
  wide = bits > 8 or int(dataset.BitsAllocated) > 8
  looked_up = bool(dataset.get('ModalityLUTSequence'))
  if looked_up:
    item = dataset.ModalityLUTSequence[0]
    signed, wide = False, depth > 8
    _store_output(dataset, str(item.get('ModalityLUTType') or 'US'))
  elif float(dataset.get('RescaleSlope', 1) or 1) < 0:
    inverted = not inverted
  rules.keep_voi_tables(dataset, signed=signed)
  kind = np.dtype(f'<{"i" if signed else "u"}{2 if wide else 1}')
  low = -(2 ** (bits - 1)) if signed else 0
  top, peak = 2**bits - 1, 255 if depth <= 8 else 65535
  table = (np.arange(peak + 1, dtype=np.int64) * top + peak // 2) // peak
  table = (top - table if inverted else table) + low
  fill = int(table[0])  # black
  ends = None if looked_up else dicom_values.padding_ends(dataset, bits, signed)
  if ends is not None and low <= ends[0] <= low + top:
    fill, _ = ends
    table = np.where(table == fill, fill + 1 if fill < low + top else fill - 1, table)
    dataset.add_new('PixelPaddingValue', 'SS' if signed else 'US', fill)
  else:  # no stored value means padding
    dataset.pop('PixelPaddingValue', None)
  dataset.Rows, dataset.Columns = shape
  dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * kind.itemsize, bits, bits - 1
  dataset.PixelRepresentation = int(signed)
  padding = found.padding if found.padding.any() else None
  return Derived(dataset, shape, table.astype(kind), padding, fill)


def _store_output(dataset: Any, kind: str) -> None:
  """Describe pixels that are the output of the modality's look-up table, which is dropped."""
  del dataset.ModalityLUTSequence
  dataset.pop('RealWorldValueMappingSequence', None)  # a function of the values before the table
  dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = '0', '1', kind


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
