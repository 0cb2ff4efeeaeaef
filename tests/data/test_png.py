"""A PNG that passes the check can be decoded; one that was damaged never passes."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsr.data import phantom, png

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


def test_what_is_missing_in_the_rows_does_not_pass():
  header = chunk(b'IHDR', (9).to_bytes(4, 'big') + (9).to_bytes(4, 'big') + bytes((8, 0, 0, 0, 0)))
  body = chunk(b'IDAT', zlib.compress(bytes(10 * 8))) + chunk(b'IEND', b'')
  assert png.check(png.SIGNATURE + header + body, most=100) is None
