"""Rare files whose pixels a library would return wrong, or fail at."""

import struct
import zlib

import imagecodecs
import numpy as np
import pydicom.examples
import pytest
import tifffile
from PIL import Image

import jaxsr
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
def test_bmp_with_a_short_palette_of_grays_is_read(bits, palette, tmp_path, rng):
  indices = rng.integers(0, len(palette), (16, 18))
  (tmp_path / 'a.bmp').write_bytes(content := bmp(bits, palette, indices))
  found = image_files.read(tmp_path / 'a.bmp')
  np.testing.assert_array_equal(found[..., 0], np.array(palette)[indices])
  (tmp_path / 'a.bmp').write_bytes(content[:-8])
  with pytest.raises(ImageError, match='cannot be decoded'):
    image_files.read(tmp_path / 'a.bmp')
  if len(palette) == 2:
    (tmp_path / 'a.bmp').write_bytes(bmp(bits, palette, indices + 3))
    with pytest.raises(ImageError, match='has the color 4, but its palette ends at 1'):
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


def test_reasons_name_the_tag_that_is_not_supported(tmp_path, rng):
  path = tmp_path / 'a.tif'
  tifffile.imwrite(path, np.zeros((16, 24), np.int8), photometric='minisblack')
  with tifffile.TiffFile(path, mode='r+') as file:
    file.pages.first.tags['SampleFormat'].overwrite(0)
  with pytest.raises(ImageError, match=r'SampleFormat \(339\) 0, which is not known'):
    image_files.read(path)
  image = rng.integers(0, 4096, (16, 16)).astype(np.uint16)
  tifffile.imwrite(path, image, compression='deflate', predictor=True)
  with tifffile.TiffFile(path, mode='r+') as file:
    file.pages.first.tags['BitsPerSample'].overwrite(12)
  with pytest.raises(ImageError, match='predictor on packed samples of 12 bits'):
    image_files.read(path)


def test_an_orientation_of_bytes_is_applied(tmp_path):
  image = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24)
  options = {'extratags': [(274, 'B', 1, 6, True)], 'metadata': None}
  tifffile.imwrite(tmp_path / 'a.tif', image, photometric='minisblack', **options)
  found = image_files.read(tmp_path / 'a.tif')
  np.testing.assert_array_equal(found[..., 0], np.rot90(image, -1))
  assert image_files.check(tmp_path / 'a.tif') == (24, 16, 16)


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


@pytest.mark.parametrize('used', [True, False])
@pytest.mark.parametrize('mode', ['gray 2', 'gray 8', 'gray 16', 'palette', 'rgb 8', 'rgb 16'])
def test_transparent_pixels_of_png_are_named(tmp_path, rng, capsys, mode, used):
  kind, _, bits = mode.partition(' ')
  depth = int(bits or 8)
  samples = 2 * rng.integers(0, 2 ** (depth - 1), (16, 16, 3 if kind == 'rgb' else 1))  # even
  key = samples[3, 5] + (0 if used else 1)
  content = png_of(samples, kind, depth, key)
  (tmp_path / 'a.png').write_bytes(content)
  stored = image_files.read_stored(tmp_path / 'a.png').reshape(samples.shape[:2] + (-1,))
  wide = 255 // (2**depth - 1) if depth < 8 else 1
  np.testing.assert_array_equal(stored, samples * wide)
  assert ('its transparency is ignored' in capsys.readouterr().err) == used


def png_of(samples, kind, depth, key):
  """Encode PNG with one transparent color."""
  height, width, channels = samples.shape
  digits = samples.reshape(height, -1, 1) >> np.arange(depth)[::-1] & 1
  rows = np.packbits(digits.reshape(height, -1).astype(bool), axis=1)
  color = {'gray': 0, 'rgb': 2, 'palette': 3}[kind]
  blocks = [(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 0))]
  if kind == 'palette':
    grays = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
    alphas = np.where(np.arange(256) == key, 100, 255).astype(np.uint8).tobytes()
    blocks += [(b'PLTE', grays), (b'tRNS', alphas)]
  else:
    blocks += [(b'tRNS', key.astype('>u2').tobytes())]
  blocks += [(b'IDAT', zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes())), (b'IEND', b'')]
  parts = (struct.pack('>I', len(data)) + name + data for name, data in blocks)
  sums = (struct.pack('>I', zlib.crc32(name + data)) for name, data in blocks)
  return b'\x89PNG\r\n\x1a\n' + b''.join(a + b for a, b in zip(parts, sums, strict=True))


def test_colors_beyond_the_palette_are_refused(tmp_path, rng):
  indices = rng.integers(0, 256, (16, 16))
  indices[0, 0] = 200
  content = png_of(indices[..., None], 'palette', 8, 0)
  at = content.index(b'PLTE')
  short = b'PLTE' + content[at + 4 : at + 4 + 3 * 100]
  short = struct.pack('>I', 300) + short + struct.pack('>I', zlib.crc32(short))
  (tmp_path / 'a.png').write_bytes(content[: at - 4] + short + content[at + 8 + 3 * 256 :])
  with pytest.raises(ImageError, match='has the color .*, but its palette ends at 99'):
    image_files.read(tmp_path / 'a.png')


def test_webp_that_was_cut_is_called_truncated(tmp_path, film):
  Image.fromarray(film.squeeze()).save(tmp_path / 'a.webp', lossless=True)
  content = (tmp_path / 'a.webp').read_bytes()
  (tmp_path / 'a.webp').write_bytes(content[: len(content) // 2])
  with pytest.raises(ImageError, match='is truncated'):
    image_files.read(tmp_path / 'a.webp')


@pytest.mark.parametrize('compression', [None, 'deflate'])
@pytest.mark.parametrize('tile', [None, (32, 32)])
def test_sparse_tiff_is_refused_with_the_reason(compression, tile, tmp_path, rng):
  """Readers take what is left out for 0, as in a file whose writing was interrupted."""
  path, options = tmp_path / 'a.tif', {'tile': tile} if tile else {'rowsperstrip': 32}
  image = rng.integers(0, 65536, (70, 90)).astype(np.uint16)
  tifffile.imwrite(path, image, compression=compression, **options)
  kind = 'Tile' if tile else 'Strip'
  with tifffile.TiffFile(path, mode='r+') as file:
    for name in (f'{kind}Offsets', f'{kind}ByteCounts'):
      tag = file.pages.first.tags[name]
      tag.overwrite([0, *tag.value[1:]])
  for read in (image_files.read, image_files.check):
    with pytest.raises(ImageError, match=rf'no data for 1 of the {9 if tile else 3} parts'):
      read(path)


@pytest.mark.parametrize('tile', [None, (32, 32)])
@pytest.mark.parametrize('compression', [None, 'deflate'])
def test_tiff_without_the_sizes_of_its_parts(tile, compression, tmp_path, rng):
  path, options = tmp_path / 'a.tif', {'tile': tile} if tile else {'rowsperstrip': 32}
  image = rng.integers(0, 65536, (70, 90)).astype(np.uint16)
  tifffile.imwrite(path, image, compression=compression, **options)
  with tifffile.TiffFile(path) as file:
    place = file.pages.first.tags['TileByteCounts' if tile else 'StripByteCounts'].offset
  with path.open('r+b') as file:
    file.seek(place)
    file.write(struct.pack('<H', 65001))  # a private tag
  if compression:
    with pytest.raises(ImageError, match=r'lacks (Strip|Tile)ByteCounts \(\d+\), so its'):
      image_files.read(path)
  else:
    np.testing.assert_array_equal(image_files.read(path)[..., 0], image)


@pytest.mark.parametrize('gray', [True, False])
def test_planar_jpeg_in_tiff_is_read(gray, tmp_path):
  y, x = np.mgrid[:70, :90]
  red, green = (y + x).astype(np.uint8), (2 * y + 50).astype(np.uint8)
  image = np.stack([red, red if gray else green, red])
  options = {'photometric': 'rgb', 'planarconfig': 'separate', 'compressionargs': {'level': 95}}
  tifffile.imwrite(tmp_path / 'a.tif', image, compression='jpeg', **options)
  found = image_files.read(tmp_path / 'a.tif', channels=3)
  assert np.abs(np.moveaxis(found, 2, 0).astype(int) - image).max() <= 3
  assert jaxsr.read(tmp_path / 'a.tif').ndim == (2 if gray else 3)
