"""Write maps of values per pixel of an enlarged radiograph as DICOM, in its series.

A map is a copy of the enlarged image's data set with other pixels, so that both lie on each other
in a viewer. It refers to the source and to the enlarged image. Its values have no inversion and no
window of the source.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt

from jaxsr.data import dicom_derived, dicom_out, seal
from jaxsr.data.decoded import Method

# Elements that describe how the gray of the enlarged image is displayed, or what it measures.
_OF_GRAY = (
  *('WindowCenter', 'WindowWidth', 'WindowCenterWidthExplanation', 'VOILUTFunction'),
  *('VOILUTSequence', 'PresentationLUTSequence', 'RealWorldValueMappingSequence'),
  'PixelPaddingValue',
)
# Secondary Capture of words, and of bytes, which 8-bit maps are.
_OF_WORDS, _OF_BYTES = '1.2.840.10008.5.1.4.1.1.7.3', '1.2.840.10008.5.1.4.1.1.7.2'


class Shown(NamedTuple):
  """The description of a map.

  Attributes:
    kind: the fourth value of its ImageType, such as 'INTERVAL'.
    note: its provenance, that of the enlarged image and more.
    comment: a sentence for the people who see it.
    place: added to the number of the enlarged image in its series.
  """

  kind: str
  note: str
  comment: str
  place: int


class Writer:
  """Writes the rows of a map into an open file, from the top."""

  def __init__(self, writer: dicom_out.Writer, convert: Callable[[np.ndarray], np.ndarray]):
    self.writer, self.convert, self.largest = writer, convert, 0

  def write(self, rows: np.ndarray) -> None:
    """Add rows, [rows, w], of half widths or of a mask."""
    values = self.convert(rows)
    self.largest = max(self.largest, int(values.max(initial=0)))
    self.writer.write(values[..., None])


@contextmanager
def writing_half_widths(
  path: Path,
  shape: tuple[int, int],
  like: Path,
  method: Method,
  shown: Shown,
  *,
  compress: str | None = None,
) -> Iterator[Writer]:
  """Yield a writer of half widths, rounded down to whole stored values of the enlarged image.

  It takes them in gray levels of that image, over the whole range of its type. With the map's
  rescale slope, without the sign and the intercept, they are in the units of its values.

  Args:
    path: the file.
    shape: height and width of the enlarged image.
    like: the DICOM file that the image was made from.
    method: how the image was made.
    shown: the description of the map.
    compress: as `dicom_out.writing` takes it.

  Raises:
    ImageError: as `dicom_derived.derive` does.
  """
  image = dicom_derived.derive(like, shape, method)
  bits, kind = int(image.dataset.BitsStored), f'<u{image.table.itemsize}'
  most, peak = 2**bits - 1, len(image.table) - 1
  slope = abs(float(image.dataset.get('RescaleSlope', 1) or 1))

  def convert(half: Float[np.ndarray, 'rows w']) -> UInt[np.ndarray, 'rows w']:
    return np.floor(half * (most / peak)).clip(0, most).astype(kind)

  with _writing(path, image, shown, convert, (bits, slope), compress) as writer:
    yield writer


@contextmanager
def writing_mask(
  path: Path,
  shape: tuple[int, int],
  like: Path,
  method: Method,
  shown: Shown,
  *,
  compress: str | None = None,
) -> Iterator[Writer]:
  """Yield a writer of a mask in 8 bits, 255 where it is true; else as `writing_half_widths`."""

  def convert(mask: Bool[np.ndarray, 'rows w']) -> UInt[np.ndarray, 'rows w']:
    return np.where(mask, 255, 0).astype(np.uint8)

  image = dicom_derived.derive(like, shape, method)
  with _writing(path, image, shown, convert, (8, 1.0), compress) as writer:
    yield writer


@contextmanager
def _writing(
  path: Path,
  image: dicom_out.Derived,
  shown: Shown,
  convert: Callable[[np.ndarray], np.ndarray],
  scale: tuple[int, float],
  compress: str | None,
) -> Iterator[Writer]:
  """Yield a writer of values of so many bits and with this slope; padding of the image becomes 0.

  The window follows from the largest value, which is known after the last row.
  """
  bits, slope = scale
  kind = np.uint8 if bits <= 8 else np.uint16
  same = np.arange(np.iinfo(kind).max + 1, dtype=kind)
  derived = image._replace(table=same, fill=0)
  with dicom_derived.converting(path):
    _describe(image.dataset, shown)
    _display(image.dataset, kind, bits, slope)
  with dicom_out.writing(path, derived, compress) as writer:
    found = Writer(writer, convert)
    yield found
    writer.set_texts(**_window(found.largest, slope))


def _describe(dataset: Any, shown: Shown) -> None:
  """Set the identifiers and the texts of a map in the data set of the enlarged image."""
  from jaxsr.data import dicom_rules as rules

  dataset.SourceImageSequence = [*dataset.SourceImageSequence, rules.source_item(dataset)]
  dataset.SOPInstanceUID = rules.new_uid('map', dataset.SOPInstanceUID, shown.note)
  dataset.ImageType = [*[*dataset.ImageType, ''][:3], shown.kind]
  dataset.InstanceNumber = int(dataset.InstanceNumber) + shown.place
  dataset.DerivationDescription = shown.note[: rules.MOST]
  dataset.ImageComments = shown.comment
  equipment = dataset.ContributingEquipmentSequence[-1]
  equipment.ContributionDescription = seal.opened(shown.note, rules.MOST)


def _display(dataset: Any, kind: Any, bits: int, slope: float) -> None:
  """Describe values of a type, which are shown from black to white at the largest one."""
  from pydicom.valuerep import format_number_as_ds

  for name in _OF_GRAY:
    dataset.pop(name, None)
  if dataset.SOPClassUID == _OF_WORDS and bits == 8:
    dataset.SOPClassUID = _OF_BYTES
  dataset.BitsAllocated = 8 * np.dtype(kind).itemsize
  dataset.BitsStored, dataset.HighBit = bits, bits - 1
  dataset.PixelRepresentation = 0
  dataset.PhotometricInterpretation = 'MONOCHROME2'
  if 'PresentationLUTShape' in dataset:
    dataset.PresentationLUTShape = 'IDENTITY'
  if 'RescaleSlope' in dataset:
    dataset.RescaleSlope, dataset.RescaleIntercept = format_number_as_ds(slope), '0'
  for name, text in _window(1, slope).items():
    setattr(dataset, name, text)


def _window(largest: int, slope: float) -> dict[str, str]:
  """Returns the window from 0 to the largest value, as texts of 16 characters."""
  levels = slope * (max(1, largest) + 1)
  return {'WindowCenter': _sixteen(levels / 2), 'WindowWidth': _sixteen(levels)}


def _sixteen(number: float) -> str:
  """Returns a decimal string with zeros at its end, so that all have the same length."""
  from pydicom.valuerep import format_number_as_ds

  digits, e, exponent = format_number_as_ds(number).partition('e')
  digits += '' if '.' in digits else '.'
  return digits.ljust(16 - len(e + exponent), '0') + e + exponent
