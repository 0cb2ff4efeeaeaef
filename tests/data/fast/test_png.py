"""A PNG that passes the check is decoded as by Pillow; one that was damaged never passes."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsr.data import image_files, phantom

pytest.importorskip('numba', reason="PNGs are decoded so with pip install 'jaxsr-xray[nih]'")

from jaxsr.data.fast import png

FILM = phantom.phantom(0, 0, size=64, bits=8)


def pack(image, **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG', **options)
  return file.getvalue()


def chunk(name, data):
  return len(data).to_bytes(4, 'big') + name + data + zlib.crc32(name + data).to_bytes(4, 'big')


def rows(
  *,
  height=4,
  width=4,
  filters=0,
  kind=(8, 0, 0, 0, 0),
  extra=b'',
  split=False,
  between=b'',
  order=(),
):
  header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes(kind)
  packed = zlib.compress((bytes([filters]) + bytes(width)) * height + extra)
  data = [packed[:5], packed[5:]] if split else [packed]
  middle = (
    between.join(chunk(b'IDAT', x) for x in data) if split else between + chunk(b'IDAT', packed)
  )
  body = [chunk(b'IHDR', header), middle, chunk(b'IEND', b'')]
  return png.SIGNATURE + b''.join(body[i] for i in order or range(3))


def huge():
  """Claim more pixels than memory has; only a header, since the rows could not be made."""
  header = chunk(b'IHDR', bytes([127, 0, 0, 0] * 2) + bytes((8, 0, 0, 0, 0)))
  return png.SIGNATURE + header + chunk(b'IDAT', zlib.compress(bytes(10**6))) + chunk(b'IEND', b'')


@pytest.mark.parametrize('level', [0, 1, 9])
def test_a_film_passes_and_has_its_size(level):
  wide = np.ascontiguousarray(FILM[:48])
  assert png.check(pack(wide, compress_level=level), most=10**6) == (48, 64)


def test_chunks_may_be_many():
  assert png.check(rows(split=True), most=100) == (4, 4)
  assert png.check(rows(between=chunk(b'tIME', bytes(7))), most=100) == (4, 4)


def test_no_damaged_byte_passes():
  content = pack(FILM)
  rng = np.random.default_rng(0)
  for place in [*range(60), *rng.integers(60, len(content), 300)]:
    spoilt = bytearray(content)
    spoilt[place] ^= 1 << rng.integers(8)
    assert png.check(bytes(spoilt), most=10**6) is None
  for length in (0, 7, 20, len(content) // 2, len(content) - 1):
    assert png.check(content[:length], most=10**6) is None


@pytest.mark.parametrize(
  'content',
  [
    pack(np.zeros((8, 8, 3), np.uint8)),
    pack(np.zeros((8, 8), np.uint16)),
    pack(np.zeros((8, 8), bool)),
    pack(FILM, transparency=0),
    rows(filters=5),
    rows(extra=b'1'),
    huge(),
    rows(height=11, width=10),
    rows(kind=(8, 0, 0, 0, 1)),
    rows() + bytes(5),
    rows(order=(0, 0, 1, 2)),
    rows(order=(1, 0, 2)),
    rows(order=(0, 2, 1)),
    rows(between=chunk(b'pHYs', b'1')),
    rows(split=True, between=chunk(b'tIME', bytes(7))),
    png.SIGNATURE + chunk(b'tIME', bytes(7)) + rows()[len(png.SIGNATURE) :],
    rows(split=True, between=chunk(b'tRNS', bytes(2))),
    b'\xff\xd8\xff' + bytes(100),
  ],
)
def test_other_kinds_and_wrong_rows_do_not_pass(content):
  assert png.check(content, most=100) is None
  assert png.decode(content, most=100) is None


def test_what_is_missing_in_the_rows_does_not_pass():
  header = chunk(b'IHDR', (9).to_bytes(4, 'big') + (9).to_bytes(4, 'big') + bytes((8, 0, 0, 0, 0)))
  body = chunk(b'IDAT', zlib.compress(bytes(10 * 8))) + chunk(b'IEND', b'')
  assert png.check(png.SIGNATURE + header + body, most=100) is None


def encode(image, filters):
  """Write a PNG by the specification, in Python's integers, with a filter for each row."""
  height, width = image.shape
  padded = np.zeros((height + 1, width + 1), int)
  padded[1:, 1:] = image
  here, left = padded[1:, 1:], padded[1:, :-1]
  above, corner = padded[:-1, 1:], padded[:-1, :-1]
  guesses = np.stack([left, above, corner])
  nearest = np.abs(left + above - corner - guesses).argmin(axis=0)  # the first of equals
  paeth = np.take_along_axis(guesses, nearest[None], axis=0)[0]
  rows = np.choose(filters[:, None], [0 * here, left, above, (left + above) // 2, paeth])
  packed = np.concatenate([filters[:, None], (here - rows) % 256], axis=1).astype(np.uint8)
  header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes((8, 0, 0, 0, 0))
  body = (chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(packed.tobytes())))
  return png.SIGNATURE + b''.join((*body, chunk(b'IEND', b'')))


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (7, 8), (64, 64), (65, 63), (130, 17), (200, 1)])
@pytest.mark.parametrize('kind', [0, 1, 2, 3, 4, None])
def test_every_filter_is_undone(size, kind):
  rng = np.random.default_rng(size)
  filters = rng.integers(0, 5, size[0]) if kind is None else np.full(size[0], kind)
  for image in (
    rng.integers(0, 256, size),
    rng.integers(0, 2, size) * 255,
    rng.integers(90, 95, size),
  ):
    content = encode(image, filters)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
    np.testing.assert_array_equal(png.decode(content, most=10**6), image)


def test_films_are_decoded_as_by_pillow(shared):
  for path in image_files.find(shared / 'nih' / 'val')[:10]:
    np.testing.assert_array_equal(
      png.decode(path.read_bytes(), most=2**20), image_files.read(path)[..., 0]
    )
