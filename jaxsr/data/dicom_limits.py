"""Bounds on the memory and the time that a DICOM file may take.

Elements and inflated bytes are counted before pydicom parses them. Compressed pixels are decoded
in a child process: the memory and the time that it may use follow from the declared size, and a
decoder that crashes ends the child alone.
"""

import atexit
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsr.data import jpeg, jpeg2000
from jaxsr.data.decoded import MAX_PIXELS, File
from jaxsr.errors import ImageError

_META = 1024  # bytes that hold the transfer syntax
_DEFLATED, _EXPLICIT = b'1.2.840.10008.1.2.1.99', b'1.2.840.10008.1.2.1\0\0\0'
_MOST_INFLATED = 2 * MAX_PIXELS + 2**24  # bytes: the pixels, and the elements beside them
_MOST_READS = 30_000  # pydicom reads one to three times per element; radiographs have hundreds
_LONGEST_SEQUENCE = 2**20  # bytes; pydicom parses a sequence when it is first used
_JPEG_2000 = ('1.2.840.10008.1.2.4.9', '1.2.840.10008.1.2.4.20')  # and HTJ2K
_HEAD = 256  # bytes in which the header of JPEG 2000 begins
_CHILD = 'import sys; sys.path[:] = sys.argv[1:]; from jaxsr.data import dicom_child as child'
_CHILD += '; child.serve(sys.stdin.buffer, sys.stdout.buffer)'


class Unsupported(ValueError):
  """Says why pixels cannot be used, without quoting an element."""


class _Counted:
  """A file whose reads are counted, as long as elements are parsed."""

  def __init__(self, file: File):
    self._file, self._left = file, _MOST_READS

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)

  def read(self, size: int = -1) -> bytes:
    """Read bytes; raises Unsupported after too many calls."""
    self._left -= 1
    if self._left < 0:
      raise Unsupported('has more elements than any radiograph needs')
    return self._file.read(size)


def bounded(file: File, path: Path) -> Any:
  """Returns a file for pydicom: inflated, and with a limit to the number of its elements.

  Raises ImageError if it cannot be inflated, or inflates to more than any image needs.
  """
  start = file.tell()
  head = file.read(_META)
  if _DEFLATED not in head:
    file.seek(start)
    return _Counted(file)
  meta = 144 + int.from_bytes(head[140:144], 'little')
  file.seek(start)
  head, content, size = file.read(meta).replace(_DEFLATED, _EXPLICIT), file.read(), 0
  try:
    for part in _inflate(content):
      size += len(part)
      if size > _MOST_INFLATED:
        text = f'inflates to more than {_MOST_INFLATED >> 20} MiB; no image needs that'
        raise ImageError(path, text)
  except zlib.error:
    raise ImageError(path, 'is damaged (it cannot be inflated); fetch it again') from None
  return _Counted(io.BytesIO(head + b''.join(_inflate(content))))


def _inflate(content: bytes) -> Iterator[bytes]:
  """Yield inflated bytes in parts of at most 1 MiB."""
  inflater = zlib.decompressobj(-zlib.MAX_WBITS)
  while content:
    yield inflater.decompress(content, 2**20)
    content = inflater.unconsumed_tail


def check_sequences(dataset: Any, tags: Iterable[Any]) -> None:
  """Raise Unsupported if a sequence that was not parsed yet is longer than any is."""
  from pydicom.datadict import dictionary_has_tag, dictionary_VR

  for tag in tags:
    raw = dataset.get_item(tag)
    if raw is None or not isinstance(raw.value, bytes) or len(raw.value) <= _LONGEST_SEQUENCE:
      continue
    known = dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else 'UN'
    if 'SQ' in (raw.VR, known):
      raise Unsupported(f'has a sequence of {len(raw.value)} bytes; no radiograph needs that')


def pixels(dataset: Any) -> tuple[np.ndarray, int]:
  """Returns the stored values of a data set with one gray frame, [h, w], and their bits.

  Bits above `BitsStored` are kept. The number of bits is that of the compressed data, or 0 if the
  pixels are not compressed or the compression does not say it. Call it from one thread at a time.

  Raises:
    Unsupported: The compressed pixels have another size than the data set declares, or decoding
      them takes too long or too much memory.
    Exception: Of pydicom, if uncompressed pixels are damaged.
  """
  from pydicom.pixels.utils import pixel_array

  if not dataset.file_meta.TransferSyntaxUID.is_compressed:
    return pixel_array(dataset, raw=True, correct_unused_bits=False), 0
  bits = _check_frame(dataset)
  found = _ask(_without_the_rest(dataset))
  if found is None:
    raise Unsupported('cannot be decoded (its decoder took too much time or memory, or crashed)')
  if not found.startswith(b'\x93NUMPY'):
    raise Unsupported(f'cannot be decoded ({found.decode()})')
  return np.load(io.BytesIO(found), allow_pickle=False), bits


def _check_frame(dataset: Any) -> int:
  """Raise Unsupported if the compressed data says something else than the data set.

  Returns the bits of its samples, or 0 if it does not say them.
  """
  from pydicom.encaps import get_frame

  try:
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
  except Exception:  # pydicom raises errors of many kinds, whose texts may quote elements
    text = 'cannot be decoded (its compressed pixels are not divided into fragments as they must)'
    raise Unsupported(text) from None
  declared = int(dataset.Columns), int(dataset.Rows)
  found = _described(frame)
  if found is None:
    return 0
  if found.samples != 1:
    kind = dataset.PhotometricInterpretation
    text = f'is {kind}, but its compressed data is in color ({found.samples} samples per pixel)'
    raise Unsupported(f'{text}; correct one of them')
  if (found.width, found.height) != declared:
    columns, rows = declared
    size = f'{found.width}x{found.height}'
    raise Unsupported(f'declares {columns}x{rows} pixels, but its compressed data has {size}')
  allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
  signed = bool(dataset.PixelRepresentation)
  if found.bits > allocated:
    text = f'allocates {allocated} bits (0028,0100), but its compressed data has {found.bits}'
    raise Unsupported(f'{text}; correct one of them')
  if found.signed and not signed:
    text = 'says that values are unsigned in PixelRepresentation (0028,0103), but its compressed'
    raise Unsupported(f'{text} data is signed; correct one of them')
  if signed and not found.signed and found.bits < stored:
    text = f'stores {stored} bits with a sign (0028,0101), but its compressed data has {found.bits}'
    raise Unsupported(f'{text} without one; correct one of them')
  if str(dataset.file_meta.TransferSyntaxUID).startswith(_JPEG_2000):
    try:
      jpeg2000.check(frame)
    except jpeg.Damaged as error:
      raise Unsupported(f'cannot be decoded ({error})') from None
  return found.bits


class _Described(NamedTuple):
  """The properties of an image by the header of its compressed data."""

  width: int
  height: int
  samples: int
  bits: int
  signed: bool


def _described(frame: bytes) -> _Described | None:
  """Read the header of JPEG, JPEG-LS or JPEG 2000; None for other data."""
  if (header := jpeg2000.header(frame[:_HEAD])) is not None:
    return _Described(*header)
  found = jpeg.frame(io.BytesIO(frame)) if frame.startswith(jpeg.MAGIC) else None
  if found is None:
    return None
  if found.samples == 1 and (reason := found.unsupported()):
    raise Unsupported(f'has compressed data that {reason}, which is not supported')
  return _Described(found.width, found.height, found.samples, found.bits, signed=False)


def _without_the_rest(dataset: Any) -> bytes:
  """Returns a DICOM file with the pixels and the elements that decoding them needs."""
  from pydicom.dataset import Dataset, FileMetaDataset

  names = ('SamplesPerPixel', 'PhotometricInterpretation', 'Rows', 'Columns', 'BitsAllocated')
  names += ('BitsStored', 'HighBit', 'PixelRepresentation', 'PixelData')
  part, meta = Dataset(), FileMetaDataset()
  for name in names:
    if name in dataset:
      part[name] = dataset[name]
  meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
  part.file_meta, content = meta, io.BytesIO()
  part.save_as(content, implicit_vr=False, little_endian=True)
  return content.getvalue()


class _Child:
  """The child process of this one, started when it is first needed."""

  def __init__(self):
    self.process: subprocess.Popen[bytes] | None = None
    self.parent = 0

  def started(self) -> 'subprocess.Popen[bytes]':
    """Returns the running child; a fork of the process that started one starts its own."""
    if self.process is None or self.parent != os.getpid() or self.process.poll() is not None:
      self.parent = os.getpid()
      self.process = subprocess.Popen(
        [sys.executable, '-c', _CHILD, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1'},
        start_new_session=True,  # Ctrl-C is for the parent
      )
    return self.process

  def stop(self) -> None:
    """End the child, if this process has started one."""
    if self.process is not None and self.parent == os.getpid():
      self.process.kill()
      self.process.communicate()
      self.process = None


_child = _Child()
atexit.register(_child.stop)


def _ask(content: bytes) -> bytes | None:
  """Send a file to the child; returns its answer, or None if the child ended."""
  process = _child.started()
  assert process.stdin is not None
  assert process.stdout is not None
  try:
    process.stdin.write(struct.pack('<Q', len(content)) + content)
    process.stdin.flush()
    length = process.stdout.read(8)
    answer = process.stdout.read(int.from_bytes(length, 'little'))
  except BrokenPipeError:
    answer = b''
  if not answer:
    _child.stop()
  return answer or None
