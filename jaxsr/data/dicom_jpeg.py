"""A decoder of JPEG Lossless and 12-bit JPEG for pydicom, by imagecodecs.

The plug-ins that pydicom knows for these are under the GPL or large; imagecodecs (BSD), which reads
compressed TIFF as well, decodes both.
"""

from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid

_SYNTAXES = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, ('imagecodecs>=2024.6.1',))  # pydicom's name


def is_available(syntax: str) -> bool:
  """Whether a transfer syntax can be decoded (part of pydicom's plug-in protocol)."""
  return syntax in _SYNTAXES and bool(imagecodecs.JPEG8.available)


def decode_frame(content: bytes, runner: Any) -> bytes:
  """Decode one frame; `runner` is pydicom's description of the image."""
  array = imagecodecs.jpeg8_decode(content)
  if array.dtype == np.uint8:
    runner.set_option('bits_allocated', 8)
  return array.astype(array.dtype.newbyteorder('<')).tobytes()


def register() -> None:
  """Add the decoder to pydicom, once per process."""
  from pydicom.pixels.decoders.base import get_decoder

  for syntax in _SYNTAXES:
    decoder = get_decoder(syntax)
    if 'jaxsr' not in decoder.available_plugins:
      decoder.add_plugin('jaxsr', (__name__, 'decode_frame'))
