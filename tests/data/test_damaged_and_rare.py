"""Rare files whose pixels a library would return wrong, or fail at."""

import struct

import imagecodecs
import numpy as np
import pydicom.examples
import pytest
import tifffile

from jaxsr.data import image_files
from jaxsr.errors import ImageError


def bmp(bits, palette, indices):
  row = np.packbits(indices[:, :, None] >> np.arange(bits)[::-1] & 1, axis=None)
  row = row.reshape(indices.shape[0], -1)[::-1]
  row = np.pad(row, ((0, 0), (0, -row.shape[1] % 4))).tobytes()
  colors = b''.join(bytes((gray, gray, gray, 0)) for gray in palette)
  offset, (h, w) = 54 + len(colors), indices.shape
  head = struct.pack('<2sIHHI', b'BM', offset + len(row), 0, 0, offset)
  info = struct.pack('<IiiHHIIiiII', 40, w, h, 1, bits, 0, len(row), 0, 0, len(palette), 0)
  return head + info + colors + row


@pytest.mark.parametrize(('bits', 'palette'), [(8, (0, 255)), (4, (0, 255)), (4, range(16))])
def test_bmp_with_a_short_palette_is_refused(bits, palette, tmp_path, rng):
  indices = rng.integers(0, len(palette), (16, 16))
  (tmp_path / 'a.bmp').write_bytes(bmp(bits, palette, indices))
  with pytest.raises(ImageError, match=f'BMP of {bits} bits with a palette'):
    image_files.read(tmp_path / 'a.bmp')


def test_bmp_with_a_full_palette_is_read(tmp_path, rng):
  indices = rng.integers(0, 256, (16, 16))
  (tmp_path / 'a.bmp').write_bytes(bmp(8, range(256), indices))
  assert (image_files.read(tmp_path / 'a.bmp')[..., 0] == indices).all()


def test_a_predictor_of_floats_on_integers_is_refused(tmp_path, rng):
  image = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
  tifffile.imwrite(tmp_path / 'a.tif', image, compression='deflate', predictor=2)
  with tifffile.TiffFile(tmp_path / 'a.tif', mode='r+') as file:
    file.pages.first.tags['Predictor'].overwrite(3)
  with pytest.raises(ImageError, match='predictor 3'):
    image_files.read(tmp_path / 'a.tif')


def test_values_above_the_bits_of_a_lossless_jpeg_are_refused(tmp_path, rng):
  image = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
  content = imagecodecs.ljpeg_encode(image, bitspersample=16)
  at = content.find(b'\xff\xc3') + 4
  (tmp_path / 'a.jpg').write_bytes(content[:at] + b'\x0c' + content[at + 1 :])
  with pytest.raises(ImageError, match='12 bits'):
    image_files.read(tmp_path / 'a.jpg')


def test_dicom_whose_preamble_begins_as_tiff_is_dicom(tmp_path):
  path = pydicom.examples.get_path('ct')
  content = path.read_bytes()
  (tmp_path / 'plain.dcm').write_bytes(content)
  (tmp_path / 'a.dcm').write_bytes(b'II*\0' + content[4:])
  expected = image_files.read(tmp_path / 'plain.dcm')
  assert (image_files.read(tmp_path / 'a.dcm') == expected).all()
