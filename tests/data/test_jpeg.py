"""JPEG of every process: its orientation is applied, and damage of its scans is refused."""

import itertools
import re

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxsr.data import image_files, jpeg
from jaxsr.data.decoded import orient
from jaxsr.errors import ImageError

HEIGHT, WIDTH = 53, 70
END = b'\xff\xd9'
PROCESSES = ('baseline', 'progressive', 'restarts', '12 bits', 'lossless 8', 'lossless 11')
PROCESSES += ('lossless 16', 'JPEG-LS 8', 'JPEG-LS 12', 'JPEG-LS 16')


@pytest.fixture(scope='module')
def texture():
  """A gray image, uint16 over the whole range, that compresses badly but not too badly."""
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (9, 11), np.uint8))
  smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
  return np.clip(smooth * 200 + rng.integers(0, 9000, smooth.shape), 0, 65535).astype(np.uint16)


def encode(path, gray, process):
  """Write gray of 16 bits; returns the samples that were compressed."""
  kind, _, bits = process.partition(' ')
  if kind in ('lossless', 'JPEG-LS', '12'):
    bits = 12 if kind == '12' else int(bits)
    samples = (gray >> (16 - bits)).astype(np.uint8 if bits <= 8 else np.uint16)
    if kind == 'JPEG-LS':
      path.write_bytes(imagecodecs.jpegls_encode(samples))
    else:
      lossless = kind == 'lossless'
      content = imagecodecs.jpeg8_encode(samples, level=95, bitspersample=bits, lossless=lossless)
      path.write_bytes(content)
    return samples
  samples = (gray >> 8).astype(np.uint8)
  options = {'progressive': {'progressive': True}, 'restarts': {'restart_marker_blocks': 5}}
  Image.fromarray(samples).save(path, 'JPEG', quality=95, **options.get(kind, {}))
  return samples


def add_orientation(path, orientation):
  exif = Image.Exif()
  exif[274] = orientation
  payload = exif.tobytes()
  content = path.read_bytes()
  segment = b'\xff\xe1' + (len(payload) + 2).to_bytes(2, 'big') + payload
  path.write_bytes(content[:2] + segment + content[2:])


@pytest.mark.parametrize('process', PROCESSES)
def test_the_orientation_of_every_process_is_applied(tmp_path, texture, process):
  path = tmp_path / 'film.jpg'
  samples = encode(path, texture, process)
  stored, content = image_files.read_stored(path), path.read_bytes()
  if process.startswith(('lossless', 'JPEG-LS')):
    np.testing.assert_array_equal(stored, samples)
  for orientation in range(2, 9):
    path.write_bytes(content)
    add_orientation(path, orientation)
    upright = orient(stored[..., None], orientation)[..., 0]
    np.testing.assert_array_equal(image_files.read_stored(path), upright)
    assert image_files.check(path) == (*upright.shape, 8 * samples.itemsize)


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_a_scan_that_was_cut_is_refused(tmp_path, texture, process, share):
  path = tmp_path / 'film.jpg'
  encode(path, texture, process)
  whole = path.read_bytes()
  start = whole.index(b'\xff\xda')
  cut = whole[: start + int(share * (len(whole) - start))]
  for ended in (cut, cut + b'\xff\xd9'):
    path.write_bytes(ended)
    with pytest.raises(ImageError, match='cannot be decoded'):
      image_files.read(path)


@pytest.mark.parametrize('process', ['baseline', 'progressive', 'restarts'])
def test_an_overwritten_scan_is_refused(tmp_path, texture, process):
  path = tmp_path / 'film.jpg'
  encode(path, texture, process)
  whole, found = path.read_bytes(), 0
  start, rng = whole.index(b'\xff\xda') + 20, np.random.default_rng(1)
  places = np.linspace(start, len(whole) - 60, 20).astype(int)
  for place in places:
    damage = rng.integers(0, 255, 40, np.uint8).tobytes()
    path.write_bytes(whole[:place] + damage + whole[place + 40 :])
    try:
      image_files.read(path)
    except ImageError as error:
      assert 'cannot be decoded' in error.reason
      found += 1
  assert found >= 17  # the others decode to as many blocks as before


@pytest.mark.parametrize('process', ['baseline', 'progressive', 'restarts'])
@pytest.mark.parametrize(
  'marker', [b'\xff\x02', b'\xff\xc0', b'\xff\xc4', b'\xff\xd8', b'\xff\xe0']
)
def test_a_marker_in_the_middle_of_a_scan_is_refused(tmp_path, texture, process, marker):
  path = tmp_path / 'film.jpg'
  encode(path, texture, process)
  whole = path.read_bytes()
  place = (whole.index(b'\xff\xda') + len(whole)) // 2
  path.write_bytes(whole[:place] + marker + whole[place + 2 :])
  with pytest.raises(ImageError, match='cannot be decoded'):
    image_files.read(path)


def test_bytes_between_the_scans_of_a_progressive_file_are_refused(tmp_path, texture):
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'progressive')
  whole = path.read_bytes()
  tables = whole.index(b'\xff\xc4', whole.index(b'\xff\xda'))
  path.write_bytes(whole[:tables] + b'\x5a' * 40 + whole[tables:])
  with pytest.raises(ImageError, match='cannot be decoded'):
    image_files.read(path)


def test_healthy_jpeg_of_many_kinds_is_read_as_pillow_reads_it(tmp_path, texture):
  gray = (texture >> 8).astype(np.uint8)
  images = {'L': gray, 'RGB': np.dstack([gray, gray[::-1], gray[:, ::-1]])}
  path = tmp_path / 'film.jpg'
  axes = itertools.product(images, (40, 100), (0, 1, 2), (False, True), (0, 3), (b'', b'\1' * 99))
  for mode, quality, subsampling, progressive, restart, tail in axes:
    Image.fromarray(images[mode]).save(
      path,
      quality=quality,
      subsampling=subsampling,
      progressive=progressive,
      restart_marker_blocks=restart,
    )
    path.write_bytes(path.read_bytes() + tail)
    with Image.open(path) as image:
      np.testing.assert_array_equal(image_files.read_stored(path), np.asarray(image))


@pytest.mark.parametrize('between', [b'\0', b'\x5a\x5b\x5c\x5d\x5e\x5f', b'\0' * 300])
def test_bytes_that_some_cameras_leave_after_a_scan_are_named(tmp_path, texture, between, capsys):
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'baseline')
  wanted = image_files.read_stored(path)
  path.write_bytes(path.read_bytes()[:-2] + between + b'\xff\xd9')
  np.testing.assert_array_equal(image_files.read_stored(path), wanted)
  named = 'bytes after its last pixel' in capsys.readouterr().err
  assert named == any(between)  # zeros are padding


def test_a_black_border_at_the_end_is_no_damage(tmp_path, texture):
  path = tmp_path / 'film.jpg'
  framed = texture.copy()
  framed[-9:] = 0
  for process in ('12 bits', 'lossless 8', 'lossless 16'):
    encode(path, framed, process)
    assert image_files.read_stored(path)[-1, -1] == 0


def test_kinds_of_jpeg_that_are_not_read_are_named(tmp_path, texture):
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'baseline')
  whole = bytearray(path.read_bytes())
  at = whole.index(b'\xff\xc0')
  for place, value, reason in (
    (at + 9, 2, 'is JPEG with 2 samples per pixel'),
    (at + 9, 4, r'is JPEG with 4 samples per pixel \(CMYK\)'),
    (at + 1, 0xC5, 'is hierarchical JPEG'),
    (at + 1, 0xCB, 'is arithmetic-coded lossless JPEG'),
    (at + 6, 0, 'is JPEG without a size'),
  ):
    changed = whole.copy()
    changed[place] = value
    path.write_bytes(changed)
    for function in (image_files.check, image_files.read):
      with pytest.raises(ImageError, match=f'{reason}.*not supported'):
        function(path)
  path.write_bytes(imagecodecs.jpegls_encode(np.dstack([texture] * 3)))
  with pytest.raises(ImageError, match='is JPEG-LS in color'):
    image_files.read(path)


def test_damage_of_jpeg_inside_tiff_is_refused(tmp_path, texture):
  path = tmp_path / 'film.tif'
  Image.fromarray((texture >> 8).astype(np.uint8)).save(path, compression='jpeg')
  assert image_files.read(path).shape == (HEIGHT, WIDTH, 1)
  whole = path.read_bytes()
  start = whole.index(b'\xff\xda', whole.index(b'\xff\xc0')) + 200
  path.write_bytes(whole[:start] + b'\x55' * 60 + whole[start + 60 :])
  with pytest.raises(ImageError, match='cannot be decoded as JPEG .*missing or overwritten'):
    image_files.read(path)


def test_a_header_is_found_behind_fill_bytes(tmp_path, texture):
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'lossless 16')
  content = path.read_bytes()
  path.write_bytes(content[:2] + b'\xff\xff' + content[2:])
  with path.open('rb') as file:
    found = jpeg.frame(file)
    assert file.tell() == 0
  assert found is not None
  assert (found.bits, found.height, found.width) == (16, HEIGHT, WIDTH)


def test_a_file_of_very_many_scans_is_refused(tmp_path, texture):
  """Each scan is decoded over the whole image: 2,000 of 4,000x4,000 pixels took 37 s."""
  path = tmp_path / 'film.jpg'
  Image.fromarray((texture >> 8).astype(np.uint8)).save(path, progressive=True)
  content = path.read_bytes()
  first = content.index(b'\xff\xda')
  scan = content[first : content.index(b'\xff\xc4', first)]
  path.write_bytes(content[:first] + 200 * scan + content[first:])
  with pytest.raises(ImageError, match=r'20\d scans, more than any encoder writes'):
    image_files.read(path)


def segment(marker, payload):
  return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, 'big') + payload


def after_start(content, added):
  return content[:2] + added + content[2:]


def with_old_scan_header(content):
  at = content.index(b'\xff\xda')
  end = at + 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
  return content[: end - 3] + b'\0\0\0' + content[end:]


ICC = b'ICC_PROFILE\0'
HARMLESS = {  # of which libjpeg warns, first of all
  'old scan header': with_old_scan_header,
  'stray bytes': lambda content: content[:20] + b'\x01\x02\x03' + content[20:],  # behind JFIF
  'JFIF of version 9': lambda content: content.replace(b'JFIF\0\1', b'JFIF\0\x09', 1),
  'Adobe transform 7': lambda content: after_start(
    content.replace(b'JFIF', b'JXXX'), segment(0xEE, b'Adobe\0\x64\0\0\0\0\x07')
  ),
  'ICC twice': lambda content: after_start(content, 2 * segment(0xE2, ICC + b'\1\1' + b'p' * 200)),
  'ICC numbered from 0': lambda content: after_start(content, segment(0xE2, ICC + b'\0\1pppp')),
  'ICC incomplete': lambda content: after_start(content, segment(0xE2, ICC + b'\1\2pppp')),
}


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('what', HARMLESS)
def test_a_harmless_warning_neither_refuses_a_file_nor_hides_damage(tmp_path, texture, what, mode):
  path = tmp_path / 'film.jpg'
  gray = (texture >> 8).astype(np.uint8)
  image = gray if mode == 'L' else np.dstack([gray, gray[::-1], gray[:, ::-1]])
  Image.fromarray(image).save(path, quality=90)
  with Image.open(path) as pillow:
    true = np.asarray(pillow)
  content = HARMLESS[what](path.read_bytes())
  path.write_bytes(content)
  np.testing.assert_array_equal(image_files.read_stored(path), true)
  assert image_files.check(path, 3)[:2] == (HEIGHT, WIDTH)
  start = content.index(b'\xff\xda') + 20
  half = content[: (start + len(content)) // 2]
  for damaged in (half, half + b'\xff\xd9'):
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match='missing or overwritten'):
      image_files.read(path)


@pytest.mark.parametrize('kind', ['tif', 'dcm'])
def test_a_harmless_warning_hides_no_damage_inside_other_files(tmp_path, texture, kind):
  path = tmp_path / 'film.jpg'
  samples = encode(path, texture, 'baseline')
  with Image.open(path) as pillow:
    true = np.asarray(pillow)
  content = with_old_scan_header(path.read_bytes())
  half = content[: (content.index(b'\xff\xda') + len(content)) // 2]
  path = path.with_suffix(f'.{kind}')
  for scan in (content, half):
    if kind == 'tif':
      options = {'shape': samples.shape, 'dtype': np.uint8, 'rowsperstrip': HEIGHT}
      tifffile.imwrite(path, iter([scan]), compression=7, photometric='minisblack', **options)
    else:
      pydicom = pytest.importorskip('pydicom')
      from data.dicom_films import minimal, save

      film = minimal(samples, bits=8)
      film.PixelData = pydicom.encaps.encapsulate([scan])
      save(path, film, pydicom.uid.JPEGBaseline8Bit)
    if scan == content:
      np.testing.assert_array_equal(image_files.read(path)[..., 0], true)
    else:
      with pytest.raises(ImageError, match='missing or overwritten'):
        image_files.read(path)


@pytest.mark.parametrize('kind', ['restarts', 'progressive'])
def test_bytes_between_scans_hide_no_damage(tmp_path, texture, kind):
  path = tmp_path / 'film.jpg'
  encode(path, texture, kind)
  content = path.read_bytes()
  marker = b'\xff\xd0' if kind == 'restarts' else b'\xff\xc4'
  place = content.index(marker, content.index(b'\xff\xda') + 20)
  path.write_bytes(content[:place] + b'\x5a\x5b' + content[place:-20] + END)
  with pytest.raises(ImageError, match='missing or overwritten'):
    image_files.read(path)


def test_bytes_after_the_last_pixel_hide_no_damage(tmp_path, texture):
  """The file ends after a whole interval, so libjpeg warns of two bytes first."""
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'restarts')
  content = path.read_bytes()
  place = content.index(b'\xff\xd4', content.index(b'\xff\xda') + 20)
  path.write_bytes(content[:place] + b'\x5a\x5b' + END)
  with pytest.raises(ImageError, match='missing or overwritten'):
    image_files.read(path)


@pytest.mark.parametrize('padding', [0, 1, 16, 60])
def test_what_a_thumbnail_or_a_trailer_holds_is_no_scan(tmp_path, texture, padding):
  path = tmp_path / 'film.jpg'
  encode(path, texture, 'baseline')
  true, content = image_files.read_stored(path), path.read_bytes()
  thumbnail = segment(0xE1, b'Exif\0\0' + content[-3000:])
  padded = after_start(content, thumbnail)[:-2] + bytes(padding) + END
  path.write_bytes(padded + 150 * b'\xff\xda\0\x08')  # as a video that follows may hold them
  np.testing.assert_array_equal(image_files.read_stored(path), true)


@pytest.mark.parametrize(
  ('factors', 'named'),
  [
    ((0x32, 0x11, 0x11), '3x2, 1x1, 1x1'),
    ((0x22, 0x12, 0x21), '2x2, 1x2, 2x1'),
    ((0x11, 0x21, 0x11), '1x1, 2x1, 1x1'),
    *(((factor, 0x11, 0x11), '') for factor in (0x11, 0x21, 0x12, 0x22, 0x41)),
  ],
)
def test_unusual_chroma_subsampling_is_named_before_pixels_are_read(tmp_path, rng, factors, named):
  """libjpeg decodes it; libjpeg-turbo's own interface, which finds damage, does not."""
  image = Image.fromarray(rng.integers(0, 256, (48, 96, 3), np.uint8))
  image.save(tmp_path / 'a.jpg', subsampling=0)
  content = bytearray((tmp_path / 'a.jpg').read_bytes())
  at = content.index(b'\xff\xc0')
  content[at + 11 : at + 18 : 3] = bytes(factors)
  (tmp_path / 'a.jpg').write_bytes(content)
  if not named:
    assert image_files.check(tmp_path / 'a.jpg', 3) == (48, 96, 8)
    return
  text = f'a.jpg: is JPEG with the chroma subsampling {named}, which is not supported; convert it'
  for function in (image_files.check, image_files.read):
    with pytest.raises(ImageError, match=re.escape(text)) as found:
      function(tmp_path / 'a.jpg', 3)
    assert '\n' not in str(found.value)
