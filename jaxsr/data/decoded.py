"""The results of the readers of each format, and the part that `image_files` keeps for writing."""

import io
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

File = io.BufferedReader | io.BufferedRandom | io.BytesIO
TRANSPARENT = 'its transparency is ignored'  # a remark
# ResolutionUnit of EXIF and TIFF: inch, cm, and of some programs mm and um.
UNITS_PER_INCH = {2: 1.0, 3: 2.54, 4: 25.4, 5: 25_400.0}
MAX_PIXELS = 64 * 2**20  # a bomb decodes to gigabytes; the largest detectors have 16 million


class Decoded(NamedTuple):
  """An image as its file stores it.

  `bits` is the number of bits that the file says its values have, or None if it does not say;
  `exact` means that it cannot be wrong, as that of a tag can.
  With `white_is_zero` the largest value is black. `remarks` are for the user to read.
  """

  pixels: UInt[np.ndarray, 'h w c']
  bits: int | None = None
  exact: bool = False
  white_is_zero: bool = False
  dpi: tuple[float, float] | None = None  # pixels per inch, across and down
  icc: bytes | None = None
  remarks: tuple[str, ...] = ()
  lossy: bool = False


class ImageInfo(NamedTuple):
  """The properties of an input's file that its output keeps: the range of values and the metadata.

  White is `2**bits - 1` in the file; in memory it is always the largest value of the type.
  """

  bits: int
  dpi: tuple[float, float] | None = None  # pixels per inch, across and down
  icc: bytes | None = None


class Method(NamedTuple):
  """How an image was made.

  `name` is short: 'edsr x4'. `note` is its provenance; together with the source's identifiers it
  defines those of the result. `version` is that of this program. `found` are sentences on what was
  measured on the image, '' for none. `bits` is the number of bits that the source's values have
  according to the user, 0 to trust it.
  """

  name: str
  note: str
  version: str
  found: str = ''
  bits: int = 0


def orient(pixels: UInt[np.ndarray, 'h w c'], orientation: int) -> UInt[np.ndarray, '_ _ c']:
  """Turn an image upright, by the EXIF and TIFF tag 274; values but 2 to 8 mean that it is."""
  if orientation in (5, 6, 7, 8):
    pixels = pixels.swapaxes(0, 1)
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  return np.ascontiguousarray(pixels)


def as_orientation(value: object) -> int:
  """Returns the value of tag 274, of which only the first counts; 1 (upright) if it has none."""
  value = value[0] if isinstance(value, tuple | bytes) and value else value
  return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def as_resolution(found: object, unit: float = 1.0) -> tuple[float, float] | None:
  """Returns pixels per inch, across and down, of two numbers per unit; None if they are none."""
  try:
    across, down = (float(value) * unit for value in found)  # type: ignore[attr-defined]
  except (TypeError, ValueError, ZeroDivisionError):
    return None
  return (across, down) if min(across, down) > 0 and math.isfinite(across + down) else None


def is_turned(orientation: int) -> bool:
  """Whether an orientation exchanges the height and the width."""
  return orientation in (5, 6, 7, 8)


def to_full_range(stored: UInt[np.ndarray, 'h w c'], bits: int) -> UInt[np.ndarray, 'h w c']:
  """Stretch values of `bits` bits to the whole range of their type."""
  peak, top = int(np.iinfo(stored.dtype).max), 2**bits - 1
  if top == peak:
    return stored
  table = (np.arange(top + 1, dtype=np.int64) * peak + top // 2) // top
  return table.astype(stored.dtype)[stored]


def to_stored_range(pixels: UInt[np.ndarray, 'h w c'], bits: int) -> UInt[np.ndarray, 'h w c']:
  """Compress the whole range of a type to values of `bits` bits; undoes `to_full_range`."""
  peak, top = int(np.iinfo(pixels.dtype).max), 2**bits - 1
  if top >= peak:
    return pixels
  table = (np.arange(peak + 1, dtype=np.int64) * top + peak // 2) // peak
  return table.astype(pixels.dtype)[pixels]


def without_alpha(
  pixels: UInt[np.ndarray, 'h w c'], bits: int
) -> tuple[UInt[np.ndarray, 'h w _'], tuple[str, ...]]:
  """Drop the alpha of samples of `bits` bits, with a remark unless it is opaque."""
  if pixels.shape[2] not in (2, 4):
    return pixels, ()
  opaque = bool((pixels[..., -1] >= 2**bits - 1).all())
  remarks = () if opaque else (TRANSPARENT,)
  return np.ascontiguousarray(pixels[..., :-1]), remarks


def widen(samples: UInt[np.ndarray, '...'], bits: int) -> UInt[np.ndarray, '...']:
  """Scale samples of fewer than 8 bits to 8, as decoders of PNG do; others stay."""
  return (samples * (255 // (2**bits - 1))).astype(np.uint8) if bits in (1, 2, 4) else samples
