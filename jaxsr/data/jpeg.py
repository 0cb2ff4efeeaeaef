"""Decode JPEG, lossless JPEG and JPEG-LS, and refuse scans that are damaged.

libjpeg fills what is missing of a scan with gray, and only warns. simplejpeg, which is
libjpeg-turbo as in Pillow, turns its warnings into errors. imagecodecs decodes JPEG of more than 8
bits, lossless JPEG and JPEG-LS. The codes of a scan do not depend on the bits of the samples, so
simplejpeg checks those as well if the header says 8 bits.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from jaxsr.data.decoded import File

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
_MOST_SCANS = 100  # encoders write about ten; each is decoded over the whole image
_FEW = 4  # bytes that the encoders of some cameras leave between a scan and the next marker
_LEFT_OVER = 'has {} bytes after its last pixel, so it may be damaged'
_NEXT = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')  # the marker that ends a scan
_PROGRESSIVE = (0xC2, 0xCA)
_LOWEST_SCALE = 8  # at which a check has the fewest pixels to compute


class Damaged(ValueError):
  """A part of a scan is missing or was overwritten."""

  def __init__(self) -> None:
    super().__init__('a part of its compressed pixels is missing or overwritten')


class MissingScans(Damaged):
  """A progressive file ends early: some of its scans are missing."""

  def __init__(self) -> None:
    ValueError.__init__(self, 'some of its scans are missing, so it is coarser than it was')


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

  @property
  def components(self) -> bytes:
    """The identifiers of the components."""
    return self.header[self._place() + 10 :: 3][: self.samples]

  def with_eight_bits(self, content: bytes) -> bytes:
    """Returns the file with a header that says that samples have 8 bits."""
    place = self._place() + 4
    return content[:place] + b'\x08' + content[place + 1 :]

  def _place(self) -> int:
    """Returns where the frame header begins."""
    segments = _segments(io.BytesIO(self.header))
    return next(place for marker, place, _ in segments if marker == self.marker)

  def as_baseline(self) -> io.BytesIO:
    """Returns the header as that of JPEG with 8 bits, of which Pillow reads the metadata."""
    content = bytearray(self.header + b'\xff\xda\0\x08\x01\x01\0\0\x3f\0' + _END)
    place = self._place()
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


def decode(content: bytes, found: Frame) -> tuple[UInt[np.ndarray, 'h w c'], tuple[str, ...]]:
  """Decode a file that is supported, without turning it upright; returns pixels and remarks.

  Raises:
    Damaged: A part of a scan is missing or was overwritten, or whole scans are missing.
    Exception: Of a decoder, if it cannot be decoded.
  """
  if found.is_special:
    return _decode_special(content, found), ()
  import simplejpeg

  _check_scans(content, found)
  space = 'GRAY' if found.samples == 1 else 'RGB'
  try:
    return simplejpeg.decode_jpeg(content, colorspace=space), ()
  except ValueError as error:
    left = _left_over(str(error), content)
    if left > _FEW:
      raise Damaged from error
    array = simplejpeg.decode_jpeg(content, colorspace=space, strict=False)
    return array, (_LEFT_OVER.format(left),) if left else ()


def check(content: bytes, found: Frame) -> None:
  """Raise Damaged if the scans of JPEG of any process but JPEG-LS are damaged, or some missing."""
  _check_scans(content, found)
  if _left_over(_warning(content, found), content):
    raise Damaged
  if found.is_special and not _DAMAGE.search(_warning(_without_last_byte(content, found), found)):
    raise Damaged  # the decoder did not need it, so pixels before took fewer bytes than they had


def _warning(content: bytes, found: Frame) -> str:
  """Returns libjpeg's first warning, or ''."""
  import simplejpeg

  space = 'GRAY' if found.samples == 1 else 'RGB'
  factor = 1 if found.marker == _LOSSLESS else _LOWEST_SCALE
  try:
    simplejpeg.decode_jpeg(found.with_eight_bits(content), colorspace=space, min_factor=factor)
  except ValueError as error:
    return str(error)
  return ''


def _without_last_byte(content: bytes, found: Frame) -> bytes:
  scan = content[: content.find(_END, len(found.header))]
  scan = scan.rstrip(b'\xff')  # which may be repeated before a marker
  return scan[: -2 if scan.endswith(b'\xff\0') else -1] + _END


def _left_over(warning: str, content: bytes) -> int:
  """Returns how many bytes of a scan libjpeg warns to have no meaning; many if it is damaged."""
  if _DAMAGE.search(warning):
    return len(content)
  if (found := _EXTRANEOUS.search(warning)) is None:
    return 0
  end = content.find(_END, content.find(b'\xff\xda'))
  count = int(found[1])
  return count if any(content[end - count : end]) else 0  # zeros are padding


def _check_scans(content: bytes, found: Frame) -> None:
  """Raise Damaged if a component, or some bits of its coefficients, are in no scan.

  libjpeg does not warn of that: it takes them as 0. Raises ValueError for so many scans that they
  would take minutes.
  """
  if (scans := content.count(bytes((0xFF, _SCAN)))) > _MOST_SCANS:
    raise ValueError(f'{scans} scans, more than any encoder writes')
  left = {component: np.ones(64, int) for component in found.components}  # lowest bit that came
  for count, scan in _scans(content, len(found.header)):
    if len(scan) < 2 * count + 3:
      raise Damaged
    first, last, bit = scan[2 * count : 2 * count + 3]
    coefficients = slice(first, last + 1) if found.marker in _PROGRESSIVE else slice(None)
    for component in scan[: 2 * count : 2]:
      if component in left:
        left[component][coefficients] = bit & 15 if found.marker in _PROGRESSIVE else 0
    if not any(lowest.any() for lowest in left.values()):
      return
  raise MissingScans


def _scans(content: bytes, place: int) -> Iterator[tuple[int, bytes]]:
  """Yield the number of components of each scan and its header, from the place of the first one."""
  while place + 4 < len(content) and content[place + 1] != _END[1]:
    end = place + 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    if content[place + 1] == _SCAN:
      yield content[place + 4], content[place + 5 : end]
    following = _NEXT.search(content, end)
    if following is None:
      return
    place = following.start()


def _decode_special(content: bytes, found: Frame) -> UInt[np.ndarray, 'h w 1']:
  """Decode gray JPEG of more than 8 bits, lossless JPEG and JPEG-LS."""
  import imagecodecs

  if content.find(_END, len(found.header)) < 0:  # the decoder of JPEG-LS would take seconds
    raise Damaged
  if found.marker == _JPEG_LS:
    return imagecodecs.jpegls_decode(content)[..., None]
  check(content, found)
  return imagecodecs.jpeg8_decode(content)[..., None]
