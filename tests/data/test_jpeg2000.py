"""Tiles of JPEG 2000 that are missing, which decoders leave black."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, features
from pydicom import uid
from pydicom.encaps import encapsulate

from data.dicom_films import build, save
from jaxsr.data import image_files, jpeg, jpeg2000
from jaxsr.errors import ImageError

SIDE = 128
LACKS = 'a part of its compressed pixels is missing or overwritten'

pytestmark = pytest.mark.skipif(
  not features.check('jpg_2000'), reason='nothing here encodes JPEG 2000 in tiles'
)


def encode(image, *, boxes=False, **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG2000', no_jp2=not boxes, **options)
  return file.getvalue()


def divide(content):
  """Returns the main header, the tile parts and the end marker."""
  place = content.index(b'\xff\x90')
  head, parts = content[:place], []
  while content[place : place + 2] == b'\xff\x90':
    (length,) = struct.unpack_from('>I', content, place + 6)
    parts.append(content[place : place + length])
    place += length
  return head, parts, content[place:]


@pytest.fixture
def image(rng):
  return rng.integers(1, 255, (SIDE, SIDE), np.uint8)  # no black


def as_dicom(folder, content):
  ds = build(np.zeros((SIDE, SIDE), np.uint8), bits=8)
  ds.PixelData = encapsulate([content + bytes(len(content) % 2)])
  return save(folder / 'film.dcm', ds, uid.JPEG2000Lossless)


def as_tiff(folder, content):
  tifffile.imwrite(
    folder / 'film.tif',
    data=iter([content]),
    shape=(SIDE, SIDE),
    dtype=np.uint8,
    rowsperstrip=SIDE,
    photometric='minisblack',
    compression=34712,
  )
  return folder / 'film.tif'


@pytest.mark.parametrize('form', [as_dicom, as_tiff])
def test_missing_tiles_are_refused(tmp_path, image, form):
  head, parts, end = divide(encode(image, tile_size=(32, 32)))
  assert len(parts) == 16
  whole = image_files.read(form(tmp_path, head + b''.join(parts) + end))
  np.testing.assert_array_equal(whole[..., 0], image)
  backward = image_files.read(form(tmp_path, head + b''.join(parts[::-1]) + end))
  np.testing.assert_array_equal(backward[..., 0], image)
  for left in [*(parts[:i] + parts[i + 1 :] for i in range(16)), parts[:8], parts[:1], []]:
    with pytest.raises(ImageError, match=LACKS):
      image_files.read(form(tmp_path, head + b''.join(left) + end))


def test_one_tile_of_an_image_that_claims_many_is_refused(tmp_path, image):
  content = bytearray(encode(image))
  at = content.index(b'\xff\x51')
  content[at + 22 : at + 30] = struct.pack('>2I', 1, 1)  # the size of tiles
  for form in (as_dicom, as_tiff):
    with pytest.raises(ImageError, match=LACKS):
      image_files.read(form(tmp_path, bytes(content)))


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'boxes': True, 'tile_size': (100, 60)},
    {'tile_size': (100, 60), 'tile_offset': (7, 9), 'offset': (10, 12)},
    {'tile_size': (64, 64), 'num_resolutions': 3, 'quality_layers': [20, 1]},
  ],
)
def test_whole_files_pass_and_cut_ones_do_not(image, options):
  content = encode(image, **options)
  jpeg2000.check(content)
  for size in range(content.index(b'\xff\x90'), len(content) - 2, 997):
    with pytest.raises(jpeg.Damaged):
      jpeg2000.check(content[:size])


def test_missing_parts_of_a_tile_are_refused(image):
  head, (part,), end = divide(encode(image))
  both = [part[:10] + bytes((i, 2)) + part[12:] for i in (0, 1)]
  jpeg2000.check(head + both[0] + both[1] + end)
  jpeg2000.check(head + part[:11] + b'\0' + part[12:] + end)  # without the number of parts
  for each in both:
    with pytest.raises(jpeg.Damaged):
      jpeg2000.check(head + each + end)
