"""Lengths, positions and overlays of a DICOM data set, scaled with the pixels of its image.

Each function changes a pydicom data set in place; `docs/dicom.md` has the rules.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from pydicom.valuerep import format_number_as_ds

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


class Sizes(NamedTuple):
  """Height and width in pixels of the source and of the result."""

  source: tuple[int, int]
  result: tuple[int, int]

  @property
  def ratios(self) -> tuple[Fraction, Fraction]:
    """Result pixels per source pixel, down and across."""
    (h, w), (tall, wide) = self
    return Fraction(tall, h), Fraction(wide, w)


def scale_geometry(dataset: Any, sizes: Sizes) -> None:
  """Divide spacings, and multiply positions in pixels."""
  down, across = sizes.ratios
  _shift_position(dataset, sizes)
  for name in _SPACINGS:
    if values := numbers(dataset, name):
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
  found = (rule(int(n), i) for i, n in enumerate(numbers(dataset, name)))
  if new := [min(max(n, -(2**31)), 2**31 - 1) for n in found]:  # what the element can hold
    setattr(dataset, name, new if len(new) > 1 else new[0])


def numbers(dataset: Any, name: str) -> list[float]:
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
  position, directions, spacing = (numbers(dataset, name) for name in names)
  if (len(position), len(directions), len(spacing)) != (3, 6, 2):
    return
  moved = np.array(position)
  row, column = np.array(directions).reshape(2, 3)
  for direction, step, ratio in zip((column, row), spacing, sizes.ratios, strict=True):
    moved += direction * step * float(1 / ratio - 1) / 2
  dataset.ImagePositionPatient = [format_number_as_ds(float(value)) for value in moved]


def scale_overlays(dataset: Any, sizes: Sizes) -> None:
  """Repeat the bits of overlay planes; drop broken ones, and those in unused bits of the pixels."""
  for group in range(0x6000, 0x6100, 2):
    planes = _planes(dataset, group)
    if planes is None:
      for element in list(dataset.group_dataset(group)):
        del dataset[element.tag]
      continue
    for n in _STATISTICS:
      dataset.pop((group, n), None)
    shape = planes.shape[1:]
    rows, columns = (round(n * ratio) for n, ratio in zip(shape, sizes.ratios, strict=True))
    planes = planes[:, nearest(shape[0], rows)][:, :, nearest(shape[1], columns)]
    packed = np.packbits(planes.ravel(), bitorder='little').tobytes()
    dataset[group, 0x0010].value, dataset[group, 0x0011].value = rows, columns
    dataset.add_new((group, 0x3000), 'OW', packed + bytes(len(packed) % 2))
    dataset.add_new((group, 0x0100), 'US', 1)
    dataset.add_new((group, 0x0102), 'US', 0)
    origin = dataset.get((group, 0x0050))
    if origin is not None and origin.VM == 2:
      pair = zip(origin.value, sizes.ratios, strict=True)
      origin.value = [_first(int(n), ratio) for n, ratio in pair]


def _planes(dataset: Any, group: int) -> UInt8[np.ndarray, 'frames rows columns'] | None:
  """Returns the bits of an overlay; None if it has none of its own, or less than its size says."""

  def value(n: int) -> Any:
    return getattr(dataset.get((group, n)), 'value', None)

  data, frames = value(0x3000), value(0x0015) or 1
  try:
    frames, rows, columns = (int(n) for n in (frames, value(0x0010), value(0x0011)))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder='little')
    planes = bits[: frames * rows * columns].reshape(frames, rows, columns)
  except (TypeError, ValueError):
    return None
  return planes if planes.size else None


def nearest(source: int, result: int) -> np.ndarray:
  """Returns the source pixel of each result pixel along one axis."""
  return np.arange(result) * source // result
