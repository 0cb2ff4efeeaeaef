"""Read PNG, JPEG, BMP and WebP, and write PNG and JPEG, by Pillow.

Pillow cuts 16-bit PNG with color or alpha to 8 bits and does not know JPEG of 12 bits or lossless
JPEG, so those are decoded by imagecodecs.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxsr.data import decoded
from jaxsr.data.decoded import Decoded, ImageInfo
from jaxsr.data.dicom import File
from jaxsr.errors import ImageError, TooLargeError, one_line

FORMATS = ('PNG', 'JPEG', 'BMP', 'WEBP')
Image.MAX_IMAGE_PIXELS = None  # `decoded.MAX_PIXELS` is checked instead, before anything is decoded
PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
LEVEL = 4  # of 9: 26 ms for a film of 1024x1024 instead of 71 at the default 6, 4 % more bytes
_TRUNCATED = 'is truncated (its last chunk is not the end of a PNG); fetch it again'
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_COLOR = ('RGB', 'RGBA', 'RGBX', 'P', 'PA')
_GRAY = ('1', 'L', 'LA', 'I', *_SIXTEEN_BIT)
_ORIENTATION = 274
_LOSSY_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # markers of the kinds that Pillow decodes
_METADATA = ('exif', 'Raw profile type exif', 'Raw profile type APP1', 'xmp', 'XML:com.adobe.xmp')


class Header(NamedTuple):
  """What is known of a file without decoding it; the sides are those of the upright image."""

  height: int
  width: int
  bits: int
  may_be_color: bool


def recognise(head: bytes) -> bool:
  """Whether a file's first bytes are those of a format that is read here."""
  return head.startswith((PNG, _JPEG, b'BM')) or head[:4] + head[8:12] == b'RIFFWEBP'


def check(file: File, path: Path) -> Header:
  """Check a file without decoding it; raises ImageError as `read` does, as far as headers tell."""
  head = file.read(26)
  file.seek(0)
  if head.startswith(_JPEG) and (frame := _jpeg_frame(file)) and frame.is_special:
    _check_frame(frame, path)
    return Header(frame.height, frame.width, 16 if frame.bits > 8 else 8, False)
  late = _late_chunks(path) if head.startswith(PNG) else set()
  with _open(file, path) as image:
    if late & {b'eXIf', b'iTXt', b'tEXt', b'zTXt'}:
      _load(image, path)  # the orientation may follow the pixels
    width, height = image.size
    bits = 16 if image.mode in ('I', *_SIXTEEN_BIT) or _png_bits(head) == 16 else 8
    if decoded.is_turned(_orientation(image)):
      width, height = height, width
    return Header(height, width, bits, image.mode in _COLOR)


def read(file: File, path: Path) -> Decoded:
  """Decode a file; raises ImageError if it is damaged or holds what cannot be read without loss."""
  start = file.tell()
  head = file.read(len(PNG))
  file.seek(start)
  if head == PNG:
    return _read_png(file, path)
  if head.startswith(_JPEG) and (frame := _jpeg_frame(file)) and frame.is_special:
    return _read_special_jpeg(file, path, frame)
  with _open(file, path) as image:
    _load(image, path)
    pixels, remarks = decoded.without_alpha(_pixels(image), 8)
    return Decoded(
      decoded.orient(pixels, _orientation(image)) if image.info else pixels,
      dpi=_dpi(image),
      icc=image.info.get('icc_profile'),
      remarks=remarks,
      lossy=image.format in ('JPEG', 'MPO', 'WEBP'),
    )


def _read_png(file: File, path: Path) -> Decoded:
  content = file.read()
  chunks = list(_chunks(content, path))
  significant = None
  for name, start, end in chunks:
    if name == b'sBIT':
      significant = max(content[start:end], default=None)
  _check_last_pixels(content, chunks, path)
  file.seek(0)
  with _open(file, path) as image:
    _load(image, path)
    if _png_bits(content[:26]) == 16 and image.mode not in ('I', *_SIXTEEN_BIT):
      pixels = _decode_deep_png(content, path)
    else:
      pixels = _pixels(image)
    pixels, remarks = decoded.without_alpha(pixels, 8 * pixels.itemsize)
    orientation = _orientation(image)
    profile = image.info.get('icc_profile')
    dpi = _dpi(image)
  if significant is not None and not 0 < significant <= 8 * pixels.itemsize:
    significant = None
  if pixels.dtype == np.uint8:
    significant = None  # samples of fewer than 8 bits are scaled to 8 when they are written
  pixels = decoded.orient(pixels, orientation) if orientation > 1 else pixels
  return Decoded(pixels, bits=significant, dpi=dpi, icc=profile, remarks=remarks)


def _decode_deep_png(content: bytes, path: Path) -> UInt[np.ndarray, 'h w c']:
  """Decode 16-bit PNG with color or alpha."""
  import imagecodecs

  try:
    array = imagecodecs.png_decode(content)
  except Exception as error:
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  return array[..., None] if array.ndim == 2 else array


class _JpegFrame(NamedTuple):
  """The frame header of a JPEG."""

  marker: int
  bits: int
  height: int
  width: int
  samples: int

  @property
  def is_special(self) -> bool:
    """Whether Pillow cannot decode it: lossless JPEG, or not 8 bits per sample."""
    return self.marker not in _LOSSY_FRAMES or self.bits != 8


def _read_special_jpeg(file: File, path: Path, frame: _JpegFrame) -> Decoded:
  """Decode lossless JPEG and JPEG of 12 bits."""
  import imagecodecs

  _check_frame(frame, path)
  try:
    array = imagecodecs.jpeg8_decode(file.read())
  except Exception as error:
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  deep, lossy = frame.bits > 8, frame.marker in _LOSSY_FRAMES
  return Decoded(array[..., None], bits=frame.bits, exact=deep, lossy=lossy)


def _check_frame(frame: _JpegFrame, path: Path) -> None:
  if frame.samples != 1 or frame.bits > 16:
    known = frame.marker in _LOSSY_FRAMES
    kind = f'JPEG with {frame.bits}-bit samples' if known else 'lossless JPEG'
    raise ImageError(path, f'is {kind} in color, which is not supported; convert it to PNG')
  _check_size(path, frame.height, frame.width)


def _jpeg_frame(file: File) -> _JpegFrame | None:
  """Find the frame header; None if the file is damaged. Keeps the position."""
  start, found = file.tell(), None
  place = start + 2
  while found is None:
    file.seek(place)
    head = file.read(10)
    if len(head) < 10 or head[0] != 0xFF:
      break
    if head[1] == 0xFF:  # fill bytes
      place += 1
    elif 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
      height, width = int.from_bytes(head[5:7], 'big'), int.from_bytes(head[7:9], 'big')
      found = _JpegFrame(head[1], head[4], height, width, head[9])
    else:
      place += 2 + int.from_bytes(head[2:4], 'big')
  file.seek(start)
  return found


def _late_chunks(path: Path) -> set[bytes]:
  """Returns the names of the chunks of a PNG that follow its pixels, reading headers only."""
  late: set[bytes] = set()
  place, in_pixels = len(PNG), False
  with path.open('rb', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    while file.seek(place) == place and len(head := file.read(8)) == 8:
      name, place = head[4:], place + 12 + int.from_bytes(head[:4], 'big')
      in_pixels = in_pixels or name == b'IDAT'
      if in_pixels:
        late.add(name)
      if name == b'IEND' and place <= size:
        return late
  raise ImageError(path, _TRUNCATED)


def _chunks(content: bytes, path: Path) -> Iterator[tuple[bytes, int, int]]:
  """Yield the name, start and end of each chunk of a PNG; bytes after the last one are ignored."""
  place = len(PNG)
  while place + 12 <= len(content):
    name = content[place + 4 : place + 8]
    start, end = place + 8, place + 8 + int.from_bytes(content[place : place + 4], 'big')
    if end + 4 > len(content):
      break
    yield name, start, end
    if name == b'IEND':
      return
    place = end + 4
  raise ImageError(path, _TRUNCATED)


def _check_last_pixels(content: bytes, chunks: list[tuple[bytes, int, int]], path: Path) -> None:
  """Check the sum of the last chunk of pixels, the one that Pillow does not check."""
  last = [(start, end) for name, start, end in chunks if name == b'IDAT'][-1:]
  for start, end in last:
    if zlib.crc32(memoryview(content)[start - 4 : end]) != int.from_bytes(content[end : end + 4]):
      raise ImageError(path, 'cannot be decoded (a checksum of its pixels differs)')


def _png_bits(head: bytes) -> int:
  return head[24] if head.startswith(PNG) and len(head) == 26 else 0


def _open(file: File, path: Path) -> Image.Image:
  try:
    image = Image.open(file, formats=FORMATS)
  except Exception as error:
    raise ImageError(path, 'is damaged (its header cannot be read); fetch it again') from error
  try:
    _check_header(path, image)
  except ImageError:
    image.close()
    raise
  return image


def _check_header(path: Path, image: Image.Image) -> None:
  _check_size(path, image.height, image.width)
  frames = getattr(image, 'n_frames', 1)
  if frames > 1 and image.format != 'MPO':  # whose first frame is the image, others are previews
    raise ImageError(path, f'holds {frames} frames; split it first')
  if image.mode not in (*_GRAY, *_COLOR):
    kind = f'is {image.format} with {image.mode} samples, which are not supported'
    raise ImageError(path, f'{kind}; convert it to gray or RGB')


def _check_size(path: Path, height: int, width: int) -> None:
  if width * height > decoded.MAX_PIXELS:
    limit = decoded.MAX_PIXELS
    raise TooLargeError(path, f'has {width}x{height} pixels, more than {limit}; crop it first')


def _load(image: Image.Image, path: Path) -> None:
  try:
    image.load()
  except Exception as error:  # Pillow raises OSError, SyntaxError, zlib.error, struct.error, ...
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error


def _pixels(image: Image.Image) -> UInt[np.ndarray, 'h w c']:
  if image.mode in _SIXTEEN_BIT or image.mode == 'I':
    array = np.asarray(image).astype(np.uint16)
  elif image.mode in ('P', 'PA'):
    array = np.asarray(image.convert('RGB'))
  elif image.mode == 'RGBX':
    array = np.asarray(image)[..., :3]
  else:
    array = np.asarray(image.convert('L') if image.mode == '1' else image)
  return array[..., None] if array.ndim == 2 else array


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation of an image whose header, or pixels, were read."""
  if not any(name in image.info for name in _METADATA):
    return 1
  try:
    found = Image.Image.getexif(image).get(_ORIENTATION, 1)
  except Exception:  # damaged metadata does not make the pixels unusable
    return 1
  return found if isinstance(found, int) else 1


def _dpi(image: Image.Image) -> tuple[float, float] | None:
  found = image.info.get('dpi')
  if not isinstance(found, tuple) or len(found) != 2 or not min(found) > 0:
    return None
  across, down = (float(value) for value in found)
  return (down, across) if decoded.is_turned(_orientation(image)) else (across, down)


def write(path: Path, array: UInt[np.ndarray, 'h w c'], kind: str, note: str, info: ImageInfo):
  """Write stored values as PNG or JPEG, with a comment and the metadata."""
  image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
  options: dict[str, Any] = {'icc_profile': info.icc} if info.icc else {}
  if info.dpi:
    options['dpi'] = info.dpi
  if kind == 'JPEG':
    options |= {'quality': 95} | ({'comment': note} if note else {})
  else:
    text = PngInfo()
    if info.bits < 8 * array.itemsize:
      text.add(b'sBIT', bytes([info.bits] * array.shape[2]))
    if note:
      text.add_text('Comment', note)
    options |= {'compress_level': LEVEL, 'pnginfo': text}
  image.save(path, format=kind, **options)


def read_note(file: File) -> str:
  """Read the comment that `write` put into a file; '' if there is none."""
  with Image.open(file, formats=FORMATS) as image:
    found = image.info.get('Comment') or image.info.get('comment') or b''
  return found.decode(errors='replace') if isinstance(found, bytes) else str(found)
