"""A random gray image through every way of storing it that tifffile, Pillow and pydicom write."""

import io
import itertools
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxsr.data import decoded, image_files, image_formats
from jaxsr.data.decoded import ImageInfo
from jaxsr.errors import ImageError

HEIGHT, WIDTH = 37, 23


def stored_as(upright, orientation):
  """Turn an image so that reading it with an orientation turns it back."""
  x = upright
  if orientation in (3, 4, 7, 8):
    x = x[::-1]
  if orientation in (2, 3, 6, 7):
    x = x[:, ::-1]
  return np.ascontiguousarray(x.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else x)


# TIFF: bits, photometric, samples, planar, byte order, BigTIFF, compression, tiles, orientation.
AXES = {
  'bits': (8, 16, 12, 10, 14, 1, 4),
  'photometric': ('minisblack', 'miniswhite', 'rgb'),
  'alpha': (False, True),
  'planar': ('contig', 'separate'),
  'order': ('<', '>'),
  'big': (False, True),
  'compression': (None, 'lzw', 'deflate', 'packbits', 'zstd', 'lzma', 'png', 'jpeg2000'),
  'predictor': (False, True),
  'tile': (None, (16, 16)),
  'orientation': (1, 2, 3, 4, 5, 6, 7, 8),
}


def combinations():
  for values in itertools.product(*AXES.values()):
    yield dict(zip(AXES, values, strict=True))


def write_tiff(path, gray, *, bits, photometric, alpha, planar, orientation, **options):
  """Write gray levels of `bits` bits; returns False if tifffile cannot write the combination."""
  packed = bits not in (8, 16)
  if options['order'] == '>' and (packed or options['compression'] == 'jpeg2000'):
    return False  # tifffile exchanges the bytes of samples before it packs or compresses them
  top = 2**bits - 1
  container = np.uint8 if bits <= 8 else np.uint16
  array = stored_as(gray, orientation)
  array = (top - array if photometric == 'miniswhite' else array).astype(container)
  channels = [array] * (3 if photometric == 'rgb' else 1)
  channels += [np.full_like(array, top)] * alpha
  several = len(channels) > 1
  stack = np.stack(channels, 0 if planar == 'separate' else -1) if several else array
  extra = [(274, 'H', 1, orientation, True)]
  try:
    tifffile.imwrite(
      path,
      stack.astype(bool) if bits == 1 else stack,
      photometric=photometric,
      planarconfig=planar if several else None,
      extrasamples=['unassalpha'] if alpha else None,
      bitspersample=bits if bits not in (1, 8, 16) else None,
      byteorder=options['order'],
      bigtiff=options['big'],
      compression=options['compression'],
      predictor=options['predictor'],
      tile=options['tile'],
      extratags=extra,
      metadata=None,
    )
  except Exception:  # tifffile's own kinds, for what it does not write
    return False
  return True


def check_tiff(path, rng, case):
  gray = rng.integers(0, 2 ** case['bits'], (HEIGHT, WIDTH))
  gray[0, 0], gray[0, 1] = 0, 2 ** case['bits'] - 1
  if not write_tiff(path, gray, **case):
    return False
  wide = {1: 255, 4: 17}.get(case['bits'], 1)
  wanted = (gray * wide).astype(np.uint8 if case['bits'] <= 8 else np.uint16)
  try:
    found = image_files.read_stored(path)
  except ImageError as error:
    if case['predictor'] and case['compression'] == 'packbits':
      return False
    several = case['alpha'] or case['photometric'] == 'rgb'
    assert case['bits'] < 8 and several and 'bits per pixel' in error.reason, case
    return False
  np.testing.assert_array_equal(found, wanted, err_msg=str(case))
  assert image_files.check(path) == (HEIGHT, WIDTH, 8 * wanted.itemsize), case
  return True


@pytest.mark.parametrize('seed', range(4))
def test_tiff_of_random_kinds_is_read_back(tmp_path, seed):
  rng = np.random.default_rng(seed)
  cases = list(combinations())
  chosen = rng.choice(len(cases), 150, replace=False)
  read = sum(check_tiff(tmp_path / 'film.tif', rng, cases[i]) for i in chosen)
  assert read > 15


@pytest.mark.slow
@pytest.mark.parametrize('bits', AXES['bits'])
def test_tiff_of_every_kind_is_read_back(tmp_path, rng, bits):
  cases = [case for case in combinations() if case['bits'] == bits]
  read = sum(check_tiff(tmp_path / 'film.tif', rng, case) for case in cases)
  assert read >= (256 if bits == 4 else 400)  # 4 bits are written raw or as JPEG 2000 only


def hand_made(path, pixels, tags, order='<'):
  """Write a TIFF with one strip, as no library writes some of them."""
  every = {256: WIDTH, 257: HEIGHT, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT}
  every |= {279: len(pixels)} | tags
  start = 8 + len(pixels) + len(pixels) % 2
  content = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}I', start) + pixels
  content = content.ljust(start, b'\0') + struct.pack(f'{order}H', len(every))
  beyond, more = start + 2 + 12 * len(every) + 4, b''
  for tag, value in sorted(every.items()):
    if isinstance(value, int):
      content += struct.pack(f'{order}HHII', tag, 4, 1, value)
    else:
      content += struct.pack(f'{order}HHII', tag, 3, len(value), beyond + len(more))
      more += struct.pack(f'{order}{len(value)}H', *value)
  path.write_bytes(content + bytes(4) + more)


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('bits', range(1, 16))
def test_samples_of_every_depth_are_read_in_both_byte_orders(tmp_path, rng, bits, order):
  gray = rng.integers(0, 2**bits, (HEIGHT, WIDTH))
  gray[0, :2] = 0, 2**bits - 1
  digits = gray[..., None] >> np.arange(bits)[::-1] & 1
  pixels = digits.reshape(HEIGHT, -1).astype(np.uint8)
  for photometric, compression in ((0, 1), (1, 1), (0, 8), (1, 8)):
    values = np.packbits(pixels if photometric else 1 - pixels, axis=1)
    content = zlib.compress(values.tobytes()) if compression == 8 else values.tobytes()
    tags = {258: bits, 259: compression, 262: photometric}
    hand_made(tmp_path / 'film.tif', content, tags, order)
    found = image_files.read_stored(tmp_path / 'film.tif')
    wide = 255 // (2**bits - 1) if bits in (1, 2, 4) else 1
    np.testing.assert_array_equal(found, gray * wide)
    full = image_files.read(tmp_path / 'film.tif')
    assert (full.min(), full.max()) == (0, 255 if bits <= 8 else 65535)
    assert image_files.check(tmp_path / 'film.tif') == (HEIGHT, WIDTH, 8 * found.itemsize)


def test_an_image_of_few_bits_is_written_over_the_range_of_its_type(tmp_path, rng):
  digits = np.packbits(rng.integers(0, 2, (HEIGHT, 5 * WIDTH), np.uint8), axis=1)
  hand_made(tmp_path / 'film.tif', digits.tobytes(), {258: 5})
  image, info = image_files.load(tmp_path / 'film.tif')
  image_files.write(tmp_path / 'film.png', image, info=info)
  np.testing.assert_array_equal(image_files.read(tmp_path / 'film.png'), image)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_predictor_without_compression_is_ignored_as_by_libtiff(tmp_path, rng, dtype):
  gray = rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH), dtype, endpoint=True)
  hand_made(tmp_path / 'film.tif', gray.tobytes(), {258: 8 * gray.itemsize, 317: 2})
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'film.tif'), gray)
  with Image.open(tmp_path / 'film.tif') as image:
    np.testing.assert_array_equal(np.asarray(image), gray)


def test_a_predictor_that_readers_disagree_about_is_refused(tmp_path, rng):
  gray = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
  tifffile.imwrite(tmp_path / 'film.tif', gray, compression='packbits', predictor=True)
  with pytest.raises(ImageError, match='predictor and compression PACKBITS'):
    image_files.read(tmp_path / 'film.tif')


def test_frames_behind_one_page_are_counted(tmp_path, rng):
  frames = rng.integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
  path = tmp_path / 'film.tif'
  tifffile.imwrite(path, frames, truncate=True, photometric='minisblack')
  for function in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match='holds 3 frames'):
      function(path)
  for one in (frames[:1], frames[0]):
    tifffile.imwrite(path, one, truncate=True, photometric='minisblack')
    np.testing.assert_array_equal(image_files.read_stored(path), frames[0])


def test_an_orientation_of_several_values_is_applied(tmp_path, rng):
  gray = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
  hand_made(tmp_path / 'film.tif', gray.tobytes(), {258: 8, 274: (6, 6, 6)})
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'film.tif'), np.rot90(gray, -1))


def test_samples_that_differ_in_type_are_refused_by_name(tmp_path, rng):
  pixels = rng.bytes(HEIGHT * WIDTH * 6)
  hand_made(tmp_path / 'a.tif', pixels, {258: (16, 16, 16), 262: 2, 277: 3, 339: (1, 1, 2)})
  with pytest.raises(ImageError, match='SampleFormat of samples that differ in type'):
    image_files.read(tmp_path / 'a.tif')
  hand_made(tmp_path / 'b.tif', pixels, {258: 16, 259: 34712})
  with pytest.raises(ImageError, match='cannot be decoded as JPEG2000'):
    image_files.read(tmp_path / 'b.tif')


@pytest.mark.parametrize(
  ('kind', 'remark'), [('unspecified', 'extra sample, of which'), ('unassalpha', 'transparency')]
)
def test_an_extra_sample_is_named_as_what_the_file_says(tmp_path, rng, capsys, kind, remark):
  both = rng.integers(0, 255, (HEIGHT, WIDTH, 2), np.uint8)
  options = {'photometric': 'minisblack', 'planarconfig': 'contig', 'extrasamples': [kind]}
  tifffile.imwrite(tmp_path / f'{kind}.tif', both, **options)
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / f'{kind}.tif'), both[..., 0])
  assert remark in capsys.readouterr().err


def test_the_significant_bits_of_alpha_are_not_those_of_gray(tmp_path, rng):
  gray = rng.integers(0, 4096, (HEIGHT, WIDTH), np.uint16)
  both = np.stack([gray, np.full_like(gray, 65535)], -1)
  png(tmp_path / 'film.png', both, extra=[(b'sBIT', bytes([12, 16]))])
  assert image_files.load(tmp_path / 'film.png')[1].bits == 12


def test_dark_samples_that_may_be_scaled_are_named(tmp_path, rng, capsys):
  gray = rng.integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint16) * 16
  png(tmp_path / 'film.png', gray, extra=[(b'sBIT', bytes([12]))])
  assert image_files.load(tmp_path / 'film.png')[1].bits == 12
  assert 'use --bits 16' in capsys.readouterr().err
  assert image_files.load(tmp_path / 'film.png', bits=16)[1].bits == 16


def test_a_kind_of_bmp_that_is_not_read_is_named(tmp_path, film):
  Image.fromarray(film[..., 0]).save(tmp_path / 'film.bmp')
  content = bytearray((tmp_path / 'film.bmp').read_bytes())
  content[30] = 4  # JPEG inside
  (tmp_path / 'film.bmp').write_bytes(content)
  with pytest.raises(ImageError, match='Unsupported BMP compression'):
    image_files.read(tmp_path / 'film.bmp')


@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.float16, np.float32, np.uint32, np.int32])
def test_samples_without_a_known_white_are_refused_by_name(tmp_path, rng, dtype):
  tifffile.imwrite(tmp_path / 'film.tif', rng.integers(0, 99, (HEIGHT, WIDTH)).astype(dtype))
  kind, bits = np.dtype(dtype).kind, 8 * np.dtype(dtype).itemsize
  named = {'i': f'signed {bits}-bit', 'f': f'float{bits}', 'u': f'{bits}-bit'}[kind]
  for function in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match=f'TIFF with {named} samples.*convert'):
      function(tmp_path / 'film.tif')


def test_a_thumbnail_before_the_image_and_a_sub_image_are_told_apart(tmp_path, rng):
  film = rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
  for name, subifds in (('a.tif', 0), ('b.tif', 1)):
    with tifffile.TiffWriter(tmp_path / name) as writer:
      options = {'photometric': 'minisblack', 'metadata': None}
      writer.write(film[::4, ::4] >> 8, subfiletype=1, subifds=subifds, **options)
      writer.write(film, subfiletype=0, **options)
    np.testing.assert_array_equal(image_files.read_stored(tmp_path / name), film)


def test_a_tiff_that_is_cut_is_refused(tmp_path, rng):
  film = rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
  for compression in (None, 'deflate'):
    tifffile.imwrite(tmp_path / 'film.tif', film, compression=compression, rowsperstrip=8)
    whole = (tmp_path / 'film.tif').read_bytes()
    for length in range(8, len(whole), 41):
      (tmp_path / 'film.tif').write_bytes(whole[:length])
      with pytest.raises(ImageError):
        image_files.read(tmp_path / 'film.tif')


def png(path, array, *, interlace=0, extra=(), tail=b''):
  """Write a PNG of any bit depth and number of samples; rows are not filtered."""
  height, width, samples = array.shape
  color = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
  content = array.astype('>u2' if array.itemsize == 2 else np.uint8).reshape(height, -1)
  rows = b''.join(b'\0' + row.tobytes() for row in content)
  header = struct.pack('>IIBBBBB', width, height, 8 * array.itemsize, color, 0, 0, interlace)
  chunks = [(b'IHDR', header), *extra, (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
  text = b'\x89PNG\r\n\x1a\n'
  for name, data in chunks:
    text += struct.pack('>I', len(data)) + name + data
    text += struct.pack('>I', zlib.crc32(name + data))
  path.write_bytes(text + tail)


@pytest.mark.parametrize('samples', [1, 2, 3, 4])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('tail', [b'', b'x' * 70_000])
def test_png_of_every_kind_is_read_back(tmp_path, rng, samples, dtype, tail):
  top = np.iinfo(dtype).max
  film = rng.integers(0, top, (HEIGHT, WIDTH), dtype, endpoint=True)
  channels = [film] * (1 if samples < 3 else 3) + [np.full_like(film, top)] * (samples % 2 == 0)
  png(tmp_path / 'film.png', np.stack(channels, -1), tail=tail)
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'film.png'), film)
  assert image_files.check(tmp_path / 'film.png') == (HEIGHT, WIDTH, 8 * film.itemsize)


def test_color_of_sixteen_bits_keeps_them(tmp_path, rng):
  film = rng.integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
  png(tmp_path / 'film.png', film)
  np.testing.assert_array_equal(image_files.read(tmp_path / 'film.png', 3), film)
  image_files.write(tmp_path / 'film.tif', film)
  np.testing.assert_array_equal(image_files.read(tmp_path / 'film.tif', 3), film)
  with pytest.raises(ImageError, match='in color'):
    image_files.read(tmp_path / 'film.png')


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp'])
def test_the_orientation_is_applied(tmp_path, film, orientation, suffix):
  upright = film[:, :90, 0]
  exif = Image.Exif()
  exif[274] = orientation
  path = tmp_path / f'film.{suffix}'
  options = {'lossless': True} if suffix == 'webp' else {'quality': 95}
  Image.fromarray(stored_as(upright, orientation)).save(path, exif=exif, **options)
  found = image_files.read_stored(path)
  assert found.shape == upright.shape == image_files.check(path)[:2]
  assert np.abs(found.astype(int) - upright).max() <= (12 if suffix == 'jpg' else 0)


@pytest.mark.parametrize('where', ['before', 'after'])
def test_the_orientation_is_found_before_and_after_the_pixels(tmp_path, film, where):
  exif = Image.Exif()
  exif[274] = 6
  path = tmp_path / 'film.png'
  options = {'exif': exif} if where == 'before' else {}
  Image.fromarray(stored_as(film[:, :90, 0], 6)).save(path, **options)
  if where == 'after':
    content = path.read_bytes()
    end = content.index(b'IEND') - 4
    data = exif.tobytes()[6:]
    chunk = struct.pack('>I', len(data)) + b'eXIf' + data
    chunk += struct.pack('>I', zlib.crc32(chunk[4:]))
    path.write_bytes(content[:end] + chunk + content[end:])
  np.testing.assert_array_equal(image_files.read_stored(path), film[:, :90, 0])
  assert image_files.check(path) == (128, 90, 8)


def test_pillow_does_not_warn_of_damaged_exif_on_stderr(tmp_path, film):
  path = tmp_path / 'film.png'
  Image.fromarray(film[..., 0]).save(path, exif=b'II*\0\xff\xff\xff\xff')
  code = f'from jaxsr.data import image_files\nprint(image_files.read({str(path)!r}).shape)'
  command = [sys.executable, '-W', 'default', '-c', code]
  found = subprocess.run(command, capture_output=True, text=True, check=True)
  assert found.stdout == f'{film.shape}\n' and not found.stderr


def test_flipped_bits_of_the_last_pixels_are_found(tmp_path, rng):
  image_files.write(tmp_path / 'film.png', rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8))
  whole = (tmp_path / 'film.png').read_bytes()
  for place in range(whole.index(b'IDAT') + 4, len(whole) - 16):
    damaged = bytearray(whole)
    damaged[place] ^= 1 << int(rng.integers(8))
    (tmp_path / 'film.png').write_bytes(damaged)
    with pytest.raises(ImageError):
      image_files.read(tmp_path / 'film.png')


@pytest.mark.parametrize('bits', [10, 12, 14])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_the_stored_range_comes_back(tmp_path, rng, bits, suffix):
  stored = rng.integers(0, 2**bits, (HEIGHT, WIDTH, 1), np.uint16)
  full = decoded.to_full_range(stored, bits)
  info = image_files.ImageInfo(bits)
  image_files.write(tmp_path / f'film.{suffix}', full, info=info)
  np.testing.assert_array_equal(
    image_files.read_stored(tmp_path / f'film.{suffix}'), stored[..., 0]
  )
  found, kept = image_files.load(tmp_path / f'film.{suffix}')
  np.testing.assert_array_equal(found, full)
  assert kept == info


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_bits_without_a_tag_are_named_once_and_can_be_given(tmp_path, rng, suffix, capsys):
  stored = rng.integers(0, 4096, (HEIGHT, WIDTH), np.uint16)
  stored[0, 0] = 4095
  path = tmp_path / f'film.{suffix}'
  image_files.write(path, stored[..., None])
  for _ in range(2):
    np.testing.assert_array_equal(image_files.read(path)[..., 0], stored)
  assert capsys.readouterr().err.count('--bits 12') == 1
  full = image_files.read(path, bits=12)
  assert full.max() == 65535
  assert capsys.readouterr().err == ''
  with pytest.raises(ImageError, match='up to 4095, more than the 10 bits'):
    image_files.read(path, bits=10)


def test_white_is_zero_of_twelve_bits_is_turned_within_them(tmp_path, rng):
  gray = rng.integers(0, 4096, (HEIGHT, WIDTH), np.uint16)
  tag = [(281, 'H', 1, 4095, True)]
  tifffile.imwrite(tmp_path / 'a.tif', 4095 - gray, photometric='miniswhite', extratags=tag)
  np.testing.assert_array_equal(image_files.read_stored(tmp_path / 'a.tif'), gray)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif'])
def test_resolution_and_profile_are_kept(tmp_path, film, suffix):
  profile = bytearray(128)
  profile[16:20] = b'GRAY'
  path = tmp_path / f'film.{suffix}'
  Image.fromarray(film[..., 0]).save(path, dpi=(100, 150), icc_profile=bytes(profile))
  image, info = image_files.load(path)
  assert info.dpi == pytest.approx((100, 150), abs=0.02)
  image_files.write(tmp_path / f'large.{suffix}', image, info=info, scale=4)
  after = image_files.load(tmp_path / f'large.{suffix}')[1]
  assert after.dpi == pytest.approx((400, 600), abs=0.1)
  assert after.icc == bytes(profile)


@pytest.mark.parametrize('unit', [2, 3])
@pytest.mark.parametrize(
  ('name', 'turned'), [('a.jpg', 1), ('a.jpg', 6), ('a.png', 1), ('a.png', 6), ('a.webp', 1)]
)
def test_the_resolution_of_exif_is_kept(tmp_path, film, name, turned, unit):
  exif = Image.Exif()
  exif[274], exif[282], exif[283], exif[296] = turned, 300.0, 150.0, unit
  Image.fromarray(film[..., 0]).save(tmp_path / name, exif=exif, lossless=True)
  image, info = image_files.load(tmp_path / name)
  wanted = np.array([300, 150] if turned == 1 else [150, 300]) * (2.54 if unit == 3 else 1)
  assert info.dpi == pytest.approx(wanted)
  for form in ('jpg', 'png', 'tif'):
    image_files.write(tmp_path / f'large.{form}', image, info=info, scale=4)
    after = image_files.load(tmp_path / f'large.{form}')[1].dpi
    assert after == pytest.approx(4 * wanted, rel=1e-3)


def test_no_resolution_is_invented(tmp_path, film):
  exif = Image.Exif()
  exif[274] = 1  # where EXIF has no resolution, Pillow takes 72
  Image.fromarray(film[..., 0]).save(tmp_path / 'a.jpg', exif=exif)
  assert image_files.load(tmp_path / 'a.jpg')[1].dpi is None


@pytest.mark.parametrize(('unit', 'per_inch'), [('mm', 25.4), ('cm', 2.54), ('\\u00B5m', 25400)])
def test_the_resolution_of_imagej_is_kept(tmp_path, film, unit, per_inch):
  options = {'resolution': (5.0, 4.0), 'metadata': {'unit': unit}}
  tifffile.imwrite(tmp_path / 'a.tif', film[..., 0], imagej=True, **options)
  found = image_files.load(tmp_path / 'a.tif')[1].dpi
  assert found == pytest.approx((5 * per_inch, 4 * per_inch))


@pytest.mark.parametrize(
  ('unit', 'per_inch'), [('INCH', 1), ('CENTIMETER', 2.54), ('MILLIMETER', 25.4), ('NONE', None)]
)
def test_each_unit_of_a_resolution_is_known(tmp_path, film, unit, per_inch):
  options = {'resolution': (5.0, 4.0), 'resolutionunit': unit, 'metadata': None}
  tifffile.imwrite(tmp_path / 'a.tif', film[..., 0], **options)
  found = image_files.load(tmp_path / 'a.tif')[1].dpi
  assert found == (per_inch and pytest.approx((5 * per_inch, 4 * per_inch)))


@pytest.mark.parametrize(('form', 'dpi'), [('jpg', 2e4), ('png', 1e9), ('tif', 1e9)])
def test_a_resolution_beyond_the_format_is_dropped(tmp_path, film, form, dpi):
  info, path = ImageInfo(8, dpi=(dpi, dpi)), tmp_path / f'a.{form}'
  image_files.write(path, film, info=info, scale=4)
  assert image_files.load(path)[1].dpi is None


def test_fax_with_a_resolution_is_read_without_a_warning(tmp_path, recwarn):
  lines = np.arange(64 * 64).reshape(64, 64) % 7 > 3
  path, options = tmp_path / 'a.tif', {'compression': 'group4', 'dpi': (300, 200)}
  Image.fromarray(lines).save(path, **options)
  assert (image_files.read(path)[..., 0] == 255 * lines).all() and not list(recwarn)
  assert image_files.load(path)[1].dpi == (300, 200)


@pytest.mark.parametrize('name', [b'XYZW', b'IDAX', b'\x01DAT'])
def test_an_unknown_critical_chunk_of_png_is_refused(tmp_path, film, name):
  image_files.write(path := tmp_path / 'a.png', film)
  content = path.read_bytes()
  for chunk, refused in ((name, True), (b'xyZW', False)):
    body = chunk + b'content'
    extra = struct.pack('>I', 7) + body + struct.pack('>I', zlib.crc32(body))
    path.write_bytes(content[:33] + extra + content[33:])
    for read in (image_files.read, image_files.check):
      with pytest.raises(ImageError, match='critical chunk') if refused else nullcontext():
        read(path)


def test_a_profile_of_color_is_not_kept_for_gray(tmp_path, film):
  profile = bytearray(128)
  profile[16:20] = b'RGB '
  image = Image.fromarray(np.repeat(film, 3, axis=2))
  image.save(tmp_path / 'film.png', icc_profile=bytes(profile))
  array, info = image_files.load(tmp_path / 'film.png')
  image_files.write(tmp_path / 'gray.png', array, info=info)
  assert image_files.load(tmp_path / 'gray.png')[1].icc is None


@pytest.mark.parametrize('kind', ['BMP', 'WEBP', 'JPEG'])
@pytest.mark.parametrize('name', ['film.bmp', 'film.jfif', 'film', 'film.0001', 'film.dat'])
def test_the_content_decides_and_not_the_name(tmp_path, film, kind, name):
  options = {'lossless': True} if kind == 'WEBP' else {}
  Image.fromarray(film[..., 0]).save(tmp_path / name, format=kind, **options)
  assert image_files.find(tmp_path) == [tmp_path / name]
  assert image_files.read(tmp_path / name).shape == film.shape
  written = image_formats.written_as(tmp_path / name, image_formats.kind(tmp_path / name))
  assert written.suffix == ('.jpg' if kind == 'JPEG' else '.png')


@pytest.mark.parametrize('bits', [8, 12, 16])
@pytest.mark.parametrize('lossless', [False, True])
def test_jpeg_of_more_bits_and_lossless_jpeg_are_read(tmp_path, film, bits, lossless):
  imagecodecs = pytest.importorskip('imagecodecs')
  gray = film[..., 0].astype(np.uint16 if bits > 8 else np.uint8) * (2**bits // 256)
  if bits == 16 and not lossless:
    pytest.skip('JPEG of 16 bits is lossless')
  content = imagecodecs.jpeg8_encode(gray, level=98, lossless=lossless, bitspersample=bits)
  (tmp_path / 'film.jpg').write_bytes(content)
  found = image_files.read_stored(tmp_path / 'film.jpg')
  assert found.dtype == gray.dtype
  assert np.abs(found.astype(int) - gray).max() <= (0 if lossless else 2**bits // 64)
  assert image_files.load(tmp_path / 'film.jpg')[1].bits == bits
  assert image_files.check(tmp_path / 'film.jpg') == (128, 128, 8 * gray.itemsize)


def test_the_same_file_is_the_same_array_from_memory(tmp_path, rng):
  film = rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
  tifffile.imwrite(tmp_path / 'film.tif', film, photometric='miniswhite')
  content = (tmp_path / 'film.tif').read_bytes()
  found = image_files.decode(io.BytesIO(content), tmp_path / 'film.tif')
  np.testing.assert_array_equal(found, image_files.read(tmp_path / 'film.tif'))
