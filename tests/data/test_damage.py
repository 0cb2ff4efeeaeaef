"""Damage in the pixels of every container and compression: refused, or of no effect.

A file is cut, some of its bytes are overwritten, or a segment's byte count is changed. Where the
compression has a checksum, every change is seen; the others see all that is missing.
"""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

import jaxsr
from jaxsr.data import image_files, png
from jaxsr.errors import ImageError

HEIGHT, WIDTH = 40, 56
ADAM7 = (
  (0, 0, 8, 8),
  (4, 0, 8, 8),
  (0, 4, 4, 8),
  (2, 0, 4, 4),
  (0, 2, 2, 4),
  (1, 0, 2, 2),
  (0, 1, 1, 2),
)
CHECKED = ('adobe_deflate', 'lzma', 'png', 'lerc')  # by a checksum
UNCHECKED = (None, 'packbits', 'lzw', 'zstd', 'jpeg', 'jpeg2000', 'jpegxl')
FAX = ('group4', 'group3', 'tiff_ccitt')


def texture(rng, bits):
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  waves = (np.sin(x / 9) + np.cos(y / 7) + 2) / 5 + rng.random((HEIGHT, WIDTH)) * 0.15
  return (waves * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def read(path, content):
  """Returns the pixels, or None if the file is refused."""
  path.write_bytes(content)
  try:
    return image_files.read(path)
  except ImageError as error:
    assert 'Error' not in error.reason.split('(')[0], error
    return None


def silent(path, whole, damaged):
  """Returns how many of some damaged files are read as other pixels than the whole one."""
  true, count = read(path, whole), 0
  assert true is not None
  for content in damaged:
    found = read(path, content)
    count += found is not None and not np.array_equal(found, true)
  return count


def overwritten(rng, content, segments, count):
  """Yield a file in which some bytes of one of its segments are random."""
  for _ in range(count):
    start, size = segments[rng.integers(len(segments))]
    length = int(min(size, rng.choice([1, 4, 40])))
    place = start + int(rng.integers(0, size - length + 1))
    yield content[:place] + rng.bytes(length) + content[place + length :]


def tiff_segments(content):
  with tifffile.TiffFile(io.BytesIO(content)) as tif:
    page = tif.pages.first
    return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def other_counts(rng, content, count, *, longer):
  """Yield a file in which one strip or tile has fewer or more bytes than it was written with."""
  counts = [size for _, size in tiff_segments(content)]
  for _ in range(count):
    changed, which = list(counts), rng.integers(len(counts))
    less = int(rng.integers(1, changed[which] // 2))
    changed[which] += int(rng.integers(1, 60)) if longer else -less
    file = io.BytesIO(content)
    with tifffile.TiffFile(file, mode='r+b') as tif:
      tags = tif.pages.first.tags
      name = 'TileByteCounts' if 'TileByteCounts' in tags else 'StripByteCounts'
      tags[name].overwrite(changed if len(changed) > 1 else changed[0])
    yield file.getvalue()


def tiff(rng, compression, bits, *, tiled):
  options = {'tile': (16, 32)} if tiled else {'rowsperstrip': 16}
  file = io.BytesIO()
  tifffile.imwrite(
    file, texture(rng, bits), compression=compression, photometric='minisblack', **options
  )
  return file.getvalue()


def check_tiff(path, rng, compression, bits, *, tiled, count):
  whole = tiff(rng, compression, bits, tiled=tiled)
  if compression in CHECKED:
    damaged = overwritten(rng, whole, tiff_segments(whole), count)
    assert silent(path, whole, damaged) == 0, compression
  for longer in (False, True):
    damaged = other_counts(rng, whole, count, longer=longer)
    assert silent(path, whole, damaged) == 0, (compression, longer)
  cut = [whole[: int(share * len(whole))] for share in rng.random(count)]
  assert silent(path, whole, cut) == 0, compression


def depths(compression):
  return (8,) if compression == 'jpeg' else (8, 16)


@pytest.mark.parametrize('compression', [*CHECKED, *UNCHECKED])
def test_damaged_tiff_is_refused(tmp_path, rng, compression):
  for bits in depths(compression):
    check_tiff(tmp_path / 'film.tif', rng, compression, bits, tiled=bits == 8, count=3)


@pytest.mark.slow
@pytest.mark.parametrize('compression', [*CHECKED, *UNCHECKED])
def test_tiff_damaged_in_many_places_is_refused(tmp_path, rng, compression):
  for bits in depths(compression):
    for tiled in (False, True):
      check_tiff(tmp_path / 'film.tif', rng, compression, bits, tiled=tiled, count=150)


@pytest.mark.parametrize('compression', FAX)
def test_damaged_lines_of_ccitt_are_refused(tmp_path, rng, compression):
  image = Image.fromarray(texture(rng, 8) > 90)
  for options in ({}, {292: 1}, {292: 4}) if compression == 'group3' else ({},):
    file = io.BytesIO()
    image.save(file, 'TIFF', compression=compression, tiffinfo=options, strip_size=100)
    whole = file.getvalue()
    segments = tiff_segments(whole)
    assert len(segments) > 1
    path = tmp_path / 'film.tif'
    damaged = [*overwritten(rng, whole, segments, 12), *other_counts(rng, whole, 4, longer=False)]
    true = read(path, whole)
    np.testing.assert_array_equal(true[..., 0], 255 * np.asarray(image, np.uint8))
    for content in damaged:
      found = read(path, content)
      with Image.open(path) as pillow:  # other lines with their own codes are no damage
        assert found is None or np.array_equal(found[..., 0], 255 * np.asarray(pillow, np.uint8))


def own_tiff(segments, compression, bits, *, rows, tile=None):
  """Write TIFF whose compressed segments are given."""
  file = io.BytesIO()
  with tifffile.TiffWriter(file) as writer:
    writer.write(
      iter(segments),
      shape=(HEIGHT, WIDTH),
      dtype=np.uint8 if bits <= 8 else np.uint16,
      bitspersample=bits,
      compression=compression,
      photometric='minisblack',
      rowsperstrip=None if tile else rows,
      tile=tile,
    )
  return file.getvalue()


@pytest.mark.parametrize('process', ['8 bits', '12 bits', 'lossless 8', 'lossless 16'])
@pytest.mark.parametrize('compression', [7, 34892])
def test_cut_jpeg_of_every_process_inside_tiff_is_refused(tmp_path, rng, process, compression):
  kind, bits = process.split()[0] == 'lossless', int(process.removesuffix(' bits').split()[-1])
  image = texture(rng, 8) if bits == 8 else texture(rng, 16) >> (16 - bits)
  content = imagecodecs.jpeg8_encode(image, level=95, bitspersample=bits, lossless=kind)
  path = tmp_path / 'film.tif'
  whole = own_tiff([content], 7, bits, rows=HEIGHT)
  assert read(path, whole).shape == (HEIGHT, WIDTH, 1)
  start = content.index(b'\xff\xda') + 10
  for share in (0.1, 0.5, 0.95):
    cut = content[: start + int(share * (len(content) - start))] + b'\xff\xd9'
    assert read(path, own_tiff([cut], compression, bits, rows=HEIGHT)) is None


def test_a_tile_with_fewer_pixels_than_its_size_is_refused(tmp_path, rng):
  image = texture(rng, 8)
  tiles = [
    np.pad(part, ((0, 16 - part.shape[0]), (0, 32 - part.shape[1])))
    for part in (image[r : r + 16, c : c + 32] for r in (0, 16, 32) for c in (0, 32))
  ]
  path = tmp_path / 'film.tif'
  for compression, encode in (
    ('lzw', imagecodecs.lzw_encode),
    ('packbits', imagecodecs.packbits_encode),
    ('adobe_deflate', zlib.compress),
  ):
    segments = [encode(tile.tobytes()) for tile in tiles]
    whole = own_tiff(segments, compression, 8, rows=0, tile=(16, 32))
    np.testing.assert_array_equal(read(path, whole)[..., 0], image)
    short = encode(tiles[1].tobytes()[: 16 * (WIDTH - 32)])  # as many as lie inside the image
    short = [segments[0], short, *segments[2:]]
    short = own_tiff(short, compression, 8, rows=0, tile=(16, 32))
    assert read(path, short) is None


@pytest.mark.parametrize('compression', ['lzw', 'adobe_deflate', 'zstd', 'packbits'])
def test_a_last_strip_of_full_height_is_read(tmp_path, rng, compression):
  image = texture(rng, 16)
  encode = getattr(imagecodecs, f'{compression.removeprefix("adobe_")}_encode')
  padded = np.pad(image, ((0, 8), (0, 0)))
  segments = [encode(padded[row : row + 16].tobytes()) for row in (0, 16, 32)]
  path = tmp_path / 'film.tif'
  found = read(path, own_tiff(segments, compression, 16, rows=16))
  np.testing.assert_array_equal(found[..., 0], image)


def test_a_short_strip_before_a_long_one_is_refused(tmp_path, rng):
  image = texture(rng, 8)
  file = io.BytesIO()
  tifffile.imwrite(file, image, rowsperstrip=20)
  file.seek(0)
  path = tmp_path / 'film.tif'
  with tifffile.TiffFile(file, mode='r+b') as tif:
    tags = tif.pages.first.tags
    first, second = tags['StripByteCounts'].value
    start = tags['StripOffsets'].value[0]
    tags['StripByteCounts'].overwrite([first - 5 * WIDTH, second + 5 * WIDTH])
    tags['StripOffsets'].overwrite([start, start + first - 5 * WIDTH])
  assert read(path, file.getvalue()) is None


@pytest.mark.parametrize('scans', [1, -1])
def test_progressive_jpeg_without_its_last_scans_is_refused(tmp_path, rng, scans):
  file = io.BytesIO()
  Image.fromarray(texture(rng, 8)).save(file, 'JPEG', progressive=True)
  whole, path = file.getvalue(), tmp_path / 'film.jpg'
  assert read(path, whole).shape == (HEIGHT, WIDTH, 1)
  places = [at for at in range(len(whole)) if whole[at : at + 2] == b'\xff\xda']
  path.write_bytes(whole[: places[scans]] + b'\xff\xd9')
  with pytest.raises(ImageError, match='scans are missing'):
    image_files.read(path)


@pytest.mark.parametrize('process', ['12 bits', 'lossless 8', 'lossless 12', 'lossless 16'])
def test_most_overwritten_scans_of_other_processes_are_refused(tmp_path, rng, process):
  lossless, bits = process.startswith('lossless'), int(process.strip(' bits').split()[-1])
  image = (texture(rng, 16) >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16)
  whole = imagecodecs.jpeg8_encode(image, level=95, bitspersample=bits, lossless=lossless)
  start, path = whole.index(b'\xff\xda') + 14, tmp_path / 'film.jpg'
  places = rng.integers(start, len(whole) - 60, 30)
  damaged = [whole[:place] + rng.bytes(40) + whole[place + 40 :] for place in places]
  assert silent(path, whole, damaged) <= 12


def png_of(*chunks):
  """Write chunks of PNG, with the checksums of their contents or of others that are given."""
  parts = [png.MAGIC]
  for name, data, *summed in chunks:
    checksum = zlib.crc32(name + (summed[0] if summed else data))
    parts.append(len(data).to_bytes(4, 'big') + name + data + checksum.to_bytes(4, 'big'))
  return b''.join(parts)


def header_of(image):
  return b'IHDR', struct.pack('>IIBBBBB', WIDTH, HEIGHT, 8 * image.itemsize, 0, 0, 0, 0)


def rows_of(image, level=6):
  rows = image.astype(image.dtype.newbyteorder('>'))
  return zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows), level)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('tail', [0, 1, 4, 6, 40])
def test_the_checksum_of_every_chunk_of_pixels_counts(tmp_path, rng, tail, bits):
  image, path = texture(rng, bits), tmp_path / 'film.png'
  for level in (0, 6):
    rows = rows_of(image, level)
    parts = [rows[:900], rows[900 : len(rows) - tail], rows[len(rows) - tail :]]
    chunks = [header_of(image), *((b'IDAT', part) for part in parts), (b'IEND', b'')]
    np.testing.assert_array_equal(read(path, png_of(*chunks))[..., 0], image)
    for index in [1] * 5 + [2] * 10 + [3] * (5 if tail else 0):
      name, part = chunks[index]
      changed = bytearray(part)
      changed[rng.integers(len(part))] ^= 1 << rng.integers(8)
      damaged = [*chunks[:index], (name, bytes(changed), part), *chunks[index + 1 :]]
      assert read(path, png_of(*damaged)) is None


@pytest.mark.parametrize('late', [False, True])
def test_png_with_more_metadata_than_pillow_takes_is_read(tmp_path, rng, late, capsys):
  image, path = texture(rng, 8), tmp_path / 'film.png'
  turned = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/>' + 2**21 * b' '
  )
  pixels = [(b'IDAT', rows_of(image))]
  profile = rng.bytes(2**21)
  for texts in (
    [(b'zTXt', b'Other\0\0' + zlib.compress(bytes(2**22)))],
    [(b'tEXt', b'Other\0' + 2**20 * b'x')] * 66,
    [(b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + zlib.compress(turned))],
    [(b'iCCP', b'P\0\0' + zlib.compress(profile))],
    [(b'iCCP', b'P\0\0' + zlib.compress(bytes(2**26 + 1)))],
  ):
    if late and texts[0][0] == b'iCCP':
      continue  # it has its place before the pixels
    chunks = [*pixels, *texts] if late else [*texts, *pixels]
    path.write_bytes(png_of(header_of(image), *chunks, (b'IEND', b'')))
    found, info = image_files.load(path)
    wanted = image[::-1, ::-1] if texts[0][0] == b'iTXt' else image
    np.testing.assert_array_equal(found[..., 0], wanted)
    assert image_files.check(path) == (HEIGHT, WIDTH, 8)
    is_profile = texts[0] == (b'iCCP', b'P\0\0' + zlib.compress(profile))
    assert info.icc == (profile if is_profile else None)
  named = 'metadata of more than 64 MiB is ignored' in capsys.readouterr().err
  assert named == (not late)


def _png(rng, depth, color, interlaced, *, missing):
  """Write a PNG of 13x11 pixels, of which so many rows are missing, with valid checksums."""
  samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
  passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
  lines = []
  for left, top, across, down in passes:
    columns, rows = len(range(left, 13, across)), len(range(top, 11, down))
    for _ in range(rows if columns else 0):
      lines.append(b'\0' + rng.bytes(-(-columns * depth * samples // 8)))
  header = struct.pack('>IIBBBBB', 13, 11, depth, color, 0, 0, interlaced)
  chunks = (
    [(b'IHDR', header), (b'PLTE', rng.bytes(3 * 2**depth))] if color == 3 else [(b'IHDR', header)]
  )
  pixels = zlib.compress(b''.join(lines[: len(lines) - missing]))
  return png_of(*chunks, (b'IDAT', pixels), (b'IEND', b''))


@pytest.mark.parametrize('color', [2, 4, 6])
def test_interlaced_16_bit_color_is_read_without_a_warning_of_libpng(tmp_path, rng, color, caplog):
  content, channels = _png(rng, 16, color, 1, missing=0), 1 if color == 4 else 3
  (tmp_path / 'film.png').write_bytes(content)
  found = image_files.read(tmp_path / 'film.png', channels)
  assert found.shape == (11, 13, channels) and not caplog.records
  parts = iter(zlib.decompress(content[41 : content.index(b'IEND') - 8]))
  wanted = np.zeros((11, 13, {2: 3, 4: 2, 6: 4}[color]), np.uint16)
  for left, top, across, down in ADAM7:
    for row in wanted[top::down, left::across]:
      assert next(parts) == 0  # the filter
      row[:] = np.reshape([256 * next(parts) + next(parts) for _ in range(row.size)], row.shape)
  np.testing.assert_array_equal(found, wanted[..., :channels])


@pytest.mark.parametrize('interlaced', [0, 1])
@pytest.mark.parametrize(
  ('depth', 'color'),
  [
    (1, 0),
    (2, 0),
    (4, 0),
    (8, 0),
    (16, 0),
    (8, 2),
    (16, 2),
    (1, 3),
    (8, 3),
    (8, 4),
    (16, 4),
    (8, 6),
  ],
)
def test_png_whose_pixels_end_early_is_refused(tmp_path, rng, depth, color, interlaced):
  path = tmp_path / 'film.png'
  path.write_bytes(_png(rng, depth, color, interlaced, missing=0))
  assert jaxsr.read(path).shape[:2] == (11, 13)
  for missing in (1, 5):
    path.write_bytes(_png(rng, depth, color, interlaced, missing=missing))
    with pytest.raises(ImageError, match='bytes of pixels|truncated'):
      jaxsr.read(path)


def encoded(compression, image):
  """Returns an image in a compression that has a type of its own."""
  encode = {
    'jpeg': lambda: imagecodecs.jpeg8_encode(
      image, level=100, bitspersample=min(8 * image.itemsize, 12)
    ),
    'jpeg2000': lambda: imagecodecs.jpeg2k_encode(
      image, level=0, reversible=True, codecformat='j2k'
    ),
    'png': lambda: imagecodecs.png_encode(image),
    'jpegxl': lambda: imagecodecs.jpegxl_encode(image, lossless=True),
    'lerc': lambda: imagecodecs.lerc_encode(image),
  }
  return encode[compression]()


@pytest.mark.parametrize('compression', ['jpeg', 'jpeg2000', 'png', 'jpegxl', 'lerc'])
def test_parts_of_more_bits_than_their_tags_are_refused(tmp_path, rng, compression):
  image = texture(rng, 16) >> (4 if compression == 'jpeg' else 0)
  path = tmp_path / 'film.tif'
  path.write_bytes(own_tiff([encoded(compression, image)], compression, 8, rows=HEIGHT))
  with pytest.raises(ImageError, match='has uint16 samples, but its tags say unsigned 8-bit'):
    image_files.read(path)


@pytest.mark.parametrize(
  ('compression', 'kind'),
  [
    ('jpeg2000', 'i2'),
    ('lerc', 'i1'),
    ('lerc', 'i2'),
    ('lerc', 'f4'),
    ('lerc', 'i4'),
    ('jpegxl', 'f4'),
  ],
)
@pytest.mark.parametrize('bits', [8, 16])
def test_parts_of_another_type_than_their_tags_are_refused(tmp_path, rng, compression, kind, bits):
  image, path = texture(rng, 16), tmp_path / 'film.tif'
  other = (image / 65535).astype('f4') if kind == 'f4' else (image.astype(int) - 32768).astype(kind)
  path.write_bytes(own_tiff([encoded(compression, other)], compression, bits, rows=HEIGHT))
  reason = f'has {other.dtype} samples, but its tags say unsigned {bits}-bit'
  with pytest.raises(ImageError, match=reason):
    image_files.read(path)


@pytest.mark.parametrize('compression', ['jpeg', 'jpeg2000', 'png', 'jpegxl'])
def test_parts_of_fewer_bits_than_their_tags_decide(tmp_path, rng, compression, capsys):
  image, path = texture(rng, 8), tmp_path / 'film.tif'
  path.write_bytes(own_tiff([encoded(compression, image)], compression, 16, rows=HEIGHT))
  near = 257 if compression == 'jpeg' else 0
  assert np.abs(image_files.read(path)[..., 0] - 257 * image.astype(int)).max() <= near
  assert 'has 8 bits, its tags say 16; it is read as 8-bit' in capsys.readouterr().err
  assert np.abs(image_files.read(path, bits=16)[..., 0] - image.astype(int)).max() <= near
  mixed = [encoded(compression, part) for part in (image[:20], image[20:].astype(np.uint16))]
  path.write_bytes(own_tiff(mixed, compression, 16, rows=20))
  with pytest.raises(ImageError, match='others have more or fewer bits'):
    image_files.read(path)


def test_tiles_of_far_more_pixels_than_the_image_are_refused(tmp_path, rng):
  tile = zlib.compress(bytes(2**20))
  content = own_tiff([tile], 'adobe_deflate', 8, rows=0, tile=(2**15, 2**16))
  (tmp_path / 'film.tif').write_bytes(content)
  for function in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match='has tiles of 65536x32768 pixels, more than'):
      function(tmp_path / 'film.tif')


@pytest.mark.parametrize('compression', ['jpeg', 'jpeg2000', 'png', 'lerc'])
def test_parts_that_declare_far_more_pixels_are_refused(tmp_path, rng, compression):
  image, path, size = texture(rng, 8), tmp_path / 'film.tif', (40_000).to_bytes(4, 'big')
  content = encoded(compression, image)
  if compression == 'jpeg':
    at = content.index(b'\xff\xc0') + 5
    content = content[:at] + 2 * size[2:] + content[at + 4 :]
  elif compression == 'lerc':
    content = content[:14] + 2 * size[::-1] + content[22:]
  else:
    at = 16 if compression == 'png' else content.index(b'\xff\x4f\xff\x51') + 8
    content = content[:at] + 2 * size + content[at + 8 :]
  path.write_bytes(own_tiff([content], compression, 8, rows=HEIGHT))
  with pytest.raises(ImageError, match='part 1 of its pixels has 40000x40000 pixels, more than'):
    image_files.read(path)
