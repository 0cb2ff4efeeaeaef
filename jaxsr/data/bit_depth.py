"""How many bits the values of an image have, and whether its colors are gray."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxsr.data import remarks
from jaxsr.data.decoded import Decoded
from jaxsr.errors import ImageError, UserError

Raw = UInt[np.ndarray, 'h w c']

_SUSPICIOUS = 2**14  # a 16-bit image that has no value from here on may hold fewer bits
FEWEST = 8  # bits that may be in a 16-bit file
_MOST = 16


def check(bits: int, name: str = 'bits') -> None:
  """Raise UserError unless a number of bits, as a user named it, can be that of a file."""
  if bits and not FEWEST <= bits <= _MOST:
    raise UserError(f'{name} {bits}: choose {FEWEST} to {_MOST}, or 0 to trust the files')


def stored(found: Decoded, path: Path, wanted: int) -> tuple[Raw, int]:
  """Returns stored values with black at 0, and the number of their bits."""
  pixels, container = found.pixels, 8 * found.pixels.itemsize
  bits = _bits(found, path, wanted)
  if found.white_is_zero:
    pixels = (2**bits - 1 - pixels.astype(np.int32)).astype(pixels.dtype)
  return pixels, min(bits, container)


def _bits(found: Decoded, path: Path, wanted: int) -> int:
  """Determine how many bits an image's values have."""
  container = 8 * found.pixels.itemsize
  if container == 8 and found.bits is None:
    return container
  peak = int(found.pixels.max())
  if found.exact:
    bits = found.bits or container
    if peak >= 2**bits:
      raise ImageError(path, f'has the value {peak}, which {bits} bits do not hold; fetch it again')
    return bits
  if wanted and container == 16:
    if peak >= 2**wanted:
      reason = f'has values up to {peak}, more than the {wanted} bits that were named'
      raise ImageError(path, f'{reason}; name the bits that it holds')
    return wanted
  if found.bits is not None:
    return found.bits if peak < 2**found.bits else container
  if likely := likely_bits(peak):
    name_few(path, f'end at {peak}, of 65535', container, likely)
  return container


def name_few(path: Path, found: str, bits: int, likely: int) -> None:
  """Print what was found of the values of a file that may hold fewer bits than it is read as."""
  text = (
    f'its values {found} in {bits} bits, and are read as {bits}-bit; if it holds '
    f'{likely} bits, {name_bits(likely)}'
  )
  remarks.add(path, 'few bits', text)


def name_bits(bits: int) -> str:
  """Returns how to name the bits of files, in commands, in training and in Python."""
  return f'use --bits {bits} (training: --config.data.bits={bits}; Python: bits={bits})'


def likely_bits(peak: int) -> int:
  """Returns the bits that a 16-bit image with this largest value may hold; 0 if it is plausible."""
  return max(peak.bit_length(), FEWEST) if 0 < peak < _SUSPICIOUS else 0


def as_gray(array: Raw, *, lossy: bool) -> UInt[np.ndarray, 'h w _']:
  """Reduce RGB with three equal channels to one; other RGB is returned as it is."""
  spread = int((array.max(axis=2) - array.min(axis=2)).max())
  if spread > (2 if lossy else 0):  # JPEG's own color transform rounds
    return array
  return np.ascontiguousarray(array[..., 1:2])  # a view would keep all three in memory
