"""Images that change, go away or are damaged while they are used."""

import errno
import gzip
import os
import threading

import numpy as np
import pytest

from jaxsr import cli, files
from jaxsr.data import fingerprint, image_files, sources
from jaxsr.data.image_cache import Films
from jaxsr.data.nih import metadata
from jaxsr.data.phantom import phantom
from jaxsr.errors import ImageError, Interruption, UserError
from jaxsr.evaluation import evaluator
from jaxsr.inference.model import load
from jaxsr.training.train import train


def films(folder, pauses=(0.05,) * 40):
  made = Films(sources.Folder(folder), scale=4, capacity=0)
  made.pauses = pauses
  return made


@pytest.mark.parametrize(
  'change', [lambda x: x.astype(np.uint16) * 257, lambda x: x[:64], lambda x: x[:, :96]]
)
def test_a_film_of_another_depth_or_size_is_left_out_by_name(folder, change, capsys):
  found = films(folder)
  image_files.write(folder / 'b.png', change(image_files.read(folder / 'b.png')))
  assert found[1].hr.dtype == np.uint8 and found[1].hr.shape == (128, 128, 1)
  assert 'b.png: has changed: it was 128x128 of 8 bits' in capsys.readouterr().err


def test_a_folder_that_is_away_is_waited_for(folder, capsys):
  found = films(folder)
  folder.rename(folder.parent / 'away')
  threading.Timer(0.3, lambda: (folder.parent / 'away').rename(folder)).start()
  assert [found[i].hr.shape for i in range(4)] == [(128, 128, 1)] * 4
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('number', [errno.EACCES, errno.ENOTCONN, errno.ESTALE])
def test_a_folder_that_refuses_is_waited_for(folder, monkeypatch, capsys, number):
  """As after a Kerberos ticket has expired, or a FUSE server has ended: even `stat` fails."""
  found, over = films(folder), threading.Event()

  def refuse(original):
    def call(path, *arguments, **options):
      if str(path).startswith(str(folder)) and not over.is_set():
        raise OSError(number, os.strerror(number), str(path))
      return original(path, *arguments, **options)

    return call

  for name in ('stat', 'lstat', 'open'):
    monkeypatch.setattr(os, name, refuse(getattr(os, name)))
  threading.Timer(0.3, over.set).start()
  assert [found[i].hr.shape for i in range(4)] == [(128, 128, 1)] * 4
  assert capsys.readouterr().err == ''


def test_a_folder_that_stays_away_ends_the_run_by_name(folder):
  found = films(folder, pauses=(0.01, 0.01))
  folder.rename(folder.parent / 'away')
  with pytest.raises(Interruption, match='films: no image can be read there, for 0.02 s'):
    found[0]


def test_an_error_of_the_disk_is_tried_again(folder, monkeypatch, capsys):
  fails = iter([errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
  found, load = films(folder), image_files._decode

  def decode(file, path, bits):
    if number := next(fails, 0):
      raise OSError(number, os.strerror(number))
    return load(file, path, bits)

  monkeypatch.setattr(image_files, '_decode', decode)
  assert found[0].hr.shape == (128, 128, 1)
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('change', ['content', 'name', 'more', 'pixels'])
def test_a_fingerprint_sees_a_change(folder, change):
  before = {'train': fingerprint.of(sources.Folder(folder))}
  other = phantom(9, 9, size=128)[..., None]
  if change == 'content':
    image_files.write(folder / 'a.png', other)
  elif change == 'pixels':
    image_files.write(folder / 'a.png', other[:96])
  elif change == 'name':
    (folder / 'a.png').rename(folder / 'aa.png')
  else:
    image_files.write(folder / 'z.png', other)
  now = fingerprint.of(sources.Folder(folder))
  assert fingerprint.compare(before['train'], now)
  assert not fingerprint.compare(before['train'], before['train'])
  assert not fingerprint.compare({}, now)  # a run of an older version


def test_every_film_of_a_small_folder_is_in_the_fingerprint(tmp_path):
  """Also one that keeps its size in pixels and bytes, and beside a sample of an older version."""
  for i in range(40):
    image_files.write(tmp_path / f'{i:02}.tif', np.full((32, 32, 1), i, np.uint8))
  before = fingerprint.of(sources.Folder(tmp_path))
  older = before | {'sample': dict(list(before['sample'].items())[::3])}
  image_files.write(tmp_path / '01.tif', np.full((32, 32, 1), 99, np.uint8))
  now = fingerprint.of(sources.Folder(tmp_path))
  assert fingerprint.compare(before, now) == 'the content of 01.tif has changed'
  assert fingerprint.compare(older, now) == ''


def test_a_changed_folder_is_refused_when_training_resumes(tiny, folder, tmp_path, capsys):
  tiny.data.train = tiny.data.val = str(folder)
  tiny.steps = 2
  assert train(tiny, tmp_path / 'run') == 0
  image_files.write(folder / 'a.png', phantom(9, 9, size=128)[..., None])
  tiny.steps = 4
  with pytest.raises(UserError, match='config.data.train have changed .*a.png has changed'):
    train(tiny, tmp_path / 'run')
  assert train(tiny, tmp_path / 'run', allow_config_change=True) == 0
  assert 'note: the images of config.data.val have changed' in capsys.readouterr().out


def call(*arguments):
  return cli.run(['data', 'hash', *map(str, arguments)])


def test_a_manifest_finds_the_flipped_bit_that_a_tiff_hides(folder, capsys):
  assert call(folder) == 0
  assert call(folder) == 0
  assert 'no differences' in capsys.readouterr().out
  path = folder / 'd.tif'
  content = bytearray(path.read_bytes())
  for place in range(len(content) // 2, len(content)):  # until the file is still readable
    content[place] ^= 1
    path.write_bytes(content)
    try:
      image_files.read(path)
      break
    except ImageError:
      content[place] ^= 1
  source = sources.Folder(folder)
  assert len(source) == 4
  with pytest.raises(ImageError, match='d.tif: differs from its SHA-256'):
    source[source.names.index('d.tif')]
  assert call(folder) == 1
  assert 'd.tif: differs from its SHA-256' in capsys.readouterr().out
  (folder / 'a.png').unlink()
  assert 'a.png: is missing, but SHA256SUMS lists it' in str(sources.Folder(folder).rejected[0])
  assert call(folder, '--overwrite') == 0 and call(folder) == 0


def test_a_file_that_cannot_be_read_does_not_end_the_comparison(folder, monkeypatch, capsys):
  assert call(folder) == 0
  hashed = files.sha256

  def fail(path):
    if path.name == 'b.png':
      raise PermissionError(13, 'Permission denied')
    return hashed(path)

  monkeypatch.setattr(files, 'sha256', fail)
  capsys.readouterr()
  assert call(folder) == 1
  told = capsys.readouterr().out
  assert 'b.png: cannot be read (Permission denied)' in told and '1 difference' in told


def test_files_without_a_sum_are_named_and_the_others_hashed(folder, monkeypatch, capsys):
  first = (folder / 'a.png').read_bytes()
  (folder / 'link.png').symlink_to('gone')
  (folder / 'two\nlines.png').write_bytes(first)
  (folder / 'next\u2028line.png').write_bytes(first)
  os.mkfifo(folder / 'pipe.png')
  hashed = files.sha256

  def fail(path):
    if path.name == 'b.png':
      raise PermissionError(13, 'Permission denied')
    return hashed(path)

  monkeypatch.setattr(files, 'sha256', fail)
  assert call(folder) == 1
  told = capsys.readouterr()
  assert f'{files.MANIFEST}: 4 images' in told.out and 'left out: 4 images' in told.err
  for text in ('link.png: is a link to a file that does not exist', 'pipe.png: is not a regular'):
    assert text in told.err
  assert 'b.png: cannot be read' in told.err and 'has a line break in its name' in told.err
  assert call(folder) == 1
  assert '4 differences' in capsys.readouterr().out  # those that were left out
  (folder / 'a.png').unlink()
  assert call(folder) == 1
  told = capsys.readouterr().out
  assert '5 differences' in told and told.count('a.png: is missing') == 1
  (folder / 'links').mkdir()
  (folder / 'links' / 'link.png').symlink_to('gone')
  assert call(folder / 'links') == 1 and not (folder / 'links' / files.MANIFEST).exists()


def test_a_manifest_that_was_cut_is_noticed(folder, capsys):
  assert call(folder) == 0
  os.mkfifo(folder / 'pipe.png')
  assert call(folder) == 1
  assert call(folder, '--overwrite') == 1
  assert 'left out: 1 image' in capsys.readouterr().err
  (folder / 'pipe.png').unlink()
  path = folder / files.MANIFEST
  first, rest = path.read_text().split('\n', 1)
  path.write_text(rest)
  capsys.readouterr()
  sources.Folder(folder)
  assert '1 image not in SHA256SUMS, not checked: a.png' in capsys.readouterr().err
  path.write_text(f'{first}\n{rest}'[:-40])
  with pytest.raises(UserError, match='line 4 is not a SHA-256'):
    sources.Folder(folder)
  path.write_text(f'{first}\n{rest}'[:-3])
  assert len(sources.Folder(folder).rejected) == 1
  path.write_bytes(gzip.compress(path.read_bytes()))
  with pytest.raises(UserError, match='line 1 is not a SHA-256'):
    sources.Folder(folder)
  os.truncate(path, 2**33)
  with pytest.raises(UserError, match='more than 256 MiB'):
    sources.Folder(folder)
  path.unlink()
  path.mkdir()
  with pytest.raises(UserError, match='SHA256SUMS: is not a regular file'):
    sources.Folder(folder)


def test_an_evaluation_stays_out_of_its_data_and_of_another(folder, tmp_path, capsys):
  arguments = ['evaluate', '--checkpoint=bicubic', f'--data={folder}']
  before = sorted(folder.rglob('*'))
  for inside in (folder, folder / 'deeper' / 'results'):
    assert cli.run([*arguments, f'--output={inside}']) == 2
    assert 'lies in the data' in capsys.readouterr().err
  assert sorted(folder.rglob('*')) == before
  with files.alone_in(tmp_path / 'results'):
    assert cli.run([*arguments, f'--output={tmp_path / "results"}']) == 2
    assert 'another process writes there' in capsys.readouterr().err
  assert cli.run([*arguments, f'--output={tmp_path / "results"}']) == 0


def test_a_packages_figures_name_no_file(folder, capsys):
  (folder / 'b.png').write_bytes((folder / 'b.png').read_bytes()[:-20])
  source = sources.Folder(folder)
  source.paths[0] = folder / 'gone.png'
  model = load('bicubic', scale=4)
  found = evaluator.measure(model.network, model.variables, source, scale=4)
  assert found['failed'] == ['is missing']
  assert 'left out: ' in capsys.readouterr().err


def test_a_table_that_inflates_to_gigabytes_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(metadata, '_MOST_TEXT', 2**20)
  table = tmp_path / 'Data_Entry_2017.csv.gz'
  table.write_bytes(gzip.compress(bytes(2**21)))
  with pytest.raises(UserError, match='has more than 1 MiB'):
    metadata.read_text(table)


def test_a_folder_that_may_not_be_listed_is_named(folder, monkeypatch):
  scan = os.scandir

  def refuse(path):
    if str(path).endswith('deeper'):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  source = sources.Folder(folder)
  assert len(source) == 3
  assert 'deeper: is a folder that cannot be read' in str(source.rejected[0])


def test_both_folders_of_pairs_are_watched(folder, tmp_path):
  small = tmp_path / 'small'
  (small / 'deeper').mkdir(parents=True)
  for path in image_files.find(folder):
    image_files.write(small / path.relative_to(folder), image_files.read(path)[::4, ::4])
  pairs = sources.Paired(sources.Folder(folder), sources.Folder(small), 4)
  before, made = fingerprint.of(pairs), Films(pairs, scale=4, capacity=0)
  image_files.write(small / 'b.png', phantom(9, 9, size=128)[::4, ::4, None])
  assert fingerprint.compare(before, fingerprint.of(pairs)).startswith('low resolution: ')
  made.pauses = (0.01,)
  small.rename(tmp_path / 'away')
  with pytest.raises(Interruption, match='small: no image can be read there'):
    made[0]
