"""Decode JPEG, lossless JPEG and JPEG-LS, and refuse scans that are damaged.

libjpeg fills what is missing of a scan with gray, and only warns. simplejpeg, which is
libjpeg-turbo as in Pillow, turns its warnings into errors. imagecodecs decodes JPEG of more than 8
bits, lossless JPEG and JPEG-LS.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from jaxsr.data.dicom_limits import File

MAGIC = b'\xff\xd8\xff'
_LOSSY = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # markers of the frames that Pillow decodes
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_NAMES = {_LOSSLESS: 'lossless JPEG', 0xCB: 'arithmetic-coded lossless JPEG', _JPEG_LS: 'JPEG-LS'}
_FRAMES = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, b'\xff\xd9'
_DAMAGE = re.compile(
  r'premature end|bad Huffman code|bad arithmetic code|instead of RST', re.IGNORECASE
)
_EXTRANEOUS = re.compile(r'(\d+) extraneous bytes before marker 0xd')
_FEW = 4  # bytes that the encoders of some cameras leave between a scan and the next marker
_OTHER_BITS = 64 * b'\x1b'  # every pair of bits, so no pixel's code is repeated


class Damaged(ValueError):
  """A part of a scan is missing or was overwritten."""

  def __init__(self) -> None:
    super().__init__('a part of its compressed pixels is missing or overwritten')


class Frame(NamedTuple):
  """The frame header of a JPEG."""

  marker: int
  bits: int
  height: int
  width: int
  samples: int
  header: bytes  # of the file, up to the first scan

  @property
  def is_special(self) -> bool:
    """Whether simplejpeg and Pillow cannot decode it: not JPEG of 8 bits with losses."""
    return self.marker not in _LOSSY or self.bits != 8

  @property
  def is_lossy(self) -> bool:
    """Whether the pixels may differ from those that were compressed."""
    return self.marker in _LOSSY

  def unsupported(self) -> str:
    """Returns why this kind of JPEG is not read; '' if it is."""
    if self.is_lossy:
      name = 'JPEG' if self.bits == 8 else f'JPEG with {self.bits}-bit samples'
    else:
      name = _NAMES.get(self.marker, 'hierarchical JPEG')
    if not self.is_lossy and self.marker not in (_LOSSLESS, _JPEG_LS):
      return f'is {name}'
    if not self.height or not self.width:
      return f'is {name} without a size in its header'
    if self.samples == 3:
      return f'is {name} in color' if self.is_special else ''
    kind = ' (CMYK)' if self.samples == 4 else ''
    return '' if self.samples == 1 else f'is {name} with {self.samples} samples per pixel{kind}'

  def as_baseline(self) -> io.BytesIO:
    """Returns the header as that of JPEG with 8 bits, of which Pillow reads the metadata."""
    content = bytearray(self.header + b'\xff\xda\0\x08\x01\x01\0\0\x3f\0' + _END)
    for marker, place, _ in _segments(io.BytesIO(self.header)):
      if marker == self.marker:
        content[place + 1], content[place + 4] = 0xC0, 8
    return io.BytesIO(content)


def frame(file: File) -> Frame | None:
  """Read the frame header; None if it is damaged. Keeps the position."""
  start = file.tell()
  found = None
  for marker, place, segment in _segments(file):
    if marker in _FRAMES and len(segment) > 9:
      height, width = int.from_bytes(segment[5:7], 'big'), int.from_bytes(segment[7:9], 'big')
      found = Frame(marker, segment[4], height, width, segment[9], b'')
    elif marker == _SCAN and found:
      file.seek(start)
      found = found._replace(header=file.read(place - start))
      break
  file.seek(start)
  return found


def _segments(file: File) -> Iterator[tuple[int, int, bytes]]:
  """Yield the marker, the place and the first ten bytes of each segment up to the first scan."""
  place = file.tell() + 2
  while True:
    file.seek(place)
    head = file.read(10)
    if len(head) < 4 or head[0] != 0xFF:
      return
    if head[1] == 0xFF:  # fill bytes
      place += 1
      continue
    yield head[1], place, head
    if head[1] == _SCAN:
      return
    place += 2 + int.from_bytes(head[2:4], 'big')


def decode(content: bytes, found: Frame) -> UInt[np.ndarray, 'h w c']:
  """Decode a file that is supported, without turning it upright.

  Raises:
    Damaged: A part of a scan is missing or was overwritten.
    Exception: Of a decoder, if it cannot be decoded.
  """
  if found.is_special:
    return _decode_special(content, found)
  import simplejpeg

  space = 'GRAY' if found.samples == 1 else 'RGB'
  try:
    return simplejpeg.decode_jpeg(content, colorspace=space)
  except ValueError as error:
    if _is_damage(str(error), content):
      raise Damaged from error
    return simplejpeg.decode_jpeg(content, colorspace=space, strict=False)


def check(content: bytes, tables: bytes = b'') -> None:
  """Raise Damaged if JPEG of 8 bits, whose tables may lie elsewhere, has a damaged scan."""
  import simplejpeg

  whole = tables[:-2] + content[2:] if tables else content
  try:
    simplejpeg.decode_jpeg(whole, colorspace='GRAY')
  except ValueError as error:
    if _is_damage(str(error), whole):
      raise Damaged from error


def _is_damage(warning: str, content: bytes) -> bool:
  """Whether a warning of libjpeg means that pixels are wrong."""
  if _DAMAGE.search(warning):
    return True
  found = _EXTRANEOUS.search(warning)
  if found is None or (count := int(found[1])) <= _FEW:
    return False
  end = content.find(_END, content.find(b'\xff\xda'))
  return len(set(content[end - count : end])) > 1  # equal bytes are padding


def _decode_special(content: bytes, found: Frame) -> UInt[np.ndarray, 'h w 1']:
  """Decode gray JPEG of more than 8 bits, lossless JPEG and JPEG-LS."""
  import imagecodecs

  start = len(found.header)
  end = content.find(_END, start)
  if end < 0:  # for which the decoder of JPEG-LS would take seconds
    raise Damaged
  if found.marker == _JPEG_LS:
    return imagecodecs.jpegls_decode(content)[..., None]
  array = imagecodecs.jpeg8_decode(content)
  if _may_be_filled(array, content[start + 7] if found.marker == _LOSSLESS else 1):
    other = imagecodecs.jpeg8_decode(content[:end] + _OTHER_BITS + _END)
    if not np.array_equal(other, array):  # so the scan needed what follows it
      raise Damaged
  return array[..., None]


def _may_be_filled(array: UInt[np.ndarray, 'h w'], predictor: int) -> bool:
  """Whether the last pixels are those that the decoder predicts if it has no data."""
  if min(array.shape) < 5:
    return True
  last = array[-2:, -5:].astype(int)
  left, up, corner = last[1, :-1], last[0, 1:], last[0, :-1]
  predicted = {
    2: up,
    3: corner,
    4: left + up - corner,
    5: left + (up - corner >> 1),
    6: up + (left - corner >> 1),
    7: left + up >> 1,
  }.get(predictor, left)
  return bool((last[1, 1:] == predicted).all())
