"""Bind the comment of a written image to its file.

Other programs keep the comment of a file when they change its pixels, or how they are shown. The
comment therefore ends with a digest of the file, and counts only as long as that is right.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tifffile

from jaxsr.data import jpeg, png, tiff_pages
from jaxsr.data.decoded import File

_MARK, _LENGTH = '; file ', 16
_NONE = _LENGTH * '0'
_HEAD = 2**22  # bytes in which a comment lies
_PART = 2**20  # bytes that are read at once
_TO_THE_END = 2**62  # beyond any file
_CHECKSUM = 4  # bytes behind a chunk of PNG
_END_OF_JPEG = b'\xff\xd9'


def opened(note: str, most: int = _HEAD) -> str:
  """Returns the comment to write into a file of which `close` is called later; '' for none.

  It has no more than `most` characters.
  """
  return note and note[: most - len(_MARK) - _LENGTH] + _MARK + _NONE


def close(path: Path) -> None:
  """Write the digest of a complete file into its comment."""
  with path.open('r+b') as file:
    place = _place(file, _NONE)
    if place < 0:
      return
    digest = _digest(file, place).encode()
    file.seek(place)
    file.write(digest)
    if chunk := _chunk_around(file, place):
      start, size = chunk
      file.seek(start - 4)
      checksum = zlib.crc32(file.read(4 + size))
      file.seek(start + size)
      file.write(checksum.to_bytes(4, 'big'))


def note(comment: str, file: File, is_cut: Callable[[File], bool] | None = None) -> str:
  """Returns the comment without the digest, or '' if that is not the digest of the file.

  A file that was cut keeps its comment, since its digest cannot be computed. `is_cut` tells that of
  a file that is neither PNG nor JPEG nor TIFF.
  """
  text, mark, digest = comment.rpartition(_MARK)
  place = _place(file, digest) if mark else -1
  if place < 0:
    return ''
  return text if digest == _digest(file, place) or (is_cut or _is_cut)(file) else ''


def _place(file: File, digest: str) -> int:
  """Returns where the digest begins in a file; a negative number if it is not there."""
  file.seek(0)
  found = file.read(_HEAD).find((_MARK + digest).encode())
  return found + len(_MARK) if found >= 0 else -1


def _digest(file: File, place: int) -> str:
  """Returns the start of the SHA-256 of a file without the digest and the checksum around it."""
  found = hashlib.sha256()
  holes = [(place, _LENGTH)]
  if chunk := _chunk_around(file, place):
    holes.append((sum(chunk), _CHECKSUM))
  file.seek(0)
  for start, size in (*holes, (_TO_THE_END, 0)):
    while (left := start - file.tell()) > 0 and (part := file.read(min(left, _PART))):
      found.update(part)
    file.seek(size, os.SEEK_CUR)
  return found.hexdigest()[:_LENGTH]


def _is_cut(file: File) -> bool:
  """Whether a file ends before its pixels do."""
  end = file.seek(0, os.SEEK_END)
  file.seek(0)
  head = file.read(len(png.MAGIC))
  file.seek(0)
  if head.startswith(jpeg.MAGIC):
    frame = jpeg.frame(file)
    file.seek(len(frame.header) if frame else 0)
    return _END_OF_JPEG not in file.read()
  if head == png.MAGIC:
    return any(name == b'IDAT' and start + size > end for name, start, size in _chunks(file))
  with tiff_pages.quiet(), tifffile.TiffFile(file) as tif:
    page = tif.pages.first
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return any(start + size > end for start, size in parts)


def _chunk_around(file: File, place: int) -> tuple[int, int] | None:
  """Returns where the content of the chunk of PNG around a place begins, and its size."""
  file.seek(0)
  if file.read(len(png.MAGIC)) != png.MAGIC:
    return None
  chunks = ((start, size) for _, start, size in _chunks(file))
  return next((chunk for chunk in chunks if chunk[0] <= place < sum(chunk)), None)


def _chunks(file: File) -> Iterator[tuple[bytes, int, int]]:
  """Yield the name of each chunk of PNG, and the place and the size of its content."""
  place = len(png.MAGIC)
  while file.seek(place) == place and len(head := file.read(8)) == 8:
    size = int.from_bytes(head[:4], 'big')
    yield head[4:], place + 8, size
    place += 12 + size
