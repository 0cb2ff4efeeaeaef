"""Checking a PNG file without undoing its filters, which is most of what decoding one costs."""

import re
import struct
import zlib
from typing import NamedTuple

try:
  from isal import isal_zlib as inflater  # twice as fast
except ImportError:
  inflater = zlib

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = (8, 0, 0, 0, 0)  # bits, colour, compression, filter, interlace
_ORDER = re.compile(rb'IHDR(tIME)?(IDAT)+(tIME)?IEND')  # another is for a decoder to judge
_HEADER = struct.Struct('>IIBBBBB')


class Size(NamedTuple):
  """The sides of an image, in pixels."""

  height: int
  width: int


def check(content: bytes, most: int) -> Size | None:
  """Check a whole file of 8-bit gray: every chunk's sum, all rows there, every filter known.

  A file that passes can be decoded. None is a file of another kind, with more than `most` pixels,
  or damaged, which its decoder may know more about.
  """
  chunks = _chunks(content)
  if not _ORDER.fullmatch(b''.join(name for name, _ in chunks)):
    return None
  header = chunks[0][1]
  width, height, *kind = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0)
  if tuple(kind) != _GRAY or not 0 < height * width <= most:
    return None
  rows = _inflate([data for name, data in chunks if name == b'IDAT'], height * (width + 1))
  if rows is None or max(rows[:: width + 1]) > 4:
    return None
  return Size(height, width)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
  """Split a file into its chunks; none where a sum or a length is wrong."""
  view, place, found = memoryview(content), len(SIGNATURE), []
  if content[:place] != SIGNATURE:
    return []
  while place + 12 <= len(content):
    end = place + 8 + int.from_bytes(view[place : place + 4], 'big')
    if end + 4 > len(content):
      return []
    if inflater.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], 'big'):
      return []
    found.append((bytes(view[place + 4 : place + 8]), bytes(view[place + 8 : end])))
    place = end + 4
  return found if place == len(content) else []


def _inflate(parts: list[bytes], length: int) -> bytes | None:
  """Unpack exactly `length` bytes, or none."""
  decompressor = inflater.decompressobj()
  try:
    rows = decompressor.decompress(b''.join(parts), length + 1)
  except Exception:  # zlib's or isal's own
    return None
  return rows if decompressor.eof and len(rows) == length else None
