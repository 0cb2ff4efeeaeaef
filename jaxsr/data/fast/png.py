"""PNG files of 8-bit gray: checked without decoding, and decoded in a third of Pillow's time."""

import re
import struct
import zlib
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import UInt8

from jaxsr.data.fast.transpose import transpose_words

try:
  from isal import isal_zlib as inflater  # twice as fast
except ImportError:
  inflater = zlib

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = (8, 0, 0, 0, 0)  # bits, colour, compression, filter, interlace
_ORDER = re.compile(rb'IHDR(tIME)?(IDAT)+(tIME)?IEND')  # another is for a decoder to judge
_HEADER = struct.Struct('>IIBBBBB')
_BAND = 64  # rows whose filters are undone side by side
_ABOVE = 7  # where the row above them is, so that they begin at a multiple of eight


class Size(NamedTuple):
  """The sides of an image, in pixels."""

  height: int
  width: int


def check(content: bytes, most: int) -> Size | None:
  """Check a whole file of 8-bit gray: every chunk's sum, all rows there, every filter known.

  A file that passes can be decoded. None is a file of another kind, with more than `most` pixels,
  or damaged, which another decoder may know more about.
  """
  rows = _rows(content, most)
  return None if rows is None else Size(rows.shape[0], rows.shape[1] - 1)


def decode(content: bytes, most: int) -> UInt8[np.ndarray, 'h w'] | None:
  """Decode a file of 8-bit gray that passes `check`; None where it does not."""
  rows = _rows(content, most)
  return None if rows is None else _undo(rows)


def _rows(content: bytes, most: int) -> UInt8[np.ndarray, 'h _'] | None:
  """Unpack a file's rows of filtered bytes, each after the number of its filter."""
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


def _undo(rows: UInt8[np.ndarray, 'h _']) -> UInt8[np.ndarray, 'h w']:
  """Undo the filters of rows [h, 1 + w] (PNG specification, third edition, 2025, chapter 9).

  A pixel waits for the one to its left, so that a row by itself takes one pixel at a time. It waits
  for none above it that is further right, so rows are undone side by side, each one pixel behind
  the one above it: in columns of `slanted`, which are rows of `diagonals`. Before the `_BAND` rows
  is the one above them; what the last band left beyond the rows' ends reaches no pixel.
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
@no_type_check  # numba's to check, here and below
def _slant(band, slanted):
  """Write rows one pixel behind each other."""
  for y in range(band.shape[0]):
    for x in range(band.shape[1] - 1):
      slanted[_ABOVE + 1 + y, 2 + y + x] = band[y, 1 + x]


@numba.njit(nogil=True)
@no_type_check
def _straighten(slanted, image):
  """Write rows below each other again."""
  for y in range(image.shape[0]):
    for x in range(image.shape[1]):
      image[y, x] = slanted[_ABOVE + 1 + y, 2 + y + x]


@numba.njit(nogil=True)
@no_type_check
def _restore(diagonals, kinds):
  """Turn filtered bytes into pixels; `kinds` has, for a filter, all bits of rows that have it."""
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
    for i in range(step - 1, _BAND):  # rows that have not begun have zeros to their left
      diagonals[step, _ABOVE + 1 + i] = 0
