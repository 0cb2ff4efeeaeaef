"""Chunks of PNG files: which there are, their checksums, and the bits that samples hold."""

import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from jaxsr.data import bit_depth, decoded
from jaxsr.errors import ImageError, one_line

try:
  from isal import isal_zlib as inflater  # twice as fast
except ImportError:
  inflater = zlib

MAGIC = b'\x89PNG\r\n\x1a\n'
_TRUNCATED = 'is truncated (its last chunk is not the end of a PNG); fetch it again'
_COLORS = {2: 3, 3: 3, 6: 3}  # samples of a pixel by color type, without alpha; others have 1
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel by color type
_INTERLACED = (  # left, top, and steps to the right and down of each pass
  (0, 0, 8, 8),
  (4, 0, 8, 8),
  (0, 4, 4, 8),
  (2, 0, 4, 4),
  (0, 2, 2, 4),
  (1, 0, 2, 2),
  (0, 1, 1, 2),
)
_CRITICAL, _ANCILLARY = (b'IHDR', b'PLTE', b'IDAT', b'IEND'), 0x20
_AT_ONCE = 2**20  # bytes to decompress at once
MOST_METADATA = 2**26  # bytes of texts and profiles, which Pillow holds in memory
_TEXTS = (b'tEXt', b'zTXt', b'iTXt')
_USED = (b'Raw profile type exif', b'Raw profile type APP1', b'XML:com.adobe.xmp')  # by keyword
_IGNORED = f'its metadata of more than {MOST_METADATA >> 20} MiB is ignored'
_ENOUGH = 32  # different values, from which on their lowest bits are not 0 by chance

# Warnings of libpng, as on interlacing, would be printed without the name of the file.
logging.getLogger('imagecodecs').addFilter(lambda record: 'PNG warning' not in record.getMessage())


def bits(head: bytes) -> int:
  """Returns the bits per sample in the first 26 bytes of a PNG; 0 for other files."""
  return head[24] if head.startswith(MAGIC) and len(head) >= 26 else 0


def late_chunks(path: Path) -> set[bytes]:
  """Returns the names of the chunks that follow the pixels, reading headers only."""
  late: set[bytes] = set()
  place, in_pixels = len(MAGIC), False
  with path.open('rb', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    while file.seek(place) == place and len(head := file.read(8)) == 8:
      name, place = head[4:], place + 12 + int.from_bytes(head[:4], 'big')
      _check_name(name, path)
      in_pixels = in_pixels or name == b'IDAT'
      if in_pixels:
        late.add(name)
      if name == b'IEND' and place <= size:
        return late
  raise ImageError(path, _TRUNCATED)


class Chunks(NamedTuple):
  """The chunks of a file that matter.

  `significant` are the bits of the samples, `transparent` is the transparent color or the alphas of
  the palette. `has_texts` means that there are texts or a color profile.
  """

  significant: int | None
  transparent: bytes
  has_texts: bool


def check(content: bytes, path: Path) -> Chunks:
  """Check that a file is complete; returns what its chunks say of the samples.

  Raises ImageError if it is truncated, or if a checksum of its pixels differs: Pillow does not
  check the chunk in which the last row ends, nor those behind it.
  """
  named, transparent, has_texts, view = None, b'', False, memoryview(content)
  for name, start, end in _chunks(content, path):
    if name == b'sBIT':
      named = max(content[start:end][: _COLORS.get(content[25], 1)], default=None)
    elif name == b'tRNS':
      transparent = content[start:end]
    elif name in (*_TEXTS, b'iCCP'):
      has_texts = True
    elif name == b'IDAT' and inflater.crc32(view[start - 4 : end]) != _number(view[end : end + 4]):
      raise ImageError(path, 'cannot be decoded (a checksum of its pixels differs)')
  return Chunks(named, transparent, has_texts)


def _number(content: memoryview) -> int:
  return int.from_bytes(content, 'big')


def without_texts(content: bytes, path: Path) -> tuple[bytes, tuple[str, ...]]:
  """Returns a file without the texts that are not used, of which Pillow refuses long ones.

  What is left, such as a color profile, has at most `MOST_METADATA` bytes; a remark says so.
  """
  kept, left = [content[: len(MAGIC)]], MOST_METADATA
  for name, start, end in _chunks(content, path):
    if name in (*_TEXTS, b'iCCP'):
      chunk = content[start:end]
      if name in _TEXTS and chunk.partition(b'\0')[0] not in _USED:
        continue
      left = left - _inflated(name, chunk, left) if left > 0 else left
      if left <= 0:
        continue
    kept.append(content[start - 8 : end + 4])
  return b''.join(kept), (_IGNORED,) if left <= 0 else ()


def _inflated(name: bytes, chunk: bytes, most: int) -> int:
  """Returns the bytes of a text or profile in memory, at most so many."""
  packed = chunk.partition(b'\0')[2]
  if name == b'iTXt' and packed.startswith(b'\1'):
    packed = packed[2:].split(b'\0', 2)[-1]
  elif name in (b'tEXt', b'iTXt'):
    return len(chunk)
  else:
    packed = packed[1:]
  try:
    return len(inflater.decompressobj().decompress(packed, most))
  except Exception:  # damaged, which Pillow ignores
    return len(chunk)


def _chunks(content: bytes, path: Path) -> Iterator[tuple[bytes, int, int]]:
  """Yield the name, start and end of each chunk; bytes after the last one are ignored."""
  place = len(MAGIC)
  while place + 12 <= len(content):
    name = content[place + 4 : place + 8]
    start, end = place + 8, place + 8 + int.from_bytes(content[place : place + 4], 'big')
    if end + 4 > len(content):
      break
    _check_name(name, path)
    yield name, start, end
    if name == b'IEND':
      return
    place = end + 4
  raise ImageError(path, _TRUNCATED)


def _check_name(name: bytes, path: Path) -> None:
  """Raise ImageError for a chunk that a decoder must know to show the image: a capital says so."""
  if name not in _CRITICAL and not name[0] & _ANCILLARY:
    text = (
      f'has the critical chunk {name.decode("latin-1")!r}, which is not part of the PNG standard'
    )
    raise ImageError(path, f'{text}; convert it to plain PNG, or fetch it again')


def check_length(content: bytes, path: Path) -> None:
  """Raise ImageError if the compressed pixels of a file end before the image does."""
  inflate, found = zlib.decompressobj(), 0
  try:
    for name, start, end in _chunks(content, path):
      waiting = content[start:end] if name == b'IDAT' else b''
      while waiting:
        found += len(inflate.decompress(waiting, _AT_ONCE))
        waiting = inflate.unconsumed_tail
  except zlib.error as error:
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  if found < (needed := _bytes_of_pixels(content)):
    text = f'has {found:,} of {needed:,} bytes of pixels; fetch it again'
    raise ImageError(path, text)


def _bytes_of_pixels(content: bytes) -> int:
  """Returns the size of an image before compression, with a byte per row for the filter."""
  width, height = (int.from_bytes(content[i : i + 4], 'big') for i in (16, 20))
  depth, color, interlaced = content[24], content[25], content[28]
  passes = _INTERLACED if interlaced else ((0, 0, 1, 1),)
  total = 0
  for left, top, across, down in passes:
    columns, rows = -(-(width - left) // across), -(-(height - top) // down)
    if columns > 0 and rows > 0:
      total += rows * (1 + -(-columns * depth * _SAMPLES[color] // 8))
  return total


def is_transparent(
  samples: UInt[np.ndarray, 'h w c'], transparent: bytes, *, depth: int, palette: bool
) -> bool:
  """Whether a pixel has the transparent color, or a color of the palette that is not opaque.

  Args:
    samples: Indices into the palette, or samples of `depth` bits, widened to 8 if they have fewer.
    transparent: The content of tRNS.
    depth: Bits per sample in the file.
    palette: Whether samples are indices.
  """
  if palette:
    alphas = np.full(256, 255, np.uint8)
    alphas[: len(transparent)] = np.frombuffer(transparent, np.uint8)[:256]
    return bool((alphas[samples] < 255).any())
  color = np.frombuffer(transparent[: 2 * samples.shape[2]], '>u2') & (2**depth - 1)
  return bool((samples == decoded.widen(color, depth)).all(axis=2).any())


def range_of(
  pixels: UInt[np.ndarray, 'h w c'], named: int | None
) -> tuple[int | None, tuple[str, ...]]:
  """Returns the bits of the values, by the significant bits that a file names, and remarks.

  The standard scales samples to 16 bits, but most writers of radiographs store 12 bits as 0 to
  4095. Dark values that could be either are taken as the latter. Samples of fewer than 8 bits are
  scaled to 8 by all writers.
  """
  if pixels.dtype == np.uint8 or named is None or not 0 < named < 16:
    return None, ()
  step, peak = 2 ** (16 - named), int(pixels.max())
  if not 0 < peak < 2**named or (pixels & (step - 1)).any() or len(np.unique(pixels)) < _ENOUGH:
    return named, ()
  text = f'its values are multiples of {step} up to {peak} and are read as {named}-bit'
  way_out = f'if they are scaled to 16 bits, {bit_depth.name_bits(16)}'
  return named, (f'{text}, as its sBIT says; {way_out}',)


def decode_deep(content: bytes, path: Path) -> UInt[np.ndarray, 'h w c']:
  """Decode 16-bit PNG with color or alpha."""
  import imagecodecs

  try:
    array = imagecodecs.png_decode(content)
  except Exception as error:
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  return array[..., None] if array.ndim == 2 else array
