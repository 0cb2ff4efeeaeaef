"""Write an enlarged radiograph as DICOM, derived from the file that it was made from.

`dicom_derived.derive` makes the data set. The pixels may come at once (`write`) or row by row
(`Writer`).
"""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt

from jaxsr import runtime
from jaxsr.data import dicom, seal
from jaxsr.data.decoded import MAX_PIXELS, File, Method
from jaxsr.data.dicom_derived import Derived, converting, derive
from jaxsr.errors import ImageError
from jaxsr.files import atomic

_SYNTAXES = {
  'none': 'ExplicitVRLittleEndian',
  'jpegls': 'JPEGLSLossless',
  'j2k': 'JPEG2000Lossless',
}
_HEADER = 12  # bytes of the element before the pixels
_END = b'\xfe\xff\xdd\xe0\0\0\0\0'  # of compressed pixels
_LEAST_J2K = 32  # pixels in each direction, which its six resolutions need
_MOST_UNCOMPRESSED = 32 * 2**20  # bytes of pixels


def check_target(path: Path, array: np.ndarray) -> None:
  """Raise ImageError if a derived DICOM cannot hold the array."""
  if array.shape[2] != 1:
    raise ImageError(path, 'DICOM is written in gray only; use a model with 1 channel, or PNG')


class Writer:
  """Writes the rows of one derived image into an open file, from the top.

  Uncompressed rows go into the file at once. Compression needs all of them, so they wait in
  `pixels`, another file, and memory does not grow with the image before they are compressed.
  """

  def __init__(
    self, file: BinaryIO, pixels: BinaryIO, path: Path, derived: Derived, compression: str
  ):
    self.file, self.pixels, self.path, self.derived = file, pixels, path, derived
    self.top, self.compression = 0, compression
    kind, size = derived.table.dtype, derived.table.itemsize * derived.shape[0] * derived.shape[1]
    self.pad = size % 2
    if self.is_raw:
      self._write_header()
      name = b'OB' if kind.itemsize == 1 else b'OW'
      file.write(struct.pack('<HH2sHL', 0x7FE0, 0x0010, name, 0, size + self.pad))

  @property
  def is_raw(self) -> bool:
    """Whether the pixels go into the file as they are."""
    return self.compression == 'none'

  def _write_header(self) -> None:
    with converting(self.path):
      _save(self.file, self.derived.dataset, _SYNTAXES['none'])

  def write(self, levels: UInt[np.ndarray, 'rows w 1']) -> None:
    """Add rows of gray levels over the whole range of their type."""
    values = self.derived.stored(levels[..., 0], self.top)
    self.pixels.write(np.ascontiguousarray(values).data)
    self.top += len(values)

  def describe(self, method: Method) -> None:
    """Replace the description of the derivation by one that is not longer."""
    from jaxsr.data import dicom_rules as rules

    self.set_texts(DerivationDescription=rules.describe(method))

  def set_texts(self, **texts: str) -> None:
    """Replace texts of the data set by others that are not longer, after the first rows."""
    for name, text in texts.items():
      old = self.derived.dataset[name]
      old.value = text if old.VR == 'DS' else text.ljust(len(old.value))
    if self.is_raw:
      self.file.seek(0)
      self._write_header()
      self.file.seek(0, os.SEEK_END)

  def close(self) -> None:
    """Complete the file after its last row."""
    if self.is_raw:
      self.file.write(bytes(self.pad))
      return
    runtime.return_freed_memory()  # of the network
    self.pixels.seek(0)
    with converting(self.path):
      dataset, syntax = self.derived.dataset, _SYNTAXES[self.compression]
      dataset.PixelData = self.pixels.read()
      _compress(dataset, syntax, self.path)
      _save(self.file, dataset, syntax)
      del dataset.PixelData


@contextmanager
def writing(path: Path, derived: Derived, compress: str | None) -> Iterator[Writer]:
  """Yield a writer of a file that appears when it is complete, or not at all.

  Args:
    path: the file.
    derived: of `dicom_derived.derive`.
    compress: 'none', 'jpegls' or 'j2k' (both lossless); None: JPEG-LS for more than 32 MB, and
      none for more pixels than are held in memory.

  Raises:
    ImageError: the image is too small for JPEG 2000.
  """
  if compress == 'j2k' and min(derived.shape) < _LEAST_J2K:
    height, width = derived.shape
    least = f'--compress j2k takes at least {_LEAST_J2K} in each direction'
    raise ImageError(path, f'would have {width}x{height} pixels; {least}; choose jpegls or none')
  chosen = compress or _default_compression(derived)
  with atomic(path) as temporary:
    with temporary.open('wb') as file, ExitStack() as stack:
      waiting = chosen != 'none'
      pixels = stack.enter_context(TemporaryFile(dir=temporary.parent)) if waiting else file
      writer = Writer(file, pixels, path, derived, chosen)
      yield writer
      writer.close()
    seal.close(temporary)


def write(
  path: Path,
  levels: UInt[np.ndarray, 'h w 1'],
  like: Path,
  method: Method,
  *,
  compress: str | None = None,
) -> None:
  """Write an enlarged radiograph as DICOM.

  Args:
    path: the file.
    levels: the image, over the whole range of its type.
    like: the DICOM file that it was made from.
    method: how it was made.
    compress: as `writing` takes it.

  Raises:
    ImageError: as `derive` does, or the image's type has another depth than the source.
  """
  check_target(path, levels)
  derived = derive(like, levels.shape[:2], method)
  if len(derived.table) != np.iinfo(levels.dtype).max + 1:
    depth = 8 if len(derived.table) == 256 else 16
    raise ImageError(path, f'is {levels.dtype}, but {like} has {depth}-bit levels')
  with writing(path, derived, compress) as writer:
    writer.write(levels)


def read_note(path: Path) -> str:
  """Returns the provenance that `write` put into a file; '' if there is none, or it was changed."""
  from jaxsr.data import dicom_rules as rules

  with path.open('rb') as file, dicom.silent(path):
    dataset = dicom.header(file, path, stop=True)
    left = _bytes_left(file, dataset)
    return seal.note(rules.read_note(dataset), file, lambda _: left > 0)


def is_complete(path: Path) -> bool:
  """Whether all pixels of a file that was written here are there, without decoding them."""
  with path.open('rb') as file, dicom.silent(path):
    return _bytes_left(file, dicom.header(file, path, stop=True)) == 0


def _bytes_left(file: File, dataset: Any) -> int:
  """Returns how many bytes a file that was written here lacks; a negative number if it has more.

  Compressed pixels without their end lack an unknown number, at least one.
  """
  start = file.tell()
  if dataset.file_meta.TransferSyntaxUID.is_compressed:
    behind = file.read().rpartition(_END)
    return -len(behind[2]) if behind[1] else 1
  pixels = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
  return start + _HEADER + pixels + pixels % 2 - file.seek(0, os.SEEK_END)


def is_compressed_by(path: Path, compress: str) -> bool:
  """Whether a file has the compression that an option names."""
  from pydicom import uid

  with path.open('rb') as file, dicom.silent(path):
    found = dicom.header(file, path, stop=True).file_meta.TransferSyntaxUID
  return found == getattr(uid, _SYNTAXES[compress])


def _default_compression(derived: Derived) -> str:
  pixels = derived.shape[0] * derived.shape[1]
  few = derived.table.itemsize * pixels <= _MOST_UNCOMPRESSED
  return 'none' if few or pixels > MAX_PIXELS else 'jpegls'


def _compress(dataset: Any, name: str, path: Path) -> None:
  from pydicom import uid
  from pydicom.dataset import FileMetaDataset
  from pydicom.pixels.encoders.base import get_encoder

  syntax = getattr(uid, name)
  if not get_encoder(syntax).is_available:
    need = "pip install 'jaxsr-xray[dicom]', or choose --compress none"
    raise ImageError(path, f'compression as {syntax.name} needs: {need}')
  dataset.file_meta = FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian  # of the pixels until then
  dataset.compress(syntax, generate_instance_uid=False)


def _save(file: BinaryIO, dataset: Any, name: str) -> None:
  """Write a data set with a new file header; nothing of the source's header is kept."""
  from pydicom import uid
  from pydicom.dataset import FileMetaDataset

  dataset.preamble, dataset.file_meta = bytes(128), FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = getattr(uid, name)
  dataset.save_as(file, enforce_file_format=True, implicit_vr=False, little_endian=True)
