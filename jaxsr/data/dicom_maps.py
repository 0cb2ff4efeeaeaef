"""Write what was computed for each pixel of an enlarged radiograph as DICOM, in its series.

A map is a copy of the enlarged image's data set with other pixels, so that both lie on each other
in a viewer. It refers to the source and to the enlarged image. Its values have no inversion and no
window of the source.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt

from jaxsr.data import dicom_out
from jaxsr.data.decoded import Method

# Elements that describe how the gray of the enlarged image is displayed, or what it measures.
_OF_GRAY = (
  *('WindowCenter', 'WindowWidth', 'WindowCenterWidthExplanation', 'VOILUTFunction'),
  *('VOILUTSequence', 'PresentationLUTSequence', 'RealWorldValueMappingSequence'),
  *('PixelPaddingValue', 'PixelPaddingRangeLimit'),
)


class Shown(NamedTuple):
  """What a map shows.

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


def write_half_widths(
  path: Path,
  half: Float[np.ndarray, 'h w'],
  like: Path,
  method: Method,
  shown: Shown,
  *,
  compress: str | None = None,
) -> None:
  """Write half widths, rounded down to whole stored values of the enlarged image.

  With its rescale slope, without the sign and the intercept, they are in the units of its values.

  Args:
    path: the file.
    half: half widths in gray levels of the enlarged image, over the whole range of its type.
    like: the DICOM file that the image was made from.
    method: how the image was made.
    shown: what the map shows.
    compress: as `dicom_out.writing` takes it.

  Raises:
    ImageError: as `dicom_out.derive` does.
  """
  image = dicom_out.derive(like, half.shape, method)
  bits = int(image.dataset.BitsStored)
  most, peak = 2**bits - 1, len(image.table) - 1
  values = np.floor(half * (most / peak)).clip(0, most).astype(f'<u{image.table.itemsize}')
  slope = abs(float(image.dataset.get('RescaleSlope', 1) or 1))
  _write(path, values, image, shown, (bits, slope), compress)


def write_mask(
  path: Path,
  mask: Bool[np.ndarray, 'h w'],
  like: Path,
  method: Method,
  shown: Shown,
  *,
  compress: str | None = None,
) -> None:
  """Write a mask in 8 bits, 255 where it is true. The arguments are as for `write_half_widths`."""
  image = dicom_out.derive(like, mask.shape, method)
  values = np.where(mask, 255, 0).astype(np.uint8)
  _write(path, values, image, shown, (8, 1.0), compress)


def _write(
  path: Path,
  values: UInt[np.ndarray, 'h w'],
  image: dicom_out.Derived,
  shown: Shown,
  scale: tuple[int, float],
  compress: str | None,
) -> None:
  """Write stored values, of so many bits and with this slope; padding of the image becomes 0."""
  same = np.arange(np.iinfo(values.dtype).max + 1, dtype=values.dtype)
  derived = image._replace(table=same, fill=0)
  with dicom_out.converting(path):
    _describe(image.dataset, shown)
    _display(image.dataset, values, *scale)
  with dicom_out.writing(path, derived, compress) as writer:
    writer.write(values)


def _describe(dataset: Any, shown: Shown) -> None:
  """Set the identifiers and the texts of a map in the data set of the enlarged image."""
  from jaxsr.data import dicom_rules as rules

  dataset.SourceImageSequence = [*dataset.SourceImageSequence, rules.source_item(dataset)]
  dataset.SOPInstanceUID = rules.new_uid('map', dataset.SOPInstanceUID, shown.note)
  dataset.ImageType = [*[*dataset.ImageType, ''][:3], shown.kind]
  dataset.InstanceNumber = int(dataset.InstanceNumber) + shown.place
  dataset.DerivationDescription = shown.note[:1024]
  dataset.ImageComments = shown.comment
  dataset.ContributingEquipmentSequence[-1].ContributionDescription = shown.note[:1024]


def _display(dataset: Any, values: UInt[np.ndarray, 'h w'], bits: int, slope: float) -> None:
  """Describe the values, which are shown from black to white at the largest one."""
  from pydicom.valuerep import format_number_as_ds

  for name in _OF_GRAY:
    dataset.pop(name, None)
  dataset.BitsAllocated = 8 * values.itemsize
  dataset.BitsStored, dataset.HighBit = bits, bits - 1
  dataset.PixelRepresentation = 0
  dataset.PhotometricInterpretation = 'MONOCHROME2'
  if 'PresentationLUTShape' in dataset:
    dataset.PresentationLUTShape = 'IDENTITY'
  if 'RescaleSlope' in dataset:
    dataset.RescaleSlope, dataset.RescaleIntercept = format_number_as_ds(slope), '0'
  levels = slope * (max(1, int(values.max(initial=0))) + 1)
  dataset.WindowCenter = format_number_as_ds(levels / 2)
  dataset.WindowWidth = format_number_as_ds(levels)
