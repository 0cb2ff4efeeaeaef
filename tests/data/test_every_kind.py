"""A random gray image through every kind of PNG, and all that Pillow writes.

Each combination is read back equal, or refused with a reason.
"""

import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsr.data import image_files
from jaxsr.data.decoded import orient
from jaxsr.errors import ImageError

HEIGHT, WIDTH = 21, 13
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7 += ((1, 0, 2, 1),)  # first row, first column, step down, step across


def cases(axes):
  return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def some(axes, count, seed):
  every = cases(axes)
  return [every[i] for i in np.random.default_rng(seed).choice(len(every), count, replace=False)]


def stored(upright, orientation):
  """Turn an image so that reading it with an orientation turns it back."""
  inverse = {6: 8, 8: 6}.get(orientation, orientation)
  return orient(upright[..., None], inverse)[..., 0]


# PNG, written here: libpng's other writers leave most of these out.
PNG = {
  'bits': (1, 2, 4, 8, 16),
  'color': ('gray', 'gray alpha', 'rgb', 'rgb alpha', 'palette'),
  'interlaced': (False, True),
  'filter': (0, 1, 2, 3, 4),
  'parts': (1, 3),
  'orientation': range(1, 9),
  'significant': (False, True),
}


def chunk(name, data):
  return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def filtered(rows, step, kind):
  """Apply one of PNG's five filters to rows of bytes, uint8 [h, n]."""
  left, up, corner = np.zeros_like(rows), np.zeros_like(rows), np.zeros_like(rows)
  left[:, step:], up[1:] = rows[:, :-step], rows[:-1]
  corner[1:, step:] = rows[:-1, :-step]
  a, b, c = (x.astype(int) for x in (left, up, corner))
  nearest = np.argmin(np.abs([b - c, a - c, a + b - 2 * c]), axis=0)
  paeth = np.choose(nearest, [a, b, c])
  guess = (0, a, b, (a + b) // 2, paeth)[kind]
  coded = ((rows.astype(int) - guess) % 256).astype(np.uint8)
  return np.insert(coded, 0, kind, axis=1).tobytes()


def png(samples, *, bits, color, interlaced, filter, parts, orientation, significant):
  """Encode integer samples [h, w, c]."""
  height, width, channels = samples.shape
  passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
  content = b''
  for row, column, down, across in passes:
    x = samples[row::down, column::across]
    if x.size:
      digits = x.reshape(len(x), -1, 1) >> np.arange(bits)[::-1] & 1
      rows = np.packbits(digits.reshape(len(x), -1).astype(bool), axis=1)
      content += filtered(rows, max(1, channels * bits // 8), filter)
  packed = zlib.compress(content)
  cuts = np.linspace(0, len(packed), parts + 1).astype(int)
  kind = ('gray', '', 'rgb', 'palette', 'gray alpha', '', 'rgb alpha').index(color)
  header = struct.pack('>IIBBBBB', width, height, bits, kind, 0, 0, interlaced)
  blocks = chunk(b'IHDR', header)
  if significant:
    size = {'palette': 3}.get(color, channels)
    blocks += chunk(b'sBIT', bytes([8 if color == 'palette' else bits]) * size)
  if color == 'palette':
    levels = np.arange(2**bits) * 255 // (2**bits - 1)
    blocks += chunk(b'PLTE', np.repeat(levels, 3).astype(np.uint8).tobytes())
  tags = b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 274, 3, 1, orientation, 0, 0)
  blocks += chunk(b'eXIf', tags)
  blocks += b''.join(chunk(b'IDAT', packed[a:b]) for a, b in itertools.pairwise(cuts))
  return b'\x89PNG\r\n\x1a\n' + blocks + chunk(b'IEND', b'')


def check_png(path, rng, case):
  """Write and read one PNG; returns False if the standard has no such PNG."""
  bits, color = case['bits'], case['color']
  if (bits < 8 and color not in ('gray', 'palette')) or (bits == 16 and color == 'palette'):
    return False
  gray = rng.integers(0, 2**bits, (HEIGHT, WIDTH), np.uint16)
  gray[0, 0], gray[0, 1] = 0, 2**bits - 1
  channels = [stored(gray, case['orientation'])] * (3 if color.startswith('rgb') else 1)
  channels += [np.full_like(channels[0], 2**bits - 1)] * color.endswith('alpha')
  path.write_bytes(png(np.stack(channels, -1), **case))
  wide = 1 if bits == 16 else 255 // (2**bits - 1)
  wanted = (gray * wide).astype(np.uint16 if bits == 16 else np.uint8)
  np.testing.assert_array_equal(image_files.read_stored(path), wanted, err_msg=str(case))
  assert image_files.check(path) == (HEIGHT, WIDTH, 8 * wanted.itemsize), case
  return True


@pytest.mark.parametrize('seed', range(2))
def test_png_of_random_kinds_is_read_back(tmp_path, rng, seed):
  chosen = some(PNG, 300, seed)
  assert sum(check_png(tmp_path / 'film.png', rng, case) for case in chosen) > 100


@pytest.mark.slow
def test_png_of_every_kind_is_read_back(tmp_path, rng):
  assert sum(check_png(tmp_path / 'film.png', rng, case) for case in cases(PNG)) == 15 * 320


PILLOW = {
  'format': ('PNG', 'BMP', 'WEBP', 'JPEG', 'TIFF'),
  'mode': ('1', 'L', 'LA', 'P', 'I;16', 'RGB', 'RGBA', 'CMYK', 'I', 'F'),
  'orientation': range(1, 9),
  'option': (False, True),
}
OPTIONS = {
  'PNG': {'optimize': True},
  'BMP': {},
  'WEBP': {'exact': True},
  'JPEG': {'progressive': True},
  'TIFF': {'compression': 'tiff_lzw'},
}


def check_pillow(path, rng, case):
  """Write and read one image; returns False if it cannot be written or is refused."""
  mode, kind = case['mode'], case['format']
  if mode == 'I;16' and kind not in ('PNG', 'TIFF'):
    return False  # Pillow would cut its values off at 255
  coarse = rng.integers(0, 256, (4, 3), np.uint8)  # smooth, since JPEG is lossy
  gray = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
  gray = (gray > 127) * np.uint8(255) if mode == '1' else gray
  upright = gray.astype(np.uint16) * 257 if mode == 'I;16' else gray
  array = stored(upright, case['orientation'])
  image = Image.fromarray(array)
  image = image if mode == 'I;16' else image.convert(mode)
  exif = Image.Exif()
  exif[274] = case['orientation']
  options = OPTIONS[kind] if case['option'] else {}
  options |= {'WEBP': {'lossless': True}, 'JPEG': {'quality': 98}}.get(kind, {})
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)  # of kinds that Pillow will stop writing
    try:
      image.save(path, kind, **options, **({} if kind == 'BMP' else {'exif': exif}))
    except (OSError, KeyError):
      return False
  try:
    found = image_files.read_stored(path)
  except ImageError as error:
    assert mode in ('CMYK', 'I', 'F'), case  # in color, or samples without a known white
    assert any(word in error.reason for word in ('CMYK', 'SEPARATED', 'color', 'samples')), (
      case,
      error,
    )
    return False
  wanted = array if kind == 'BMP' else upright  # which has no EXIF
  wanted = wanted.astype(np.uint16) if (kind, mode) == ('PNG', 'I') else wanted
  assert found.dtype == wanted.dtype and found.shape == wanted.shape, case
  assert np.abs(found.astype(int) - wanted).max() <= (6 if kind == 'JPEG' else 0), case
  return True


def test_all_that_pillow_writes_is_read_back(tmp_path, rng):
  assert sum(check_pillow(tmp_path / 'film', rng, case) for case in cases(PILLOW)) > 300
