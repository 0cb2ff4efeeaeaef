"""Read and write TIFF by tifffile, which decodes compressed and packed samples with imagecodecs.

The photometric interpretation, the planar configuration, the orientation and MaxSampleValue are
applied. Samples that are signed, floats or of more than 16 bits are refused by name, since they
do not say which of their values is white.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt

from jaxsr.data import decoded
from jaxsr.data.decoded import Decoded, ImageInfo
from jaxsr.data.dicom import File
from jaxsr.data.raster import Header
from jaxsr.errors import ImageError, TooLargeError, one_line

_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_KINDS = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR)
_UNSIGNED, _SIGNED, _FLOAT, _UNTYPED = 1, 2, 3, 4
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_JPEG = (6, 7, 33007, 34892)  # compressions
_UNCOMPRESSED = 1
_ASSOCIATED_ALPHA = 1
_MAX_SAMPLE_VALUE = 281
_CONVERT = 'convert it to unsigned 16-bit integers'


class _ThisThread(threading.local):
  quiet = False


_this_thread = _ThisThread()
logging.getLogger('tifffile').addFilter(lambda record: not _this_thread.quiet)


def recognise(head: bytes) -> bool:
  """Whether a file's first bytes are those of TIFF or BigTIFF."""
  return head.startswith(_MAGIC)


def check(file: File, path: Path) -> Header:
  """Check a file without decoding it; raises ImageError as `read` does, as far as tags tell."""
  with _page(file, path) as page:
    height, width = page.imagelength, page.imagewidth
    if decoded.is_turned(_tag(page, 'Orientation', 1)):
      height, width = width, height
    kind = page.photometric
    palette = kind == _PALETTE
    bits = 8 * _palette(page).itemsize if palette else 16 if page.bitspersample > 8 else 8
    return Header(height, width, bits, kind in (_RGB, _PALETTE, _YCBCR))


def read(file: File, path: Path) -> Decoded:
  """Decode a file; raises ImageError if it is damaged or holds what cannot be read without loss."""
  with _page(file, path) as page:
    try:
      pixels = page.asarray(maxworkers=1)
    except Exception as error:  # tifffile and the codecs raise many kinds
      raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
    bits, kind, exact = page.bitspersample, page.photometric, False
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    pixels = _channels_last(pixels, page, path)
    pixels, remarks = _color_of(pixels, page, path)
    if kind == _PALETTE:
      bits = None
    elif bits < 8:
      pixels, bits = decoded.widen(pixels.astype(np.uint8), bits), None
    elif bits in (8, 16):
      bits = _significant(page, bits)
    else:
      exact = True
    dtype = np.uint8 if pixels.itemsize == 1 else np.uint16
    return Decoded(
      decoded.orient(pixels.astype(dtype, copy=False), _tag(page, 'Orientation', 1)),
      bits=bits,
      exact=exact,
      white_is_zero=kind == _WHITE_IS_ZERO,
      dpi=_dpi(page),
      icc=page.iccprofile,
      remarks=remarks,
      lossy=page.compression in _JPEG,
    )


@contextmanager
def _page(file: File, path: Path) -> Iterator[Any]:
  """Open a file and yield its main image, checked; tifffile's log is suppressed."""
  start = file.tell()
  size = file.seek(0, os.SEEK_END) - start
  file.seek(start)
  _this_thread.quiet = True
  try:
    try:
      tif = tifffile.TiffFile(file)
    except Exception as error:
      raise ImageError(
        path, f'is damaged, not a TIFF that can be read ({one_line(error)})'
      ) from error
    try:
      page = _main(tif, path)
      _check_page(page, path)
      _check_segments(page, path, size)
    except ImageError:
      raise
    except Exception as error:
      raise ImageError(path, f'is damaged, its tags cannot be read ({one_line(error)})') from error
    yield page
  finally:
    _this_thread.quiet = False


def _main(tif: tifffile.TiffFile, path: Path) -> Any:
  """Find the image among thumbnails, reduced copies and masks."""
  pages: list[Any] = list(tif.pages)
  full = [page for page in pages if not _is_reduced(page)]
  below = [sub for page in pages for sub in _sub_images(page) if not _is_reduced(sub)]
  largest = max((page.imagelength * page.imagewidth for page in full), default=0)
  full += [sub for sub in below if sub.imagelength * sub.imagewidth >= largest]
  full = full or pages
  stack = (tif.imagej_metadata or {}).get('images', 1) if tif.is_imagej else 1
  count = max(len(full), int(stack))
  if count != 1:
    raise ImageError(path, f'holds {count} frames; split it first')
  return full[0]


def _sub_images(page: Any) -> list[Any]:
  return list(page.pages) if page.subifds else []


def _is_reduced(page: Any) -> bool:
  old = page.tags.get('SubfileType')
  return bool(page.subfiletype & (_REDUCED | _MASK)) or (old is not None and old.value == 2)


def _check_page(page: Any, path: Path) -> None:
  bits, kind, samples = page.bitspersample, page.photometric, page.samplesperpixel
  height, width = page.imagelength, page.imagewidth
  if not height or not width:
    raise ImageError(path, 'is TIFF without an image (its sides are 0)')
  if height * width > decoded.MAX_PIXELS:
    limit = decoded.MAX_PIXELS
    raise TooLargeError(path, f'has {width}x{height} pixels, more than {limit}; crop it first')
  if page.imagedepth > 1:
    raise ImageError(path, f'is a volume of {page.imagedepth} planes; split it first')
  if page.sampleformat == _FLOAT:
    raise ImageError(path, f'is TIFF with float{bits} samples, which are not supported; {_CONVERT}')
  if page.sampleformat == _SIGNED:
    what = f'is TIFF with signed {bits}-bit samples'
    raise ImageError(path, f'{what}, which are not supported; {_CONVERT}')
  if page.sampleformat not in (_UNSIGNED, _UNTYPED):
    raise ImageError(path, f'is TIFF with complex samples, which are not supported; {_CONVERT}')
  if not isinstance(bits, int) or not 0 < bits <= 16 or page.dtype is None:
    raise ImageError(path, f'is TIFF with {bits}-bit samples, which are not supported; {_CONVERT}')
  if 'PhotometricInterpretation' not in page.tags:
    raise ImageError(path, 'is TIFF that lacks PhotometricInterpretation (262): 0 may be black')
  name = getattr(kind, 'name', kind)
  subsampled = kind == _YCBCR and page.compression not in _JPEG
  if kind not in _KINDS or subsampled:
    what = f'is TIFF with photometric interpretation {name}'
    raise ImageError(path, f'{what}, which is not supported; convert it to gray or RGB')
  if bits < 8 and samples > 1:
    what = f'is TIFF with {samples} samples of {bits} bits per pixel'
    raise ImageError(path, f'{what}, which is not supported; convert it to 8-bit gray')
  wanted = {_RGB: (3, 4), _YCBCR: (3, 4), _PALETTE: (1,)}.get(kind, (1, 2))
  if samples not in wanted:
    what = f'is TIFF with {samples} samples per pixel of photometric interpretation {name}'
    raise ImageError(path, f'{what}, which is not supported; convert it to gray or RGB')


def _check_segments(page: Any, path: Path, size: int) -> None:
  """Refuse a file that lacks pixels, which tifffile would fill with zeros."""
  segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
  needed = int(np.prod(page.chunked))
  missing = len(segments) < needed or any(not count for _, count in segments[:needed])
  if missing or any(offset + count > size for offset, count in segments):
    raise ImageError(path, 'is truncated (it lacks a part of its pixels); fetch it again')
  if page.compression == _UNCOMPRESSED and page.photometric != _YCBCR and not page.is_tiled:
    row = -(-page.imagewidth * page.bitspersample * _together(page) // 8)
    rows = page.imagelength * (page.samplesperpixel // _together(page))
    if sum(count for _, count in segments) < row * rows:
      raise ImageError(path, 'is truncated (it lacks a part of its pixels); fetch it again')


def _together(page: Any) -> int:
  """Returns the number of samples of a pixel that are stored beside each other."""
  return page.samplesperpixel if page.planarconfig == 1 else 1


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
  if page.photometric == _PALETTE:
    table = _palette(page)
    return table[np.minimum(pixels[..., 0], len(table) - 1)], ()
  pixels, remarks = decoded.without_alpha(pixels, page.bitspersample)
  if remarks and page.extrasamples and page.extrasamples[0] == _ASSOCIATED_ALPHA:
    reason = 'has transparent pixels that were multiplied by alpha; flatten it first'
    raise ImageError(path, reason)
  return pixels, remarks


def _palette(page: Any) -> UInt[np.ndarray, 'n 3']:
  """Returns the color map, in 8 bits if it holds no more than that."""
  table = np.asarray(page.colormap).T
  if (table % 257 == 0).all():
    return (table // 257).astype(np.uint8)
  return (table >> 8).astype(np.uint8) if (table % 256 == 0).all() else table.astype(np.uint16)


def _significant(page: Any, bits: int) -> int | None:
  """Returns the bits of MaxSampleValue, if it is the largest value of a number of bits."""
  found = _tag(page, 'MaxSampleValue', None)
  found = max(found) if isinstance(found, tuple) and found else found
  if not isinstance(found, int) or not 0 < found < 2**bits or found & (found + 1):
    return None  # others are the largest value that this image happens to hold
  return found.bit_length()


def _tag(page: Any, name: str, default: Any) -> Any:
  tag = page.tags.get(name)
  value = default if tag is None else tag.value
  return int(value) if isinstance(value, int) else value


def _dpi(page: Any) -> tuple[float, float] | None:
  """Returns pixels per inch of the upright image, across and down."""
  unit = {2: 1.0, 3: 2.54}.get(_tag(page, 'ResolutionUnit', 2))
  ratios = [_tag(page, name, None) for name in ('XResolution', 'YResolution')]
  try:
    across, down = (part / whole * (unit or 0) for part, whole in ratios)
  except (TypeError, ValueError, ZeroDivisionError):
    return None
  if min(across, down) <= 0:
    return None
  turned = decoded.is_turned(_tag(page, 'Orientation', 1))
  return (down, across) if turned else (across, down)


def write(path: Path, array: UInt[np.ndarray, 'h w c'], note: str, info: ImageInfo) -> None:
  """Write stored values, with a comment and the metadata."""
  gray = array.shape[2] == 1
  tifffile.imwrite(
    path, array[..., 0] if gray else array, **_options(array.shape, note, info, 8 * array.itemsize)
  )


def write_empty(
  path: Path, shape: tuple[int, int, int], kind: Any, note: str, info: ImageInfo
) -> int:
  """Write a file whose pixels follow, little-endian and row by row; returns where they begin."""
  kind = np.dtype(kind).newbyteorder('<')
  form = shape[:2] if shape[2] == 1 else shape
  found = tifffile.imwrite(
    path,
    shape=form,
    dtype=kind,
    byteorder='<',
    returnoffset=True,
    **_options(shape, note, info, 8 * kind.itemsize),
  )
  assert found is not None
  return found[0]


def _options(shape: tuple[int, ...], note: str, info: ImageInfo, container: int) -> dict[str, Any]:
  """Returns the options of tifffile for the comment and the metadata."""
  gray = shape[2] == 1
  tops = (2**info.bits - 1,) * shape[2]
  limit = (_MAX_SAMPLE_VALUE, 'H', len(tops), tops, True)
  return {
    'photometric': 'minisblack' if gray else 'rgb',
    'planarconfig': None if gray else 'contig',
    'description': note.encode(errors='replace') or None,
    'resolution': info.dpi,
    'resolutionunit': 'INCH' if info.dpi else None,
    'iccprofile': info.icc,
    'extratags': [limit] if info.bits < container else [],
    'software': False,
    'metadata': None,
  }


def read_note(file: File) -> str:
  """Read the comment that `write` put into a file; '' if there is none."""
  _this_thread.quiet = True
  try:
    with tifffile.TiffFile(file) as tif:
      return tif.pages.first.description
  finally:
    _this_thread.quiet = False
