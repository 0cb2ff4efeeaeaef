"""Decoders of JPEG and RLE for pydicom, by `jpeg` and imagecodecs.

The plug-ins that pydicom knows for JPEG Lossless and 12-bit JPEG are under the GPL or large, and
those for JPEG of 8 bits hide damage. Its own decoder of RLE is a loop of Python that inflates
whatever a file holds.
"""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid

from jaxsr.data import jpeg

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_SYNTAXES = (*_JPEG, uid.RLELossless)
DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, ('imagecodecs>=2024.6.1',))  # pydicom's name
_NAME = 'jaxsr'
_SPARE = 1  # byte that encoders may add to a segment of RLE so that their number is even


def is_available(syntax: str) -> bool:
  """Whether a transfer syntax can be decoded (part of pydicom's plug-in protocol)."""
  return syntax in _SYNTAXES and bool(imagecodecs.JPEG8.available)


def decode_frame(content: bytes, runner: Any) -> bytes:
  """Decode one frame; `runner` is pydicom's description of the image."""
  if runner.transfer_syntax == uid.RLELossless:
    return _decode_rle(content, runner.rows * runner.columns, runner.bits_allocated // 8)
  frame = jpeg.frame(io.BytesIO(content))
  if frame is None:
    raise jpeg.Damaged
  array, remarks = jpeg.decode(content, frame)
  if remarks:
    raise jpeg.Damaged
  if array.dtype == np.uint8:
    runner.set_option('bits_allocated', 8)
  return array.astype(array.dtype.newbyteorder('<')).tobytes()


def _decode_rle(content: bytes, pixels: int, width: int) -> bytes:
  """Decode one gray frame, whose segments hold the highest byte of each pixel first."""
  count, *starts = struct.unpack_from('<16L', content)
  if count != width:
    raise ValueError(f'{count} segments instead of {width}')
  ends = [*starts[1:count], len(content)]
  frame = np.empty((pixels, width), np.uint8)
  for i, (start, end) in enumerate(zip(starts, ends, strict=False)):
    frame[:, width - 1 - i] = np.frombuffer(_unpack(content[start:end], pixels), np.uint8)
  return frame.tobytes()


def _unpack(segment: bytes, size: int) -> bytes:
  """Decode a segment of RLE to `size` bytes; raises ValueError if it holds fewer or more."""
  try:
    found = imagecodecs.packbits_decode(segment, out=size + _SPARE)
  except imagecodecs.PackbitsError:  # a segment of an odd length ends with a byte of padding
    found = imagecodecs.packbits_decode(segment[:-1], out=size + _SPARE)
  if len(found) < size:
    raise jpeg.Damaged
  return bytes(found[:size])


def plugin(syntax: str) -> str:
  """Returns the name of the plug-in that is preferred for a transfer syntax; '' for any."""
  return _NAME if syntax in _SYNTAXES else ''


def register() -> None:
  """Add the decoder to pydicom, once per process."""
  from pydicom.pixels.decoders.base import get_decoder

  for syntax in _SYNTAXES:
    decoder = get_decoder(syntax)
    if _NAME not in decoder.available_plugins:
      decoder.add_plugin(_NAME, (__name__, 'decode_frame'))
