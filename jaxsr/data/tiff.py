"""Read TIFF by tifffile, which decodes compressed and packed samples with imagecodecs.

The photometric interpretation, the planar configuration, the orientation and MaxSampleValue are
applied.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt

from jaxsr.data import bit_depth, decoded, tiff_pages, tiff_segments
from jaxsr.data.decoded import Decoded
from jaxsr.data.dicom import File
from jaxsr.data.raster import Header
from jaxsr.data.tiff_pages import PALETTE, RGB, WHITE_IS_ZERO, YCBCR, tag
from jaxsr.errors import ImageError, one_line

_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_RESOLUTION = ('XResolution', 'YResolution')
_IMAGEJ_UNITS = {  # per inch
  **dict.fromkeys(('inch', 'in'), 1.0),
  **dict.fromkeys(('cm', 'centimeter'), 2.54),
  **dict.fromkeys(('mm', 'millimeter'), 25.4),
  **dict.fromkeys(('um', '\u00b5m', '\u03bcm', '\\u00B5m', 'micron'), 25400.0),
}
_ASSOCIATED_ALPHA, _ALPHA = 1, 2  # kinds of extra samples


def recognize(head: bytes) -> bool:
  """Whether a file's first bytes are those of TIFF or BigTIFF."""
  return head.startswith(_MAGIC)


def check(file: File, path: Path) -> Header:
  """Check a file without decoding it; raises ImageError as `read` does, as far as tags tell."""
  with tiff_pages.main_page(file, path) as page:
    height, width = page.imagelength, page.imagewidth
    if decoded.is_turned(_orientation(page)):
      height, width = width, height
    kind = page.photometric
    palette = kind == PALETTE
    bits = 8 * _palette(page).itemsize if palette else 16 if page.bitspersample > 8 else 8
    return Header(height, width, bits, kind in (RGB, PALETTE, YCBCR))


def read(file: File, path: Path) -> Decoded:
  """Decode a file; raises ImageError if it is damaged or holds what cannot be read without loss."""
  with tiff_pages.main_page(file, path) as page:
    try:
      pixels, compressed = tiff_segments.read(page)
    except MemoryError:
      raise
    except Exception as error:  # tifffile and the codecs raise many kinds
      kind = f' as {tiff_pages.compression(page)}' if page.compression != 1 else ''
      text = f'cannot be decoded{kind} ({one_line(error)})'
      raise ImageError(path, text) from error
    bits, kind, exact = page.bitspersample, page.photometric, False
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    pixels = _channels_last(pixels, page, path)
    pixels, remarks = _color_of(pixels, page, path)
    if kind == PALETTE:
      bits = None
    elif compressed < bits:
      text = f'its compressed data has {compressed} bits, its tags say {bits}; it is read as'
      way_out = f'if that is wrong, {bit_depth.name_bits(bits)}'
      remarks = (*remarks, f'{text} {compressed}-bit; {way_out}')
      bits = compressed
    elif bits in (1, 2, 4):
      pixels, bits = decoded.widen(pixels.astype(np.uint8), bits), None
    elif bits in (8, 16):
      bits = _significant(page, bits)
    else:
      exact = True
    dtype = np.uint8 if pixels.itemsize == 1 else np.uint16
    return Decoded(
      decoded.orient(pixels.astype(dtype, copy=False), _orientation(page)),
      bits=bits,
      exact=exact,
      white_is_zero=kind == WHITE_IS_ZERO,
      dpi=_dpi(page),
      icc=page.iccprofile,
      remarks=remarks,
      lossy=page.compression in tiff_segments.JPEG,
    )


def _orientation(page: Any) -> int:
  return decoded.as_orientation(tag(page, 'Orientation', 1))


def _channels_last(
  pixels: Shaped[np.ndarray, '...'], page: Any, path: Path
) -> UInt[np.ndarray, 'h w c']:
  height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
  if samples == 1:
    pixels = pixels.reshape(height, width, 1)
  elif page.planarconfig != 1:
    pixels = np.moveaxis(pixels.reshape(samples, height, width), 0, 2)
  else:
    pixels = pixels.reshape(height, width, samples)
  if pixels.dtype.kind != 'u' or pixels.itemsize > 2:
    raise ImageError(path, f'decodes to {pixels.dtype} samples, which are not supported')
  return pixels


def _color_of(
  pixels: UInt[np.ndarray, 'h w c'], page: Any, path: Path
) -> tuple[UInt[np.ndarray, 'h w _'], tuple[str, ...]]:
  """Apply the palette, and drop alpha."""
  if page.photometric == PALETTE:
    table, largest = _palette(page), int(pixels.max())
    if largest >= len(table):
      text = f'has the color {largest}, but its palette ends at {len(table) - 1}; fetch it again'
      raise ImageError(path, text)
    return table[pixels[..., 0]], ()
  pixels, remarks = decoded.without_alpha(pixels, page.bitspersample)
  kind = page.extrasamples[0] if page.extrasamples else 0
  if remarks and kind not in (_ASSOCIATED_ALPHA, _ALPHA):
    remarks = ('its extra sample, of which the file does not say what it is, is ignored',)
  if remarks and kind == _ASSOCIATED_ALPHA:
    reason = 'has transparent pixels that were multiplied by alpha; flatten it first'
    raise ImageError(path, reason)
  return pixels, remarks


def _palette(page: Any) -> UInt[np.ndarray, 'n 3']:
  """Returns the color map, in 8 bits if it holds no more than that."""
  table = np.asarray(page.colormap).T
  if table.max() < 256:  # some programs write 8 bits into its 16, which libtiff reads like this
    return table.astype(np.uint8)
  if (table % 257 == 0).all():
    return (table // 257).astype(np.uint8)
  return (table >> 8).astype(np.uint8) if (table % 256 == 0).all() else table.astype(np.uint16)


def _significant(page: Any, bits: int) -> int | None:
  """Returns the bits of MaxSampleValue, if it is the largest value of a number of bits."""
  found = tag(page, 'MaxSampleValue', None)
  found = max(found) if isinstance(found, tuple) and found else found
  if not isinstance(found, int) or not 0 < found < 2**bits or found & (found + 1):
    return None  # others are the largest value that this image happens to hold
  return found.bit_length()


def _dpi(page: Any) -> tuple[float, float] | None:
  """Returns pixels per inch of the upright image, across and down."""
  unit = decoded.UNITS_PER_INCH.get(tag(page, 'ResolutionUnit', 2))
  if unit is None and page.parent.is_imagej:
    unit = _IMAGEJ_UNITS.get(str((page.parent.imagej_metadata or {}).get('unit')))
  try:
    ratios = [part / whole for part, whole in (tag(page, name, None) for name in _RESOLUTION)]
  except (TypeError, ValueError, ZeroDivisionError):
    return None
  found = decoded.as_resolution(ratios, unit) if unit else None
  return (found[1], found[0]) if found and decoded.is_turned(_orientation(page)) else found
