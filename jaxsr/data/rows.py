"""Write PNG and TIFF row by row, so that memory does not grow with the image."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import tifffile
from jaxtyping import UInt

from jaxsr.data import decoded, png, raster_out, seal, tiff, tiff_out
from jaxsr.data.decoded import ImageInfo
from jaxsr.files import atomic

SUFFIXES = ('.png', '.tif', '.tiff')
_UP = 2  # PNG's filter that subtracts the row above
_INCH = 0.0254  # m
_JPEG_END = b'\xff\xd9'
_GRAY, _RGB = 0, 2  # PNG's color types


class Rows(Protocol):
  """Takes the rows of one image, from the top."""

  def write(self, levels: UInt[np.ndarray, 'rows w c']) -> None: ...


class _Png:
  def __init__(self, file: BinaryIO, shape: tuple[int, int, int], kind: Any, info: ImageInfo):
    self.file, self.kind, self.bits = file, np.dtype(kind), info.bits
    self.above = np.zeros((1, shape[1] * shape[2] * self.kind.itemsize), np.uint8)
    self.compressor = zlib.compressobj(raster_out.LEVEL)

  def begin(self, shape: tuple[int, int, int], note: str, info: ImageInfo) -> None:
    height, width, channels = shape
    color, depth = _GRAY if channels == 1 else _RGB, 8 * self.kind.itemsize
    self.file.write(png.MAGIC)
    self._chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 0))
    if info.icc:
      self._chunk(b'iCCP', b'ICC Profile\0\0' + zlib.compress(info.icc))
    if info.bits < depth:
      self._chunk(b'sBIT', bytes([info.bits] * channels))
    if info.dpi:
      self._chunk(b'pHYs', struct.pack('>IIB', *(round(d / _INCH) for d in info.dpi), 1))
    if note:
      self._chunk(b'tEXt', b'Comment\0' + note.encode('latin-1', 'replace'))

  def write(self, levels: UInt[np.ndarray, 'rows w c']) -> None:
    stored = decoded.to_stored_range(levels, self.bits)
    stored = np.ascontiguousarray(stored.astype(self.kind.newbyteorder('>')))
    values = stored.reshape(len(levels), -1).view(np.uint8)
    up = values - np.concatenate([self.above, values[:-1]])  # modulo 256
    self.above = values[-1:].copy()
    filtered = np.insert(up, 0, _UP, axis=1)
    if content := self.compressor.compress(filtered.tobytes()):
      self._chunk(b'IDAT', content)

  def close(self) -> None:
    self._chunk(b'IDAT', self.compressor.flush())
    self._chunk(b'IEND', b'')

  def _chunk(self, name: bytes, content: bytes) -> None:
    self.file.write(struct.pack('>I', len(content)) + name + content)
    self.file.write(struct.pack('>I', zlib.crc32(content, zlib.crc32(name))))


class _Tiff:
  def __init__(self, file: BinaryIO, bits: int, kind: Any):
    self.file, self.bits, self.kind = file, bits, np.dtype(kind)

  def write(self, levels: UInt[np.ndarray, 'rows w c']) -> None:
    stored = decoded.to_stored_range(levels, self.bits)
    self.file.write(stored.astype(self.kind.newbyteorder('<')).tobytes())


@contextmanager
def writing(
  path: Path, shape: tuple[int, int, int], kind: Any, note: str, info: ImageInfo
) -> Iterator[Rows]:
  """Yield a writer of a PNG or TIFF file that appears when it is complete, or not at all.

  Args:
    path: the file; its suffix is one of `SUFFIXES`.
    shape: height, width and channels (1 or 3) of the image.
    kind: np.uint8 or np.uint16, over whose whole range the rows come.
    note: the comment.
    info: the range of the stored values, the resolution and the color profile.
  """
  note = seal.opened(note)
  with atomic(path) as temporary:
    if path.suffix.lower() == '.png':
      with temporary.open('wb') as file:
        writer = _Png(file, shape, kind, info)
        writer.begin(shape, note, info)
        yield writer
        writer.close()
    else:
      offset = tiff_out.write_empty(temporary, shape, kind, note, info)
      with temporary.open('r+b') as file:
        file.seek(offset)
        yield _Tiff(file, info.bits, kind)
    seal.close(temporary)


def is_complete(path: Path) -> bool:
  """Whether all of a PNG, TIFF or JPEG is there, by its checksums or its end, without decoding."""
  with path.open('rb') as file:
    head = file.read(len(png.MAGIC))
    if head == png.MAGIC:
      return _has_all_chunks(file)
    if not tiff.recognize(head):
      file.seek(-len(_JPEG_END), os.SEEK_END)
      return file.read() == _JPEG_END
  with tifffile.TiffFile(path) as tif:
    page: Any = tif.pages.first
    parts = zip(page.dataoffsets, page.databytecounts, strict=True)
    return max(start + length for start, length in parts) <= path.stat().st_size


def _has_all_chunks(file: BinaryIO) -> bool:
  """Whether the chunks that follow in a PNG have the right checksums and an end."""
  while len(head := file.read(8)) == 8:
    content = file.read(int.from_bytes(head[:4]))
    if zlib.crc32(content, zlib.crc32(head[4:])).to_bytes(4) != file.read(4):
      return False
    if head[4:] == b'IEND':
      return True
  return False
