"""Bind the comment of a written image to its pixels.

Other programs keep the comment of a file when they change its pixels. The comment therefore ends
with a digest of the stored pixels, and counts only as long as that is right.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import tifffile

from jaxsr.data import jpeg, png, tiff_pages
from jaxsr.data.decoded import File

_MARK, _LENGTH = '; pixels ', 16
_EMPTY = _MARK + _LENGTH * '0'
_HEAD = 2**22  # bytes in which a comment lies
_PART = 2**20  # bytes that are read at once
_TO_THE_END = 2**62  # bytes of pixels, if nothing follows them
_END_OF_JPEG = b'\xff\xd9'


def opened(note: str) -> str:
  """Returns the comment to write into a file of which `close` is called later; '' for none."""
  return note and note + _EMPTY


def close(path: Path) -> None:
  """Write the digest of its pixels into the comment of a complete file."""
  with path.open('r+b') as file:
    place = file.read(_HEAD).find(_EMPTY.encode())
    if place < 0:
      return
    digest = _digest(file).encode()
    file.seek(place + len(_MARK))
    file.write(digest)
    file.seek(0)
    if file.read(len(png.MAGIC)) == png.MAGIC:
      _renew_checksum(file, place)


def note(comment: str, file: File) -> str:
  """Returns the comment without the digest, or '' if that is not the digest of the pixels.

  A file that was cut keeps its comment: nobody edited it.
  """
  text, mark, digest = comment.rpartition(_MARK)
  return text if mark and (_is_cut(file) or digest == _digest(file)) else ''


def _is_cut(file: File) -> bool:
  """Whether a file ends before its pixels do."""
  end = file.seek(0, os.SEEK_END)
  pixels = _pixels(file)
  if pixels and pixels[-1][1] == _TO_THE_END:
    file.seek(end - len(_END_OF_JPEG))
    return file.read() != _END_OF_JPEG
  return any(start + size > end for start, size in pixels)


def _renew_checksum(file: File, place: int) -> None:
  """Correct the checksum of the chunk of PNG around a place."""
  for _, start, size in _chunks(file):
    if start <= place < start + size:
      file.seek(start - 4)
      checksum = zlib.crc32(file.read(4 + size))
      file.seek(start + size)
      file.write(checksum.to_bytes(4, 'big'))
      return


def _digest(file: File) -> str:
  """Returns the start of the SHA-256 of the pixels as they are stored."""
  found = hashlib.sha256()
  for start, size in _pixels(file):
    file.seek(start)
    while size > 0 and (part := file.read(min(size, _PART))):
      found.update(part)
      size -= len(part)
  return found.hexdigest()[:_LENGTH]


def _pixels(file: File) -> list[tuple[int, int]]:
  """Returns the places and the sizes of the stored pixels."""
  file.seek(0)
  head = file.read(len(png.MAGIC))
  if head == png.MAGIC:
    return [(start, size) for name, start, size in _chunks(file) if name == b'IDAT']
  file.seek(0)
  if head.startswith(jpeg.MAGIC):
    frame = jpeg.frame(file)
    return [(len(frame.header), _TO_THE_END)] if frame else []
  with tiff_pages.quiet(), tifffile.TiffFile(file) as tif:
    page = tif.pages.first
    return list(zip(page.dataoffsets, page.databytecounts, strict=False))


def _chunks(file: File) -> Iterator[tuple[bytes, int, int]]:
  """Yield the name of each chunk of PNG, and the place and the size of its content."""
  place = len(png.MAGIC)
  while file.seek(place) == place and len(head := file.read(8)) == 8:
    size = int.from_bytes(head[:4], 'big')
    yield head[4:], place + 8, size
    place += 12 + size
