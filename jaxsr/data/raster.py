"""Read PNG, JPEG, BMP and WebP by Pillow.

Pillow cuts 16-bit PNG with color or alpha to 8 bits, does not know JPEG of 12 bits, lossless JPEG
or JPEG-LS, and hides damage of JPEG, so those are decoded by `png` and `jpeg`.
"""

import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from jaxsr.data import decoded, jpeg, png
from jaxsr.data.decoded import Decoded
from jaxsr.data.dicom import File
from jaxsr.errors import ImageError, TooLargeError, one_line

FORMATS = ('PNG', 'JPEG', 'BMP', 'WEBP')
Image.MAX_IMAGE_PIXELS = None  # `decoded.MAX_PIXELS` is checked instead, before anything is decoded
PngImagePlugin.MAX_TEXT_CHUNK = png.MOST_METADATA  # color profiles may have more than 1 MiB
# Pillow warns of damaged EXIF data and APNG. The filter is set once, since threads share it.
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')
_SIXTEEN_BIT = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_COLOR = ('RGB', 'RGBA', 'RGBX', 'P', 'PA')
_GRAY = ('1', 'L', 'LA', 'I', *_SIXTEEN_BIT)
_ORIENTATION, _RESOLUTION, _UNIT = 274, (282, 283), 296  # EXIF tags
_BITS_IN_BMP = {12: 24}  # where its bits are, by the size of its header; 28 in all others
_UNREAD = 173  # a gray that few films have as a border
_LAST_ROWS = 2  # one of them is the last in the file, also with interlacing
_DAMAGED = 'is damaged (its header cannot be read); fetch it again'
_METADATA = ('exif', 'Raw profile type exif', 'Raw profile type APP1', 'xmp', 'XML:com.adobe.xmp')


class Header(NamedTuple):
  """The properties of a file that need no decoding; the sides are those of the upright image."""

  height: int
  width: int
  bits: int
  may_be_color: bool


class _Metadata(NamedTuple):
  orientation: int
  dpi: tuple[float, float] | None
  icc: bytes | None


def recognize(head: bytes) -> bool:
  """Whether a file's first bytes are those of a format that is read here."""
  return head.startswith((png.MAGIC, jpeg.MAGIC, b'BM')) or head[:4] + head[8:12] == b'RIFFWEBP'


def check(file: File, path: Path) -> Header:
  """Check a file without decoding it; raises ImageError as `read` does, as far as headers tell."""
  head = file.read(26)
  file.seek(0)
  if head.startswith(jpeg.MAGIC):
    return _check_jpeg(file, path)
  late = png.late_chunks(path) if head.startswith(png.MAGIC) else set()
  may_turn = bool(late & {b'eXIf', b'iTXt', b'tEXt', b'zTXt'})  # the orientation may follow pixels
  with _open_png(file, path, at_once=may_turn) if late else _open(file, path) as image:
    if may_turn:
      _load(image, path)
    bits = 16 if image.mode in ('I', *_SIXTEEN_BIT) or png.bits(head) == 16 else 8
    sides = _upright(image.height, image.width, _metadata(image))
    return Header(*sides, bits, image.mode in _COLOR)


def _upright(height: int, width: int, metadata: _Metadata) -> tuple[int, int]:
  return (width, height) if decoded.is_turned(metadata.orientation) else (height, width)


def read(file: File, path: Path) -> Decoded:
  """Decode a file; raises ImageError if it is damaged or holds what cannot be read without loss."""
  start = file.tell()
  head = file.read(30)
  file.seek(start)
  if head.startswith(png.MAGIC):
    return _read_png(file, path)
  if head.startswith(jpeg.MAGIC):
    return _read_jpeg(file, path)
  with _open(file, path) as image:
    if image.format == 'BMP' and (bits := _bits_of_few_grays(image, head)):
      return _decoded(_with_few_grays(image, file, bits, path), _metadata(image))
    _load(image, path)
    return _decoded(_pixels(image), _metadata(image), lossy=image.format in ('JPEG', 'WEBP'))


def _bits_of_few_grays(image: Image.Image, head: bytes) -> int:
  """Returns the bits of a BMP whose palette Pillow takes for samples of 1 or 8 bits; else 0."""
  at = _BITS_IN_BMP.get(head[14], 28)
  bits = int.from_bytes(head[at : at + 2], 'little')
  return bits if (image.mode == '1' and bits in (4, 8)) or (image.mode == 'L' and bits == 4) else 0


def _with_few_grays(
  image: Image.Image, file: File, bits: int, path: Path
) -> UInt[np.ndarray, 'h w 1']:
  """Decode BMP whose palette is black and white, or the grays from 0, by its indices."""
  kind, _, start, (_, *layout) = vars(image)['tile'][0]  # of BMP alone
  if kind != 'raw':
    text = f'is compressed BMP of {bits} bits with a palette of few grays, which is not supported'
    raise ImageError(path, f'{text}; convert it to PNG')
  file.seek(start)
  try:
    raw = 'P;4' if bits == 4 else 'P'
    indices = np.asarray(Image.frombytes('P', image.size, file.read(), 'raw', raw, *layout))
  except ValueError as error:
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  step, most = (255, 1) if image.mode == '1' else (1, 15)
  if (largest := int(indices.max())) > most:
    text = f'has the color {largest}, but its palette ends at {most}; fetch it again'
    raise ImageError(path, text)
  return (step * indices)[..., None]


def _decoded(
  pixels: UInt[np.ndarray, 'h w c'],
  metadata: _Metadata,
  *,
  bits: int | None = None,
  exact: bool = False,
  lossy: bool = False,
) -> Decoded:
  pixels, remarks = decoded.without_alpha(pixels, 8 * pixels.itemsize)
  pixels = decoded.orient(pixels, metadata.orientation) if metadata.orientation > 1 else pixels
  return Decoded(
    pixels,
    bits=bits,
    exact=exact,
    dpi=metadata.dpi,
    icc=metadata.icc,
    remarks=remarks,
    lossy=lossy,
  )


def _read_png(file: File, path: Path) -> Decoded:
  content = file.read()
  chunks, depth = png.check(content, path), png.bits(content[:26])
  remarks: tuple[str, ...] = ()
  if chunks.has_texts:
    content, remarks = png.without_texts(content, path)
  with _open(io.BytesIO(content), path) as image:
    unread = _mark_as_unread(image)
    _load(image, path)
    if _ends_unread(image, unread):
      png.check_length(content, path)
    if depth == 16 and image.mode not in ('I', *_SIXTEEN_BIT):
      pixels = png.decode_deep(content, path)
    else:
      pixels = _pixels(image)
      if chunks.transparent and _is_transparent(image, pixels, chunks.transparent, depth):
        remarks += (decoded.TRANSPARENT,)
    found = _decoded(pixels, _metadata(image))
  bits, more = png.range_of(found.pixels, chunks.significant)
  return found._replace(bits=bits, remarks=found.remarks + remarks + more)


def _open_png(file: File, path: Path, *, at_once: bool) -> Image.Image:
  """Open a file, of which only the header is read unless that fails or all is wanted at once."""
  if not at_once:
    try:
      return _open(file, path)
    except ImageError as error:
      if error.reason != _DAMAGED:
        raise
      file.seek(0)
  content, _ = png.without_texts(file.read(), path)
  return _open(io.BytesIO(content), path)


def _mark_as_unread(image: Image.Image) -> bytes:
  """Fill the last rows of an image that is not yet decoded; Pillow leaves them without data.

  Returns the bytes of such a row.
  """
  unread = 0 if image.mode == 'P' else _UNREAD  # palettes may end before
  height = min(_LAST_ROWS, image.height)
  rows = Image.new(image.mode, (image.width, height), (unread,) * len(image.getbands()))
  blank = Image.new(image.mode, image.size, None)
  blank.paste(rows, (0, image.height - height))
  image.im = blank.im
  return _row(rows, 0)


def _ends_unread(image: Image.Image, unread: bytes) -> bool:
  """Whether the last row of the file may be unread."""
  rows = range(max(image.height - _LAST_ROWS, 0), image.height)
  return image.height <= _LAST_ROWS or any(_row(image, row) == unread for row in rows)


def _row(image: Image.Image, row: int) -> bytes:
  return image.crop((0, row, image.width, row + 1)).tobytes()


def _is_transparent(
  image: Image.Image, pixels: UInt[np.ndarray, 'h w c'], transparent: bytes, depth: int
) -> bool:
  palette = image.mode == 'P'
  samples = np.asarray(image)[..., None] if palette else pixels
  return png.is_transparent(samples, transparent, depth=depth, palette=palette)


def _read_jpeg(file: File, path: Path) -> Decoded:
  frame = _jpeg_frame(file, path)
  metadata = _jpeg_metadata(frame, path)
  try:
    array, remarks = jpeg.decode(file.read(), frame)
  except Exception as error:  # ValueError, and imagecodecs' own kinds
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  bits = frame.bits if frame.is_special else None
  found = _decoded(array, metadata, bits=bits, exact=frame.is_special, lossy=frame.is_lossy)
  return found._replace(remarks=found.remarks + remarks)


def _check_jpeg(file: File, path: Path) -> Header:
  frame = _jpeg_frame(file, path)
  sides = _upright(frame.height, frame.width, _jpeg_metadata(frame, path))
  return Header(*sides, 16 if frame.bits > 8 else 8, frame.samples == 3)


def _jpeg_frame(file: File, path: Path) -> jpeg.Frame:
  """Read the frame header; raises ImageError for a kind of JPEG that is not read."""
  frame = jpeg.frame(file)
  if frame is None:
    raise ImageError(path, _DAMAGED)
  if reason := frame.unsupported():
    raise ImageError(path, f'{reason}, which is not supported; convert it to gray PNG')
  _check_size(path, frame.height, frame.width)
  return frame


def _jpeg_metadata(frame: jpeg.Frame, path: Path) -> _Metadata:
  try:
    with JpegImageFile(frame.as_baseline()) as image:
      return _metadata(image)
  except Exception as error:  # Pillow raises SyntaxError, struct.error, ...
    raise ImageError(path, _DAMAGED) from error


def _open(file: File, path: Path) -> Image.Image:
  try:
    image = Image.open(file, formats=FORMATS)
  except OSError as error:
    if error.errno is not None:
      raise
    if _is_cut_webp(file):
      raise ImageError(path, 'is truncated (it ends in its pixels); fetch it again') from error
    if not isinstance(error, UnidentifiedImageError):
      raise ImageError(path, f'cannot be read ({one_line(error)}); convert it to PNG') from error
    raise ImageError(path, _DAMAGED) from error
  except Exception as error:
    raise ImageError(path, _DAMAGED) from error
  try:
    _check_header(path, image)
  except ImageError:
    image.close()
    raise
  return image


def _is_cut_webp(file: File) -> bool:
  file.seek(0)
  head = file.read(8)
  size = int.from_bytes(head[4:], 'little') + len(head)
  return head.startswith(b'RIFF') and file.seek(0, os.SEEK_END) < size


def _check_header(path: Path, image: Image.Image) -> None:
  _check_size(path, image.height, image.width)
  frames = getattr(image, 'n_frames', 1)
  if frames > 1 and image.format != 'MPO':  # whose first frame is the image, others are previews
    raise ImageError(path, f'holds {frames} frames; split it first')
  if image.mode not in (*_GRAY, *_COLOR):
    kind = f'is {image.format} with {image.mode} samples, which are not supported'
    raise ImageError(path, f'{kind}; convert it to gray or RGB')


def _check_size(path: Path, height: int, width: int) -> None:
  if width * height > decoded.MAX_PIXELS:
    limit = decoded.MAX_PIXELS
    raise TooLargeError(path, f'has {width}x{height} pixels, more than {limit}; crop it first')


def _load(image: Image.Image, path: Path) -> None:
  palette = image.palette if image.mode == 'P' else None
  colors = len(palette.palette) // len(palette.rawmode or palette.mode) if palette else 0
  try:
    image.load()
  except Exception as error:  # Pillow raises OSError, SyntaxError, zlib.error, struct.error, ...
    raise ImageError(path, f'cannot be decoded ({one_line(error)})') from error
  if palette and (largest := int(np.asarray(image).max())) >= colors:
    text = f'has the color {largest}, but its palette ends at {colors - 1}; fetch it again'
    raise ImageError(path, text)


def _pixels(image: Image.Image) -> UInt[np.ndarray, 'h w c']:
  if image.mode in _SIXTEEN_BIT or image.mode == 'I':
    array = np.asarray(image).astype(np.uint16, copy=False)
  elif image.mode in ('P', 'PA'):
    image.info.pop('transparency', None)  # of which Pillow would warn
    array = np.asarray(image.convert('RGB'))
  elif image.mode == 'RGBX':
    array = np.asarray(image)[..., :3]
  else:
    array = np.asarray(image.convert('L') if image.mode == '1' else image)
  return array[..., None] if array.ndim == 2 else array


def _metadata(image: Image.Image) -> _Metadata:
  """Returns the metadata of an image whose header, or pixels, were read."""
  orientation, dpi = 1, None
  if image.format != 'JPEG' or image.info.get('jfif_unit'):  # else Pillow takes it from EXIF,
    dpi = decoded.as_resolution(image.info.get('dpi'))  # the same for both sides, or invents it
  if any(name in image.info for name in _METADATA):
    try:
      exif = Image.Image.getexif(image)
      orientation = decoded.as_orientation(exif.get(_ORIENTATION))
      if dpi is None and (unit := decoded.UNITS_PER_INCH.get(exif.get(_UNIT, 2))):
        dpi = decoded.as_resolution([exif.get(tag) for tag in _RESOLUTION], unit)
    except Exception:  # damaged metadata does not make the pixels unusable
      pass
  dpi = (dpi[1], dpi[0]) if dpi and decoded.is_turned(orientation) else dpi
  return _Metadata(orientation, dpi, image.info.get('icc_profile'))
