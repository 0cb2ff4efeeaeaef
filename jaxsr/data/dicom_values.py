"""Stored values of DICOM radiographs: sign, padding, look-up tables, and their levels of gray."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt

from jaxsr.data import bit_depth, dicom_limits
from jaxsr.data.dicom_limits import Unsupported

FUNCTIONAL_GROUPS = ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')


class LookUpTable(NamedTuple):
  """A modality look-up table: its values, the stored value of the first one, and their bits."""

  values: Int[np.ndarray, 'n']
  first: int
  bits: int
  remarks: tuple[str, ...]


def slope(dataset: Any) -> float:
  """Returns the rescale slope of an image, which enhanced objects keep in functional groups."""
  found = dataset.get('RescaleSlope')
  for name in FUNCTIONAL_GROUPS:
    for group in (dataset.get(name) or [])[:1]:  # of the first frame
      for item in group.get('PixelValueTransformationSequence') or []:
        found = item.get('RescaleSlope', found)
  try:
    return float(found or 1)
  except (TypeError, ValueError):
    raise Unsupported('has no number in RescaleSlope (0028,1053)') from None


def depth(dataset: Any) -> int:
  """Returns the bits per pixel: those that are stored, or those of the look-up table."""
  table = look_up_table(dataset)
  return int(dataset.get('BitsStored') or 0) if table is None else table.bits


class Stored(NamedTuple):
  """Stored values, which of them are padding, and the bits that they have.

  `few` is the number of bits that would do, if that is far fewer; else 0.
  """

  values: Integer[np.ndarray, 'h w']
  padding: Bool[np.ndarray, 'h w']
  bits: int
  signed: bool
  remarks: tuple[str, ...]
  few: int = 0


def levels(dataset: Any, wanted: int = 0) -> tuple[UInt[np.ndarray, 'h w'], Stored]:
  """Convert stored values to levels of gray over the whole range of their type.

  `wanted` is the number of bits that values have according to the user, 0 to trust the file.
  """
  found = stored_values(dataset, wanted)
  stored, padding, bits, signed = found.values, found.padding, found.bits, found.signed
  low = -(2 ** (bits - 1)) if signed else 0
  values, top = stored - low, 2**bits - 1
  if table := look_up_table(dataset):
    places = stored.astype(np.int64) - table.first
    values = table.values[np.clip(places, 0, len(table.values) - 1)]
    found = found._replace(bits=table.bits, remarks=found.remarks + table.remarks)
    found = _narrow(found, np.where(padding, 0, values), wanted)
    top = 2**found.bits - 1
  elif slope(dataset) < 0:
    values = top - values
  if dataset.PhotometricInterpretation == 'MONOCHROME1':
    values = top - values
  kind = np.uint8 if max(depth(dataset), found.bits) <= 8 else np.uint16
  peak = np.iinfo(kind).max
  gray = ((np.arange(top + 1) * peak + top // 2) // top).astype(kind)
  levels = np.empty(values.shape, kind)
  for row, line in enumerate(values):  # one row at a time, since indices take 8 bytes each
    levels[row] = gray[line.clip(0, top)]
  levels[padding] = 0
  return levels, found


def stored_values(dataset: Any, wanted: int = 0) -> Stored:
  """Read stored values, and which of them are padding.

  Bits above `BitsStored` may hold an overlay, and are then ignored. Without one they belong to
  values that a wrong `BitsStored` would wrap, and the values are read whole. If there are fewer
  bits, by the user (`wanted`) or by the compressed data, white is the largest value of those.
  """
  found, kept, compressed = _whole(dataset)
  if dataset.get('ModalityLUTSequence'):  # whose values count
    return found
  if not wanted and 0 < compressed < found.bits:
    text = f'its compressed data has {compressed} bits, BitsStored says {found.bits}'
    more = f'it is read as {compressed}-bit; if that is wrong, {bit_depth.name_bits(found.bits)}'
    found = found._replace(bits=compressed, remarks=(*found.remarks, f'{text}; {more}'))
  return _narrow(found, found.values[kept], wanted)


def _whole(dataset: Any) -> tuple[Stored, Any, int]:
  """Read stored values by the elements, an index of those without padding, and `pixels`' bits."""
  bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
  array, compressed = dicom_limits.pixels(dataset)
  if array.ndim != 2:
    raise Unsupported('holds several frames; split it first')
  allocated = 8 * array.dtype.itemsize
  word = array.view(f'{array.dtype.byteorder}u{array.dtype.itemsize}')
  whole = _with_sign(word, allocated) if signed else word
  part = word & (2**bits - 1)
  part = _with_sign(part, bits) if signed else part
  padding = _padding(dataset, whole, allocated, signed=signed)
  padding |= _padding(dataset, part, bits, signed=signed)
  kept = ~padding if padding.any() else ...
  values = whole[kept]
  extended = np.array_equal(values, part[kept])
  if extended or not (word[kept] >> bits).any() or _has_overlay(dataset):
    return Stored(part, padding, bits, signed, ()), kept, compressed
  most = max(int(values.max()), -int(values.min()) - 1).bit_length() + signed
  if most > 16:
    raise Unsupported('has values of more than 16 bits')
  remark = f'values need {most} bits, BitsStored says {bits}; all {most} bits are read'
  return Stored(whole, padding, most, signed, (remark,)), kept, compressed


def _narrow(found: Stored, values: Integer[np.ndarray, '...'], wanted: int) -> Stored:
  """Returns stored values with the bits that a user named, if those are fewer.

  Also notes how many would do if nobody named them. Values that are signed by their type, but of
  which none is negative, have no sign in so few bits.
  """
  if found.bits <= bit_depth.FEWEST or not values.size:
    return found
  low, high = int(values.min()), int(values.max())
  needed = high.bit_length() if low >= 0 else max(high, -low - 1).bit_length() + 1
  if not 0 < wanted < found.bits:
    few = 0 < needed <= found.bits - 2
    return found._replace(few=max(needed, bit_depth.FEWEST) if few and not wanted else 0)
  if needed > wanted:
    text = f'has values that need {needed} bits, more than the {wanted} bits that were named'
    raise Unsupported(f'{text}; name the bits that it holds')
  return found._replace(bits=wanted, signed=found.signed and low < 0)


def _with_sign(values: UInt[np.ndarray, 'h w'], bits: int) -> Int[np.ndarray, 'h w']:
  """Interpret unsigned values of `bits` bits as two's complement."""
  values = values.astype(np.int32 if bits <= 16 else np.int64)
  return np.where(values >= 2 ** (bits - 1), values - 2**bits, values)


def _padding(
  dataset: Any, values: Integer[np.ndarray, 'h w'], bits: int, *, signed: bool
) -> Bool[np.ndarray, 'h w']:
  """Returns a mask of the padding."""
  ends = padding_ends(dataset, bits, signed)
  return np.zeros(values.shape, bool) if ends is None else (values >= ends[0]) & (values <= ends[1])


def padding_ends(dataset: Any, bits: int, signed: bool) -> tuple[int, int] | None:
  """Returns the first and last stored value that mean padding, or None.

  They may be written as unsigned beside signed pixels, or as signed beside unsigned ones.
  """
  padding = dataset.get('PixelPaddingValue')
  if padding is None:
    return None
  limit = dataset.get('PixelPaddingRangeLimit')
  top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
  ends = [int(padding), int(padding if limit is None else limit)]
  ends = [end - 2**bits if end > top else end for end in ends]
  ends = [end if signed or end >= 0 else end + 2**bits for end in ends]
  return min(ends), max(ends)


def _has_overlay(dataset: Any) -> bool:
  """Whether an overlay lies in unused bits of the pixels (groups 6000 to 60FE)."""
  for group in range(0x6000, 0x6100, 2):
    position = dataset.get((group, 0x0102))
    if position is not None and int(position.value or 0) > 0:
      return True
  return False


def look_up_table(dataset: Any) -> LookUpTable | None:
  """Read the modality look-up table, if there is one.

  Values that need more bits than the table declares are taken whole.
  """
  if not dataset.get('ModalityLUTSequence'):
    return None
  item = dataset.ModalityLUTSequence[0]
  if item.get('LUTData') is None or 'LUTDescriptor' not in item or item['LUTDescriptor'].VM != 3:
    raise Unsupported('has a modality look-up table without LUTDescriptor or LUTData')
  count, first, bits = (int(value) for value in item.LUTDescriptor)
  if not 0 < bits <= 16:
    raise Unsupported(f'has a modality look-up table of {bits} bits; at most 16 are read')
  count = count or 2**16
  signed = bool(dataset.get('PixelRepresentation'))
  first = first - 2**16 if signed and first >= 2**15 else first
  data = item.LUTData
  if isinstance(data, bytes):
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    words = np.frombuffer(data[: len(data) & ~1], '<u2' if little else '>u2')
    # Two values of 8 bits may share a word, the first one in its low byte. A table of words that
    # lost its second half may be as long, but its high bytes are 0.
    short = 1 < count <= len(data) <= count + 1 and bits <= 8
    packed = short and not (len(words) > 1 and 0 < words.max() < 256)
    table = words.astype('<u2').view(np.uint8) if packed else words
  else:
    table = np.atleast_1d(np.array(data, np.int64)) & 0xFFFF
  if len(table) < count:
    raise Unsupported('has a modality look-up table that is cut off')
  table = table[:count].astype(np.int64)
  needed = int(table.max()).bit_length()
  if needed <= bits:
    return LookUpTable(table, first, bits, ())
  remark = f'its modality look-up table has values of {needed} bits and declares {bits}'
  return LookUpTable(table, first, needed, (f'{remark}; all {needed} bits are read',))
