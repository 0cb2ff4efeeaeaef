"""Folders with files that cannot be read: named, left out, and never waited for."""

import os
import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxsr.cli import run as jaxsr_run
from jaxsr.data import image_files, sources
from jaxsr.errors import ImageError

UNREADABLE = {
  'link.png': 'is a link to a file that does not exist',
  'pipe.png': 'is not a regular file',
  'zero.png': 'is not a regular file',
  'IM0001': 'is a link to a file that does not exist',
  'float.tif': 'float32 samples',
  'fake.png': 'is GIF',
}


@pytest.fixture
def troubled(folder):
  """Add files that cannot be read to a folder of four films."""
  (folder / 'link.png').symlink_to(folder / 'gone.png')
  (folder / 'IM0001').symlink_to(folder / 'annex')
  os.mkfifo(folder / 'pipe.png')
  (folder / 'zero.png').symlink_to('/dev/zero')
  tifffile.imwrite(folder / 'float.tif', np.zeros((64, 64), np.float32))
  Image.new('L', (64, 64)).save(folder / 'fake.png', format='GIF')
  return folder


def test_a_source_names_and_leaves_out_what_cannot_be_read(troubled):
  source = sources.Folder(troubled)
  assert len(source) == 4
  found = {error.path.name: error.reason for error in source.rejected}
  assert found.keys() == UNREADABLE.keys()
  for name, reason in UNREADABLE.items():
    with pytest.raises(ImageError, match=reason):
      image_files.read(troubled / name)


@pytest.mark.parametrize('command', ['upscale', 'evaluate'])
def test_commands_do_the_rest_and_exit_with_one(troubled, tmp_path, command, capsys):
  arguments = [command, *['--data'][command == 'upscale' :], str(troubled)]
  arguments += ['--checkpoint', 'bicubic', '--output', str(tmp_path / 'out')]
  assert jaxsr_run(arguments) == 1
  told = capsys.readouterr()
  for name, reason in UNREADABLE.items():
    assert f'{name}: {reason}'.replace('float32', 'is TIFF with float32') in told.out + told.err
  if command == 'upscale':
    assert len(image_files.find(tmp_path / 'out')) == 4


def test_files_that_are_not_images_are_counted_and_named(folder, capsys):
  for name in ('notes.txt', 'table.csv', 'movie.gif'):
    (folder / name).write_text('text')
  (folder / '.hidden').write_text('text')
  (folder / '.git/annex').mkdir(parents=True)
  (folder / 'a.png').rename(folder / '.git/annex/MD5.png')
  (folder / 'a.png').symlink_to('.git/annex/MD5.png')
  assert len(image_files.find(folder)) == 4
  assert (
    'passed over 3 files, not images: movie.gif, notes.txt, table.csv' in capsys.readouterr().err
  )


def test_files_without_a_suffix_that_cannot_be_read_are_named(folder, monkeypatch):
  (folder / 'IM0002').write_bytes((folder / 'a.png').read_bytes())
  opened = pathlib.Path.open

  def fail(self, *arguments, **options):
    if self.name == 'IM0002':
      raise PermissionError(13, 'Permission denied')
    return opened(self, *arguments, **options)

  monkeypatch.setattr(pathlib.Path, 'open', fail)
  (error,) = sources.Folder(folder).rejected
  assert (error.path.name, error.reason) == ('IM0002', 'cannot be read (Permission denied)')


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch, tmp_path, capsys):
  listed = os.scandir

  def fail(path):
    if str(path).endswith('deeper'):
      raise PermissionError(13, 'Permission denied', str(path))
    return listed(path)

  monkeypatch.setattr(os, 'scandir', fail)
  arguments = ['upscale', str(folder), '--checkpoint', 'bicubic', '--output', str(tmp_path / 'out')]
  assert jaxsr_run(arguments) == 1
  told = capsys.readouterr()
  assert 'deeper: is a folder that cannot be read (Permission denied)' in told.err
  assert 'wrote 3 of 4' in told.out


def test_unreadable_content_is_not_an_image(folder, monkeypatch):
  def fail(self, *arguments):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr(image_files.dicom, 'recognize', fail)
  (folder / 'a.png').write_bytes(b'neither PNG nor TIFF')
  with pytest.raises(ImageError, match=r'cannot be read \(Input/output error\)'):
    image_files.read(folder / 'a.png')


@pytest.mark.parametrize('bits', [0, 12])
def test_upscaling_keeps_the_stored_range(tmp_path, film, bits):
  stored = film.astype(np.uint16) * 16 + 15
  info = image_files.ImageInfo(16 if bits else 12)  # with a tag, or with --bits
  full = image_files.decoded.to_full_range(stored, 12) if not bits else stored
  image_files.write(tmp_path / 'film.png', full, info=info)
  for name in ('out.png', 'out.tif'):
    arguments = ['upscale', str(tmp_path / 'film.png'), '--checkpoint', 'bicubic', '--scale', '2']
    arguments += ['--output', str(tmp_path / name), '--bits', str(bits)]
    assert jaxsr_run(arguments) == 0
    found, info = image_files.load(tmp_path / name)
    assert info.bits == 12
    assert image_files.read_stored(tmp_path / name).max() <= 4095
    assert abs(float(found.mean()) / 65535 - float(stored.mean()) / 4095) < 0.001
