"""8-bit gray PNG files: checked without decoding, and decoded in a third of Pillow's time."""

import re
import struct
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import UInt8

from jaxsr.data.fast.transpose import transpose_words
from jaxsr.data.png import inflater

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = (8, 0, 0, 0, 0)  # bits, color, compression, filter, interlace
_ORDER = re.compile(rb'IHDR(tIME)?(IDAT)+(tIME)?IEND')  # other files are left to another decoder
_HEADER = struct.Struct('>IIBBBBB')
_BAND = 64  # rows whose filters are undone in parallel
_ABOVE = 7  # position of the row above, so that the band starts at a multiple of 8


class Size(NamedTuple):
  """Height and width of an image in pixels."""

  height: int
  width: int


def check(content: bytes, most: int) -> Size | None:
  """Returns the size of an 8-bit gray file with valid checksums, rows and filters.

  Returns None for a damaged file, a file of another kind, or one of more than `most` pixels.
  A file that passes can be decoded.
  """
  rows = _rows(content, most)
  return None if rows is None else Size(rows.shape[0], rows.shape[1] - 1)


def decode(content: bytes, most: int) -> UInt8[np.ndarray, 'h w'] | None:
  """Decode a file that passes `check`; returns None for other files."""
  rows = _rows(content, most)
  return None if rows is None else _undo(rows)


def _rows(content: bytes, most: int) -> UInt8[np.ndarray, 'h _'] | None:
  """Returns the rows of filtered bytes, each after the number of its filter."""
  chunks = _chunks(content)
  if not _ORDER.fullmatch(b''.join(name for name, _ in chunks)):
    return None
  header = chunks[0][1]
  width, height, *kind = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0)
  if tuple(kind) != _GRAY or not 0 < height * width <= most:
    return None
  unpacked = _inflate([data for name, data in chunks if name == b'IDAT'], height * (width + 1))
  if unpacked is None:
    return None
  rows = np.frombuffer(unpacked, np.uint8).reshape(height, width + 1)
  return rows if rows[:, 0].max() <= 4 else None


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
  """Returns the chunks of a file, or an empty list if a checksum or a length is wrong."""
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
  """Decompress exactly `length` bytes; returns None if there are more or fewer."""
  decompressor = inflater.decompressobj()
  try:
    rows = decompressor.decompress(b''.join(parts), length + 1)
  except Exception:  # zlib and isal raise their own types
    return None
  return rows if decompressor.eof and len(rows) == length else None


def _undo(rows: UInt8[np.ndarray, 'h _']) -> UInt8[np.ndarray, 'h w']:
  """Undo the filters of rows [h, 1 + w] (PNG specification, third edition, 2025, chapter 9).

  A pixel depends on the one to its left, so a single row is sequential. It does not depend on
  pixels above it that are further right, so `_BAND` rows are undone in parallel, each one pixel
  behind the row above: in columns of `slanted`, which are rows of `diagonals`. The row above the
  band is stored before it. Values of the previous band beyond the ends of the rows affect no pixel.
  """
  height, width = rows.shape[0], rows.shape[1] - 1
  image = np.empty((height, width), np.uint8)
  slanted = np.zeros((_ABOVE + 1 + _BAND, 2 + _BAND + width + -(2 + width) % 8), np.uint8)
  diagonals = np.empty(slanted.shape[::-1], np.uint8)
  for top in range(0, height, _BAND):
    band = rows[top : top + _BAND]
    slanted[_ABOVE, 1 : 1 + width] = image[top - 1] if top else 0
    _slant(band, slanted)
    transpose_words(slanted.view(np.uint64), diagonals.view(np.uint64))
    kinds = np.zeros((5, _BAND), np.int16)
    kinds[band[:, 0], np.arange(len(band))] = -1
    _restore(diagonals, kinds)
    transpose_words(diagonals.view(np.uint64), slanted.view(np.uint64))
    _straighten(slanted, image[top : top + _BAND])
  return image


@numba.njit(nogil=True)
@no_type_check  # types are checked by numba, here and below
def _slant(band, slanted):
  """Shift each row by one pixel more than the row above."""
  for y in range(band.shape[0]):
    for x in range(band.shape[1] - 1):
      slanted[_ABOVE + 1 + y, 2 + y + x] = band[y, 1 + x]


@numba.njit(nogil=True)
@no_type_check
def _straighten(slanted, image):
  """Undo `_slant`."""
  for y in range(image.shape[0]):
    for x in range(image.shape[1]):
      image[y, x] = slanted[_ABOVE + 1 + y, 2 + y + x]


@numba.njit(nogil=True)
@no_type_check
def _restore(diagonals, kinds):
  """Undo the filters in place; `kinds` [filter, row] is -1 for the filter of a row, else 0."""
  for step in range(2, diagonals.shape[0]):
    for i in range(_BAND):
      left = np.int16(diagonals[step - 1, _ABOVE + 1 + i])
      above = np.int16(diagonals[step - 1, _ABOVE + i])
      corner = np.int16(diagonals[step - 2, _ABOVE + i])
      down, right = np.int16(above - corner), np.int16(left - corner)
      far_left = np.int16(abs(down))
      far_above = np.int16(abs(right))
      far_corner = np.int16(abs(np.int16(down + right)))
      nearest = above if far_above <= far_corner else corner
      nearest = left if (far_left <= far_above) & (far_left <= far_corner) else nearest
      guess = (
        (left & kinds[1, i])
        | (above & kinds[2, i])
        | (((left + above) >> 1) & kinds[3, i])
        | (nearest & kinds[4, i])
      )
      diagonals[step, _ABOVE + 1 + i] = (
        np.int16(diagonals[step, _ABOVE + 1 + i]) + guess
      ) & np.int16(255)
    for i in range(step - 1, _BAND):  # rows that start later have zeros to their left
      diagonals[step, _ABOVE + 1 + i] = 0
