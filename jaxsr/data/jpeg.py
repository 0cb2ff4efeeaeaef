"""Decode JPEG, lossless JPEG and JPEG-LS, and refuse scans that are damaged.

libjpeg fills what is missing of a scan with gray, and only warns. simplejpeg, which is
libjpeg-turbo as in Pillow, turns its first warning into an error. A warning that does not concern
pixels, as on a color profile, would hide the others, so a file with a warning is decoded again
without the parts that may cause such ones. imagecodecs decodes JPEG of more than 8 bits, lossless
JPEG and JPEG-LS. The codes of a scan do not depend on the bits of the samples, so simplejpeg checks
those as well if the header says 8 bits.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from jaxsr.data import jpeg_parts
from jaxsr.data.decoded import File
from jaxsr.data.jpeg_parts import END, FRAMES, NEXT, SCAN, following, segments

MAGIC = b'\xff\xd8\xff'
_LOSSY = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # markers of the frames that Pillow decodes
_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_NAMES = {_LOSSLESS: 'lossless JPEG', 0xCB: 'arithmetic-coded lossless JPEG', _JPEG_LS: 'JPEG-LS'}
_DAMAGE = re.compile(
  r'premature end|bad Huffman code|bad arithmetic code|instead of RST', re.IGNORECASE
)
_EXTRANEOUS = re.compile(r'(\d+) extraneous bytes before marker (0x\w+)')
_MOST_SCANS = 100  # encoders write about ten; each is decoded over the whole image
_BUFFER = 8  # bytes that libjpeg decodes at once
_FEW = 4  # bytes that the encoders of some cameras leave between a scan and the next marker
_LEFT_OVER = 'has {} bytes after its last pixel, so it may be damaged'
_EMPTY_SCAN = b'\xff\xda\0\x08\x01\x01\0\0\x3f\0'
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
      return f'is {name} in color' if self.is_special else self._unknown_subsampling()
    kind = ' (CMYK)' if self.samples == 4 else ''
    return '' if self.samples == 1 else f'is {name} with {self.samples} samples per pixel{kind}'

  def _unknown_subsampling(self) -> str:
    """Returns the sampling factors of the components if libjpeg-turbo refuses them; else ''."""
    import simplejpeg

    try:
      simplejpeg.decode_jpeg_header(self.header + _EMPTY_SCAN + END)
    except ValueError as error:
      if 'subsampling' in str(error):
        factors = self.header[self._place() + 11 :: 3][: self.samples]
        found = ', '.join(f'{factor >> 4}x{factor & 15}' for factor in factors)
        return f'is JPEG with the chroma subsampling {found}'
    return ''  # other errors are those of decoding it

  @property
  def components(self) -> bytes:
    """The identifiers of the components."""
    return self.header[self._place() + 10 :: 3][: self.samples]

  def _place(self) -> int:
    """Returns where the frame header begins."""
    segments = _segments(io.BytesIO(self.header))
    return next(place for marker, place, _ in segments if marker == self.marker)

  def as_baseline(self) -> io.BytesIO:
    """Returns the header as that of JPEG with 8 bits, of which Pillow reads the metadata."""
    content = bytearray(self.header + _EMPTY_SCAN + END)
    place = self._place()
    content[place + 1], content[place + 4] = 0xC0, 8
    return io.BytesIO(content)


def frame(file: File) -> Frame | None:
  """Read the frame header; None if there is none, or no scan. Keeps the position."""
  start = file.tell()
  found = None
  for marker, place, segment in _segments(file):
    if marker in FRAMES and len(segment) > 9:
      height, width = int.from_bytes(segment[5:7], 'big'), int.from_bytes(segment[7:9], 'big')
      found = Frame(marker, segment[4], height, width, segment[9], b'')
    elif marker == SCAN and found:
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
    if NEXT.match(head) is None:  # fill bytes, or stray ones
      if (place := following(file, place)) < 0:
        return
      continue
    yield head[1], place, head
    if head[1] == SCAN:
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
  except ValueError:
    content, left = _without_warnings(content, found)
    remarks = (_LEFT_OVER.format(left),) if left else ()
    return simplejpeg.decode_jpeg(content, colorspace=space), remarks


def check(content: bytes, found: Frame) -> bytes:
  """Raise Damaged if the scans of JPEG of any process but JPEG-LS are damaged, or some missing.

  Returns the file without the parts of which libjpeg warns.
  """
  _check_scans(content, found)
  if _warning(content, found):
    content, left = _without_warnings(content, found)
    if left:
      raise Damaged
  if found.is_special and not _DAMAGE.search(_warning(_without_last_byte(content), found)):
    raise Damaged  # the decoder did not need it, so pixels before took fewer bytes than they had
  return content


def _warning(content: bytes, found: Frame) -> str:
  """Returns libjpeg's first warning or error, or ''."""
  import simplejpeg

  space = 'GRAY' if found.samples == 1 else 'RGB'
  factor = 1 if found.marker == _LOSSLESS else _LOWEST_SCALE
  content = jpeg_parts.with_eight_bits(content) if found.bits != 8 else content
  try:
    simplejpeg.decode_jpeg(content, colorspace=space, min_factor=factor)
  except ValueError as error:
    return str(error)
  return ''


def _without_last_byte(content: bytes) -> bytes:
  scan = content[: jpeg_parts.end(content)].rstrip(b'\xff')  # which may be repeated before a marker
  return scan[: -2 if scan.endswith(b'\xff\0') else -1] + END


def _without_warnings(content: bytes, found: Frame) -> tuple[bytes, int]:
  """Returns a file of the same pixels of which libjpeg does not warn.

  Also returns how many bytes without a meaning lay behind its last pixel; zeros are padding.
  Raises Damaged if libjpeg warns of the pixels, or ValueError with the reason of another error.
  """
  content = jpeg_parts.plain(content)
  if not (warning := _warning(content, found)):
    return content, 0
  scan = content[: jpeg_parts.end(content)].rstrip(b'\xff')
  count, zeros = _left_over(warning), len(scan) - len(scan.rstrip(b'\0'))
  if not 0 < count <= max(zeros, _FEW):
    raise Damaged
  low, high = 1, max(zeros, 2 * count + _BUFFER)  # libjpeg does not count those that it has read
  while low <= high:
    left = (low + high) // 2
    content = scan[:-left] + END
    if not (warning := _warning(content, found)):
      return content, 0 if left <= zeros else count
    low, high = (left + 1, high) if _left_over(warning) else (low, left - 1)
  raise Damaged  # which the first warning hid


def _left_over(warning: str) -> int:
  """Returns how many bytes before the end of an image libjpeg warns of; 0 if it is damaged."""
  found = _EXTRANEOUS.search(warning)
  if found is None and not _DAMAGE.search(warning):
    raise ValueError(warning)
  return int(found[1]) if found and int(found[2], 16) == END[1] else 0


def _check_scans(content: bytes, found: Frame) -> None:
  """Raise Damaged if a component, or some bits of its coefficients, are in no scan.

  libjpeg does not warn of that: it takes them as 0. Raises ValueError for so many scans that they
  would take minutes.
  """
  scans = content.count(bytes((0xFF, SCAN)))
  if scans > _MOST_SCANS:  # also those of thumbnails, and behind the end
    scans = sum(marker == SCAN for marker, _, _ in segments(content))
  if scans > _MOST_SCANS:
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
  for marker, start, end in segments(content, place):
    if marker == SCAN and start + 4 < end:
      yield content[start + 4], content[start + 5 : end]


def _decode_special(content: bytes, found: Frame) -> UInt[np.ndarray, 'h w 1']:
  """Decode gray JPEG of more than 8 bits, lossless JPEG and JPEG-LS."""
  import imagecodecs

  if found.marker != _JPEG_LS:
    return imagecodecs.jpeg8_decode(check(content, found))[..., None]
  if content.find(END, len(found.header)) < 0:  # the decoder would take seconds
    raise Damaged
  return imagecodecs.jpegls_decode(content)[..., None]
