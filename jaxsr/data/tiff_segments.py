"""Decode the strips and tiles of TIFF, and refuse those that hold fewer or other pixels.

tifffile takes what a decoder returns: short tiles are moved or filled, and so are scans of JPEG and
lines of CCITT that were cut or overwritten.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from jaxsr.data import decoded, jpeg, jpeg2000

JPEG = (6, 7, 33007, 34892)  # compressions
_JPEG_2000 = (33003, 33004, 33005, 34712)
LOSSLESS = (5, 8, 32773, 32946, 34925, 34926, 50000)  # LZW, Deflate, PackBits, LZMA, Zstandard
FAX = {2: 'tiff_ccitt', 3: 'group3', 4: 'group4'}  # names by Pillow
_FAX_TAGS = (282, 283, 292, 296)  # those that an encoding depends on: resolution and T4Options
_T6, _END_OF_FAX = 4, 2 * (11 * b'\0' + b'\1')
_SPARE = 1  # byte that encoders may add so that their number is even
_MSB_FIRST = 1
_PNG = 34933
_LERC, _LERC_HEADER = 34887, 64  # bytes that hold its header
_BY_TAGS = 'its tags say unsigned {}-bit'
_LERC_TYPES = ('i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'f4', 'f8')


class Short(ValueError):
  """A strip or tile does not hold the pixels that it should."""

  def __init__(self, index: int, found: object, wanted: object):
    super().__init__(f'part {index + 1} of its pixels has {found} instead of {wanted}')


class Differs(ValueError):
  """The samples of a strip or tile are of another type than the tags say, or than those before."""

  def __init__(self, index: int, found: object, wanted: object):
    super().__init__(f'part {index + 1} of its pixels has {found} samples, but {wanted}')


class TooLarge(ValueError):
  """The header of a strip or tile declares more pixels than any image may have."""

  def __init__(self, index: int, found: tuple[int, int]):
    size = f'{found[0]}x{found[1]} pixels, more than {decoded.MAX_PIXELS}'
    super().__init__(f'part {index + 1} of its pixels has {size}')


class UnusualFax(ValueError):
  """Lines of CCITT are encoded in another way than their pixels are."""

  def __init__(self) -> None:
    super().__init__('its lines are damaged, or encoded in an unusual way; convert it to PNG')


def read(page: Any) -> tuple[Shaped[np.ndarray, '...'], int]:
  """Returns the samples of a page, without its photometric interpretation, and their bits.

  These are 8 if the compressed data has so few although the tags say more.

  Raises:
    Short: A strip or tile has fewer or more pixels than the tags say.
    Differs: It has samples of another type than the tags say.
    jpeg.Damaged: A scan of JPEG is damaged, or a tile of JPEG 2000 is missing.
    Exception: Of tifffile and the codecs.
  """
  decode, sizes = page.decode, set()
  if page.compression in LOSSLESS:
    page.decode = _decoder_of_bytes(page, decode)
  elif page.compression != tifffile.COMPRESSION.NONE:
    page.decode = _decoder_of_images(page, decode, sizes)
  try:
    pixels = page.asarray(maxworkers=1)
    return pixels, 8 if sizes == {1} and pixels.itemsize > 1 else page.bitspersample
  finally:
    page.decode = decode


def row_bytes(page: Any) -> int:
  """Returns the bytes of a row of a strip or tile without compression."""
  width = page.tilewidth if page.is_tiled else page.imagewidth
  together = page.samplesperpixel if page.planarconfig == 1 else 1
  return -(-width * page.bitspersample * together // 8)


def _decoder_of_bytes(page: Any, decode: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a decoder of strips and tiles that are compressed as bytes."""
  decompress = tifffile.TIFF.DECOMPRESSORS[page.compression]
  dtype = np.dtype(page.parent.byteorder + page.dtype.char)
  packed = page.bitspersample not in (8, 16)

  def checked(data: bytes | None, index: int, **_: Any) -> Any:
    _, place, (depth, rows, width, samples) = decode(None, index)
    if data is None:
      raise Short(index, 0, 'more bytes')
    data = _in_order(data, page)
    wanted, full = row_bytes(page) * rows, row_bytes(page) * page.rowsperstrip
    found = decompress(data, out=max(wanted, full) + 2 * _SPARE)
    if not wanted <= len(found) <= wanted + _SPARE and len(found) != full:
      raise Short(index, len(found), f'{wanted} bytes')
    found = found[:wanted]
    if packed:
      import imagecodecs

      run = width * samples
      array = imagecodecs.packints_decode(found, dtype, page.bitspersample, runlen=run)
    else:
      array = np.frombuffer(found, dtype)
    array = array.reshape(depth, rows, width, samples).astype(dtype.newbyteorder('='), copy=False)
    if page.predictor != 1:
      array = tifffile.TIFF.UNPREDICTORS[page.predictor](array, axis=-2)
    return array, place, array.shape

  return checked


def _in_order(data: bytes, page: Any) -> bytes:
  """Returns bytes whose highest bit comes first."""
  if page.fillorder == _MSB_FIRST:
    return data
  import imagecodecs

  return bytes(imagecodecs.bitorder_decode(data))


def _decoder_of_images(
  page: Any, decode: Callable[..., Any], sizes: set[int]
) -> Callable[..., Any]:
  """Returns a decoder of strips and tiles that are images, with the checks of their kind.

  The bytes of the samples that it finds are added to `sizes`.
  """

  def checked(data: bytes | None, index: int, **options: Any) -> Any:
    if data is None:
      raise Short(index, 0, 'more bytes')
    _check_size(_declared(data, page), index)
    if page.compression in _JPEG_2000:
      jpeg2000.check(data)
    if page.compression == _LERC and (kind := _lerc_header(data)[0]) != page.dtype:
      raise Differs(index, kind, _BY_TAGS.format(page.bitspersample))  # tifffile ignores the type
    if (
      page.compression in JPEG
      and (array := _decode_gray_jpeg(data, options, page, index)) is not None
    ):
      _, place, shape = decode(None, index)
      array = array[None, : shape[1], : shape[2]]
    else:
      array, place, shape = decode(data, index, **options)
    _check_type(array.dtype, index, page, sizes)
    _, _, row, column, _ = place
    left = (1, min(shape[1], page.imagelength - row), min(shape[2], page.imagewidth - column))
    if any(found < wanted for found, wanted in zip(array.shape, left, strict=False)):
      raise Short(index, f'{array.shape[2]}x{array.shape[1]}', f'{left[2]}x{left[1]} pixels')
    if page.compression in FAX:
      _check_fax(_in_order(data, page), array[0, ..., 0], page)
    return array, place, shape

  return checked


def _check_size(size: tuple[int, int], index: int) -> None:
  """Raise TooLarge for more pixels than an image may have, for which a decoder takes memory."""
  if size[0] * size[1] > decoded.MAX_PIXELS:
    raise TooLarge(index, size)


def _declared(data: bytes, page: Any) -> tuple[int, int]:
  """Returns width and height in the header of JPEG 2000, PNG or LERC; zeros for others."""
  if page.compression in _JPEG_2000 and (header := jpeg2000.header(data)):
    return header[:2]
  if page.compression == _PNG:
    return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
  return _lerc_header(data)[1] if page.compression == _LERC else (0, 0)


def _check_type(found: np.dtype, index: int, page: Any, sizes: set[int]) -> None:
  """Raise Differs for samples that the type of the page cannot hold, or that differ in type."""
  if found.kind not in 'ub' or found.itemsize > page.dtype.itemsize:
    raise Differs(index, found, _BY_TAGS.format(page.bitspersample))
  sizes.add(found.itemsize)
  if len(sizes) > 1:
    raise Differs(index, found, 'others have more or fewer bits')


def _lerc_header(data: bytes) -> tuple[np.dtype, tuple[int, int]]:
  """Returns type, width and height of LERC (version 2), which may be compressed once more."""
  import imagecodecs

  if data.startswith(b'\x28\xb5\x2f\xfd'):
    data = bytes(imagecodecs.zstd_decode(data))
  elif not data.startswith(b'Lerc'):
    data = zlib.decompressobj().decompress(data, _LERC_HEADER)
  if not data.startswith(b'Lerc2 ') or len(data) < _LERC_HEADER:
    return np.dtype(np.float32), (0, 0)  # version 1 has no other type
  version = int.from_bytes(data[6:10], 'little')
  place = 14 if version >= 3 else 10  # behind a checksum
  height, width = struct.unpack_from('<2I', data, place)
  kind = int.from_bytes(data[place + 20 + (4 if version >= 4 else 0) :][:4], 'little')
  return np.dtype(_LERC_TYPES[kind]), (width, height)


def _decode_gray_jpeg(
  data: bytes, options: dict[str, Any], page: Any, index: int
) -> UInt[np.ndarray, 'h w 1'] | None:
  """Decode JPEG that is gray; None if it is in color.

  Raises jpeg.Damaged if a scan of any kind is damaged. Its tables, or its header, lie in `options`.
  """
  tables, header = options.get('jpegtables'), options.get('jpegheader')
  if header and not data.startswith(jpeg.MAGIC):
    data = header + data
  elif tables:
    data = tables[:-2] + data[2:]
  found = jpeg.frame(io.BytesIO(data))
  if found is None:
    raise jpeg.Damaged
  _check_size((found.width, found.height), index)
  if found.samples != 1:
    jpeg.check(data, found)
    if (found.bits > 8) != (page.bitspersample > 8):  # which the decoder would convert
      raise ValueError(f'it has {found.bits}-bit samples, but its tags say {page.bitspersample}')
    return None
  array, remarks = jpeg.decode(data, found)
  if remarks:
    raise jpeg.Damaged
  return array


def _check_fax(data: bytes, lines: UInt[np.ndarray, 'h w'], page: Any) -> None:
  """Raise UnusualFax if lines of CCITT, of which each has one encoding, have another one."""
  content = io.BytesIO()
  tags = {name: page.tags[name].value for name in _FAX_TAGS if name in page.tags}
  tags = {name: IFDRational(*x) if isinstance(x, tuple) else x for name, x in tags.items()}
  Image.fromarray(lines.astype(bool)).save(
    content, 'TIFF', compression=FAX[page.compression], strip_size=lines.size, tiffinfo=tags
  )
  content.seek(0)
  with tifffile.TiffFile(content) as tif:
    first = tif.pages.first
    content.seek(first.dataoffsets[0])
    wanted = _bits(content.read(first.databytecounts[0]))
  wanted = wanted.removesuffix(_END_OF_FAX) if page.compression == _T6 else wanted
  if not _bits(data).startswith(wanted):
    raise UnusualFax


def _bits(data: bytes) -> bytes:
  """Returns the bits up to the last 1, one per byte."""
  return np.unpackbits(np.frombuffer(data, np.uint8)).tobytes().rstrip(b'\0')
