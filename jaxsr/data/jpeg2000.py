"""The tiles of JPEG 2000 (ISO/IEC 15444-1, Annex A); decoders leave missing ones black."""

import struct
from collections import defaultdict

from jaxsr.data import jpeg

_START, _TILE_PART, _LENGTH = (
  b'\xff\x4f\xff\x51',
  b'\xff\x90',
  12,
)  # SOC and SIZ; SOT and its length


def header(content: bytes) -> tuple[int, int, int, int, bool] | None:
  """Returns width, height, samples per pixel, their bits, and whether they are signed.

  Returns None if the content has no such header.
  """
  at = content.find(_START)
  if at < 0 or len(content) < at + 43:
    return None
  right, bottom, left, top = struct.unpack_from('>4I', content, at + 8)
  samples, depth = struct.unpack_from('>HB', content, at + 40)
  return right - left, bottom - top, samples, depth % 128 + 1, depth >= 128


def check(content: bytes) -> None:
  """Raise jpeg.Damaged if a tile, or a part of one, is missing or cut; other formats pass."""
  if header(content) is None:
    return
  at = content.find(_START)
  right, bottom = struct.unpack_from('>2I', content, at + 8)
  across, down, left, top = struct.unpack_from('>4I', content, at + 24)
  if not across or not down:
    raise jpeg.Damaged
  tiles = -(-(right - left) // across) * -(-(bottom - top) // down)
  found: dict[int, set[int]] = defaultdict(set)
  promised: dict[int, int] = {}
  place = _first_part(content, at + 2)
  while content[place : place + 2] == _TILE_PART and len(content) >= place + _LENGTH:
    tile, length, part, parts = struct.unpack_from('>HIBB', content, place + 4)
    found[tile].add(part)
    promised[tile] = promised.get(tile) or parts  # 0 does not say how many there are
    end = place + length if length else len(content)  # the last part may leave its length out
    if end > len(content) or end < place + _LENGTH:
      raise jpeg.Damaged
    place = end
  if len(found) != tiles or max(found) >= tiles:
    raise jpeg.Damaged
  if any(found[tile] != set(range(promised[tile] or len(found[tile]))) for tile in found):
    raise jpeg.Damaged


def _first_part(content: bytes, place: int) -> int:
  """Returns the place of the first tile part behind the segments of the main header."""
  while content[place : place + 2] != _TILE_PART:
    length = int.from_bytes(content[place + 2 : place + 4], 'big')
    if content[place : place + 1] != b'\xff' or length < 2:
      raise jpeg.Damaged
    place += 2 + length
  return place
