"""The segments of a JPEG file, from its marker to its end, and a copy without its metadata."""

import re
from collections.abc import Iterator

from jaxsr.data.decoded import File

SCAN, END = 0xDA, b'\xff\xd9'
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of frame headers
_JFIF, _ADOBE, _METADATA = (0xE0, b'JFIF\0'), (0xEE, b'Adobe'), (*range(0xE0, 0xF0), 0xFE)
_VERSION_AT, _TRANSFORM_AT = 9, 15  # of JFIF and of Adobe, from their markers
_YCBCR = 1  # the largest transform of three components, which libjpeg takes unknown ones for
_BLOCK = 2**16  # bytes to search at once
NEXT = re.compile(rb'\xff[^\x00\x01\xff\xd0-\xd7]')  # a marker of a segment, which ends a scan
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)


def following(file: File, place: int) -> int:
  """Returns where the next segment begins, behind fill and stray bytes; -1 if there is none."""
  while True:
    file.seek(place)
    block = file.read(_BLOCK)
    if found := NEXT.search(block):
      return place + found.start()
    if len(block) < _BLOCK:
      return -1
    place += len(block) - 1


def segments(content: bytes, place: int = 2) -> Iterator[tuple[int, int, int]]:
  """Yield the marker, the start and the end of each segment, without the data of scans.

  The last one is the end of the image, also if the file has more bytes.
  """
  found = NEXT.search(content, place)
  while found is not None:
    start = found.start()
    marker = content[start + 1]
    if marker == END[1]:
      yield marker, start, start + 2
      return
    end = start + 2 + int.from_bytes(content[start + 2 : start + 4], 'big')
    yield marker, start, min(end, len(content))
    found = NEXT.search(content, end)


def end(content: bytes) -> int:
  """Returns where the end of an image is marked, or the end of its file."""
  return next((at for marker, at, _ in segments(content) if marker == END[1]), len(content))


def with_eight_bits(content: bytes) -> bytes:
  """Returns a file whose header says that samples have 8 bits."""
  place = 4 + next(start for marker, start, _ in segments(content) if marker in FRAMES)
  return content[:place] + b'\x08' + content[place + 1 :]


def plain(content: bytes) -> bytes:
  """Returns a file without metadata and stray bytes, of which libjpeg may warn.

  Elements that do not matter, but that it would warn of, have their usual values.
  """
  found, parts, sequential = [*segments(content)], [content[:2]], False
  for i, (marker, start, end) in enumerate(found):
    part, name = bytearray(content[start:end]), content[start + 4 : start + 9]
    sequential = marker in _SEQUENTIAL or (sequential and marker not in FRAMES)
    if (marker, name) == _JFIF:
      part[_VERSION_AT : _VERSION_AT + 1] = b'\1'
    elif (marker, name) == _ADOBE:
      transform = bytes(part[_TRANSFORM_AT : _TRANSFORM_AT + 1])
      part[_TRANSFORM_AT : _TRANSFORM_AT + 1] = min(transform, bytes([_YCBCR]))
    elif marker in _METADATA:
      continue
    elif marker == SCAN:
      if sequential:  # first and last coefficient, and bits
        part[-3:] = b'\0\x3f\0'
      part += content[end : found[i + 1][1] if i + 1 < len(found) else None]
    parts.append(bytes(part))
  return b''.join(parts)
