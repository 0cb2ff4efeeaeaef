"""Find the image among the pages of a TIFF file, and check that it can be read.

Samples that are signed, floats or of more than 16 bits are refused by name, since they do not say
which of their values is white.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from jaxsr.data import decoded
from jaxsr.data.dicom import File
from jaxsr.data.tiff_segments import FAX, JPEG, LOSSLESS, row_bytes
from jaxsr.errors import ImageError, TooLargeError, one_line

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
_KINDS = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR)
_UNSIGNED, _SIGNED, _FLOAT, _UNTYPED = 1, 2, 3, 4
_COMPLEX = (5, 6)  # of integers and of floats
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_UNCOMPRESSED = 1
_IMAGES = (33003, 33004, 33005, 34712, 34887, 34933, 50001, 50002, 52546)  # JPEG 2000 to JPEG XL
_READ = (_UNCOMPRESSED, *FAX, *JPEG, *LOSSLESS, *_IMAGES)
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # LZW, Deflate, LZMA, Zstandard
_SHAPE = re.compile(r'\{"shape": \[([\d, ]+)\].*"truncated": true')  # of frames, by tifffile
_CONVERT = 'convert it to unsigned 16-bit integers'


class _ThisThread(threading.local):
  quiet = False


_this_thread = _ThisThread()
logging.getLogger('tifffile').addFilter(lambda record: not _this_thread.quiet)


@contextmanager
def quiet() -> Iterator[None]:
  """Suppress the log of tifffile in this thread."""
  _this_thread.quiet = True
  try:
    yield
  finally:
    _this_thread.quiet = False


@contextmanager
def main_page(file: File, path: Path) -> Iterator[Any]:
  """Open a file and yield its main image, checked; tifffile's log is suppressed."""
  start = file.tell()
  size = file.seek(0, os.SEEK_END) - start
  file.seek(start)
  with quiet():
    try:
      tif = tifffile.TiffFile(file)
    except TypeError as error:  # int() of a tuple
      text = 'has several values in a tag that must have one, such as SampleFormat of samples that'
      raise ImageError(path, f'{text} differ in type; {_CONVERT}') from error
    except Exception as error:
      text = f'is damaged, not a TIFF that can be read ({one_line(error)})'
      raise ImageError(path, text) from error
    try:
      page = _main(tif, path)
      _check_page(page, path)
      _check_segments(page, path, size)
    except ImageError:
      raise
    except Exception as error:
      raise ImageError(path, f'is damaged, its tags cannot be read ({one_line(error)})') from error
    yield page


def _main(tif: tifffile.TiffFile, path: Path) -> Any:
  """Find the image among thumbnails, reduced copies and masks."""
  pages: list[Any] = list(tif.pages)
  full = [page for page in pages if not _is_reduced(page)]
  below = [sub for page in pages for sub in _sub_images(page) if not _is_reduced(sub)]
  largest = max((page.imagelength * page.imagewidth for page in full), default=0)
  full += [sub for sub in below if sub.imagelength * sub.imagewidth >= largest]
  full = full or pages
  count = max(len(full), _frames(tif, full[0]))
  if count != 1:
    raise ImageError(path, f'holds {count} frames; split it first')
  return full[0]


def _frames(tif: tifffile.TiffFile, page: Any) -> int:
  """Returns the number of frames behind one page, as some programs store stacks."""
  if tif.is_imagej:
    return int((tif.imagej_metadata or {}).get('images', 1))
  if tif.is_stk:
    return int((tif.stk_metadata or {}).get('NumberPlanes', 1))
  if found := _SHAPE.match(page.description):
    size = np.prod([int(side) for side in re.findall(r'\d+', found[1])])
    return int(size) // max(page.size, 1)
  return 1


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
  if page.is_tiled and page.tilelength * page.tilewidth > decoded.MAX_PIXELS:
    size, limit = f'{page.tilewidth}x{page.tilelength}', decoded.MAX_PIXELS
    raise TooLargeError(
      path, f'has tiles of {size} pixels, more than {limit}; write it without tiles'
    )
  if page.imagedepth > 1:
    raise ImageError(path, f'is a volume of {page.imagedepth} planes; split it first')
  if page.sampleformat == _FLOAT:
    raise ImageError(path, f'is TIFF with float{bits} samples, which are not supported; {_CONVERT}')
  if page.sampleformat == _SIGNED:
    what = f'is TIFF with signed {bits}-bit samples'
    raise ImageError(path, f'{what}, which are not supported; {_CONVERT}')
  if page.sampleformat in _COMPLEX:
    raise ImageError(path, f'is TIFF with complex samples, which are not supported; {_CONVERT}')
  if page.sampleformat not in (_UNSIGNED, _UNTYPED):
    what = f'is TIFF with SampleFormat (339) {int(page.sampleformat)}, which is not known'
    raise ImageError(path, f'{what}; {_CONVERT}')
  if not isinstance(bits, int) or not 0 < bits <= 16 or page.dtype is None:
    raise ImageError(path, f'is TIFF with {bits}-bit samples, which are not supported; {_CONVERT}')
  if page.compression not in _READ:  # JPEG XR, for one, whose decoder fills what is missing
    what = f'is TIFF compressed as {compression(page)}, which is not supported'
    raise ImageError(path, f'{what}; convert it to PNG')
  if 'PhotometricInterpretation' not in page.tags:
    raise ImageError(path, 'is TIFF that lacks PhotometricInterpretation (262): 0 may be black')
  if page.predictor != 1 and page.compression not in _WITH_PREDICTOR:
    _drop_predictor(page, path)
  if page.predictor not in (1, 2):
    what = f'is TIFF with predictor {int(page.predictor)}, which integers cannot have'
    raise ImageError(path, f'{what}; {_CONVERT}')
  if page.predictor == 2 and bits not in (8, 16):
    what = (
      f'is TIFF with a predictor on packed samples of {bits} bits, which readers do not support'
    )
    raise ImageError(path, f'{what}; write it without the predictor')
  name = getattr(kind, 'name', kind)
  subsampled = kind == YCBCR and page.compression not in JPEG
  if kind not in _KINDS or subsampled:
    what = f'is TIFF with photometric interpretation {name}'
    raise ImageError(path, f'{what}, which is not supported; convert it to gray or RGB')
  if bits < 8 and samples > 1:
    what = f'is TIFF with {samples} samples of {bits} bits per pixel'
    raise ImageError(path, f'{what}, which is not supported; convert it to 8-bit gray')
  wanted = {RGB: (3, 4), YCBCR: (3, 4), PALETTE: (1,)}.get(kind, (1, 2))
  if samples not in wanted:
    what = f'is TIFF with {samples} samples per pixel of photometric interpretation {name}'
    raise ImageError(path, f'{what}, which is not supported; convert it to gray or RGB')


def _drop_predictor(page: Any, path: Path) -> None:
  """Ignore a predictor without compression as libtiff does, which tifffile would apply."""
  if page.compression not in (_UNCOMPRESSED, *JPEG, *tifffile.TIFF.IMAGE_COMPRESSIONS):
    what = f'is TIFF with a predictor and compression {compression(page)}, which readers do not'
    raise ImageError(path, f'{what} agree about; write it without the predictor')
  page.predictor = 1


def compression(page: Any) -> str:
  """Returns the name of a page's compression."""
  return str(getattr(page.compression, 'name', page.compression))


def _check_segments(page: Any, path: Path, size: int) -> None:
  """Refuse a file that lacks pixels, which tifffile would fill with zeros."""
  kind = 'TileByteCounts (325)' if page.is_tiled else 'StripByteCounts (279)'
  needed = int(np.prod(page.chunked))
  if kind.split()[0] not in page.tags and needed > 1:
    if page.compression != _UNCOMPRESSED:
      text = f'is TIFF that lacks {kind}, so its {needed} compressed parts have no known end'
      raise ImageError(path, f'{text}; save it with another program')
    page.databytecounts = tuple(_segment_bytes(page))
  segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
  if empty := sum(not count for _, count in segments[:needed]):
    text = f'has no data for {empty} of the {needed} parts of its pixels: it is sparse, or was not'
    raise ImageError(
      path, f'{text} written to its end; gdal_translate writes a sparse file in full'
    )
  if len(segments) < needed or any(offset + count > size for offset, count in segments):
    raise ImageError(path, 'is truncated (it lacks a part of its pixels); fetch it again')
  if page.compression == _UNCOMPRESSED and page.photometric != YCBCR:
    needed_bytes = _segment_bytes(page)
    for (offset, count), least in zip(segments, needed_bytes, strict=False):
      if count < least or offset <= page.offset < offset + least:
        raise ImageError(path, 'is truncated (it lacks a part of its pixels); fetch it again')


def _segment_bytes(page: Any) -> list[int]:
  """Returns the bytes that each strip or tile without compression needs."""
  count = int(np.prod(page.chunked))
  if page.is_tiled:
    return [row_bytes(page) * page.tilelength] * count
  starts = range(0, page.imagelength, page.rowsperstrip)
  rows = [min(page.rowsperstrip, page.imagelength - start) for start in starts]
  return [row_bytes(page) * rows[index % len(rows)] for index in range(count)]


def tag(page: Any, name: str, default: Any) -> Any:
  """Returns the value of a tag."""
  found = page.tags.get(name)
  value = default if found is None else found.value
  return int(value) if isinstance(value, int) else value
