import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxsr.data import image_files, raster_out, sources
from jaxsr.errors import ImageError, UserError


def damaged(path, film, kind):
  """Write a file that is wrong in one way."""
  gray = Image.fromarray(film[..., 0])
  gray.save(path, format='PNG')
  whole = path.read_bytes()
  middle = bytearray(whole)
  middle[len(whole) // 2] ^= 0x10
  content = {
    'empty': b'',
    'truncated': whole[: len(whole) // 2],
    'flipped': bytes(middle),
    'html': b'<html><body>404</body></html>' * 50,
    'gif': None,
    'color': None,
    'color16': None,
    'frames': None,
    'float': None,
    'bomb': None,
    'great bomb': None,
  }[kind]
  if content is not None:
    path.write_bytes(content)
  elif kind == 'gif':
    gray.save(path, format='GIF')
  elif kind == 'color':
    rgb = np.repeat(film, 3, axis=2)
    rgb[0, 0, 2] ^= 1
    Image.fromarray(rgb).save(path, format='PNG')
  elif kind == 'color16':
    header = bytearray(whole)
    header[24:26] = bytes((16, 2))  # bit depth and color type
    path.write_bytes(header)
  elif kind == 'frames':
    gray.save(path, format='TIFF', save_all=True, append_images=[gray])
  elif kind == 'float':
    Image.fromarray(film[..., 0].astype(np.float32)).save(path, format='TIFF')
  elif kind == 'bomb':
    Image.new('1', (10_000, 8_000)).save(path, format='PNG')
  elif kind == 'great bomb':
    Image.new('1', (14_000, 14_000)).save(path, format='PNG')


KINDS = {
  'empty': 'is empty',
  'truncated': 'is truncated',
  'flipped': 'cannot be decoded',
  'html': 'is a web page',
  'gif': 'is GIF, which is not supported',
  'color': 'in color although gray is required',
  'color16': 'its header cannot be read',
  'frames': 'holds 2 frames',
  'float': 'float32 samples',
  'bomb': '10000x8000 pixels',
  'great bomb': '14000x14000 pixels',
}


@pytest.mark.parametrize('kind', KINDS)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path, film, kind):
  path = tmp_path / 'film.png'
  damaged(path, film, kind)
  with pytest.raises(ImageError, match=KINDS[kind]) as caught:
    image_files.check(path)
    image_files.read(path)
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', [k for k in KINDS if k != 'flipped'])
def test_headers_tell_all_but_flipped_bits(tmp_path, film, kind):
  damaged(tmp_path / 'film.png', film, kind)
  with pytest.raises(ImageError):
    image_files.check(tmp_path / 'film.png')


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_gray_survives_the_round_trip(tmp_path, rng, suffix, dtype):
  image = rng.integers(0, np.iinfo(dtype).max, (20, 30, 1), dtype, endpoint=True)
  image_files.write(tmp_path / f'film{suffix}', image)
  found = image_files.read(tmp_path / f'film{suffix}')
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, image)
  assert image_files.check(tmp_path / f'film{suffix}') == (20, 30, 8 * image.itemsize)
  assert [p.name for p in tmp_path.iterdir()] == [f'film{suffix}']


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA', 'P'])
def test_rgb_of_three_equal_channels_is_gray(tmp_path, film, mode):
  Image.fromarray(film[..., 0]).convert(mode).save(tmp_path / 'film.png')
  np.testing.assert_array_equal(image_files.read(tmp_path / 'film.png'), film)
  rgb = image_files.read(tmp_path / 'film.png', channels=3)
  np.testing.assert_array_equal(rgb, np.repeat(film, 3, axis=2))


def test_gray_jpeg_in_rgb_is_gray(tmp_path, film):
  Image.fromarray(film[..., 0]).convert('RGB').save(tmp_path / 'film.jpg', quality=90)
  assert image_files.read(tmp_path / 'film.jpg').shape == film.shape


def test_color_is_kept_if_it_is_asked_for(tmp_path, rng):
  image = rng.integers(0, 256, (9, 8, 3), np.uint8)
  image_files.write(tmp_path / 'photo.png', image)
  np.testing.assert_array_equal(image_files.read(tmp_path / 'photo.png', channels=3), image)


def test_jpeg_cannot_hold_sixteen_bit(tmp_path, film):
  with pytest.raises(ImageError, match=r'JPEG holds 8 bit.*name it \.png'):
    image_files.write(tmp_path / 'film.jpg', film.astype(np.uint16))
  assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(tmp_path, film, monkeypatch):
  image_files.write(tmp_path / 'film.png', film)
  before = (tmp_path / 'film.png').read_bytes()

  def fail(path, *options):
    path.write_bytes(b'half')
    raise OSError('the disk is full')

  monkeypatch.setattr(raster_out, 'write', fail)
  with pytest.raises(OSError, match='full'):
    image_files.write(tmp_path / 'film.png', film, note='a note')
  assert (tmp_path / 'film.png').read_bytes() == before
  assert len(list(tmp_path.iterdir())) == 1


def test_find_is_recursive_sorted_and_survives_link_loops(folder):
  (folder / 'notes.txt').write_text('no image')
  (folder / '.hidden.png').write_bytes(b'')
  (folder / 'deeper' / 'loop').symlink_to(folder)
  found = [str(p.relative_to(folder)) for p in image_files.find(folder)]
  assert found == ['a.png', 'b.png', 'd.tif', 'deeper/c.png']
  assert image_files.find(folder / 'a.png') == [folder / 'a.png']


def test_empty_and_missing_folders_are_refused(tmp_path):
  with pytest.raises(UserError, match='holds no image'):
    image_files.find(tmp_path)
  with pytest.raises(UserError, match='no such file'):
    image_files.find(tmp_path / 'gone')


def test_a_folder_leaves_bad_files_out_and_says_so(folder, film):
  damaged(folder / 'bad.png', film, 'truncated')
  source = sources.Folder(folder, minimum=64)
  assert len(source) == 4
  assert [error.path.name for error in source.rejected] == ['bad.png']
  with pytest.raises(UserError, match='no usable image.*; at least 512 pixels per side are needed'):
    sources.Folder(folder, minimum=512)


def test_a_mixed_folder_is_given_in_sixteen_bit(folder, film):
  image_files.write(folder / 'deep.png', film.astype(np.uint16) * 257)
  source = sources.Folder(folder)
  assert source.bits == 16
  np.testing.assert_array_equal(sources.deepen(film, 16), film.astype(np.uint16) * 257)


def test_shared_patients_and_files_are_counted(tmp_path, film):
  names = ('train/00000013_019.png', 'train/a.png', 'val/00000013_000.png', 'val/00000099_000.png')
  for name in (*names, 'val/a.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    image_files.write(tmp_path / name, film)
  train, val = (sources.Folder(tmp_path / name) for name in ('train', 'val'))
  assert sources.overlap(train, val) == 1
  assert sources.overlap(train, train) == 2


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif'])
def test_a_comment_counts_until_the_pixels_are_changed(tmp_path, rng, suffix, channels):
  path = tmp_path / f'film.{suffix}'
  image_files.write(path, rng.integers(0, 256, (24, 40, channels), np.uint8), 'jaxsr note')
  assert image_files.read_note(path) == 'jaxsr note'
  with Image.open(path) as image:
    edited, comment = image.point(lambda level: level // 2), image.info.get('Comment', '')
    text = PngInfo()
    text.add_text('Comment', comment)
    kept = {
      'png': {'pnginfo': text},
      'jpg': {'comment': image.info.get('comment', b'')},
      'tif': {'tiffinfo': {270: image.tag_v2[270]} if suffix == 'tif' else {}},
    }[suffix]
    edited.save(tmp_path / f'edited.{suffix}', **kept)
  assert b'jaxsr note' in (tmp_path / f'edited.{suffix}').read_bytes()
  assert image_files.read_note(tmp_path / f'edited.{suffix}') == ''


def add_page(path):
  tifffile.imwrite(path, np.zeros((24, 40), np.uint8), append=True, metadata=None)


def invert(path):
  with tifffile.TiffFile(path, mode='r+b') as tif:
    tif.pages.first.tags['PhotometricInterpretation'].overwrite(0)


def animate(path):
  with Image.open(path) as image:
    text = PngInfo()
    text.add_text('Comment', image.info['Comment'])
    options = {'pnginfo': text, 'compress_level': raster_out.LEVEL}
    image.save(path, save_all=True, append_images=[image.point(lambda x: x // 2)], **options)


def edit_and_append(path):
  with Image.open(path) as image:
    image.point(lambda x: x // 2).save(path, comment=image.info['comment'])
  path.write_bytes(path.read_bytes() + b'an editor was here')


def turn(path):
  exif = Image.Exif()
  exif[274] = 6
  content, more = path.read_bytes(), b'Exif\0\0' + exif.tobytes().removeprefix(b'Exif\0\0')
  more = b'\xff\xe1' + (len(more) + 2).to_bytes(2, 'big') + more
  path.write_bytes(content[:2] + more + content[2:])


EDITS = {add_page: 'tif', invert: 'tif', animate: 'png', edit_and_append: 'jpg', turn: 'jpg'}


@pytest.mark.parametrize('edit', EDITS)
def test_a_result_that_is_shown_otherwise_is_of_others(tmp_path, rng, edit):
  path = tmp_path / f'film.{EDITS[edit]}'
  image_files.write(path, rng.integers(0, 256, (24, 40, 1), np.uint8), 'jaxsr note')
  assert image_files.read_note(path) == 'jaxsr note'
  edit(path)
  assert b'jaxsr note' in path.read_bytes()
  assert image_files.read_note(path) == ''


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif'])
def test_a_result_that_was_cut_keeps_its_comment(tmp_path, rng, suffix):
  path = tmp_path / f'film.{suffix}'
  image_files.write(path, rng.integers(0, 256, (24, 40, 1), np.uint8), 'jaxsr note')
  path.write_bytes(path.read_bytes()[:-100])
  assert image_files.read_note(path) == 'jaxsr note'


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_a_comment_of_a_file_written_in_rows_is_read_back(tmp_path, rng, suffix):
  path, image = tmp_path / f'film.{suffix}', rng.integers(0, 256, (24, 40, 1), np.uint8)
  like = image_files.ImageInfo(8)
  with image_files.writing(
    path, image.shape, image.dtype, 'jaxsr note', info=like, scale=1
  ) as writer:
    writer.write(image[:9])
    writer.write(image[9:])
  assert image_files.read_note(path) == 'jaxsr note'
  np.testing.assert_array_equal(image_files.read(path), image)
