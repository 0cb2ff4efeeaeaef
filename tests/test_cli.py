"""The console command: `evaluate`, `upscale` and `phantom`, the parsing of options, and help."""

import ast
import csv
import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from jaxsr import __version__, cli, config
from jaxsr.commands import options
from jaxsr.config import validate
from jaxsr.config.overrides import PATHS, override
from jaxsr.data import degradation, image_files
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.evaluation import evaluator
from jaxsr.inference import provenance
from jaxsr.inference.model import load
from jaxsr.training.train import train
from runs import four_steps

ROOT = Path(__file__).resolve().parents[1]
PER_IMAGE = (
  'file psnr ssim bicubic_psnr bicubic_ssim psnr_centre ssim_centre bicubic_psnr_centre '
  'psnr_uncropped'
)
SUMMARY = (
  'n psnr psnr_sd ssim bicubic_psnr bicubic_ssim psnr_centre ssim_centre bicubic_psnr_centre '
  'psnr_pooled psnr_uncropped parameters scale protocol checkpoint_step'
)


def jaxsr(*arguments):
  """Run the console command; return its exit code."""
  with pytest.raises(SystemExit) as caught:
    cli.main([str(argument) for argument in arguments])
  return caught.value.code


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Train two steps of a gray network."""
  experiment = four_steps(config.base())
  experiment.model = config.network('srcnn', features=(4, 2), kernels=(3, 1, 3))
  experiment.loss.l1 = 1.0
  experiment.devices, experiment.steps = 1, 2
  folder = tmp_path_factory.mktemp('run')
  assert train(experiment, folder) == 0
  return folder


def table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_evaluate_writes_table_summary_and_sheet(run, folder, tmp_path, capsys):
  output = tmp_path / 'eval'
  assert jaxsr('evaluate', '--checkpoint', run, '--data', folder, '--output', output) == 0
  rows = table(output / 'per_image.csv')
  assert [row['file'] for row in rows] == ['a.png', 'b.png', 'd.tif', 'deeper/c.png']
  assert set(PER_IMAGE.split()) <= rows[0].keys()
  summary = json.loads((output / 'summary.json').read_text())
  assert set(SUMMARY.split()) <= summary.keys()
  psnr = np.array([float(row['psnr']) for row in rows])
  assert summary['n'] == 4 and summary['checkpoint_step'] == 2 and summary['scale'] == 4
  assert summary['psnr'] == pytest.approx(psnr.mean())
  assert summary['psnr_sd'] == pytest.approx(psnr.std(ddof=1))
  pooled = -10 * np.log10(np.mean([float(row['mse']) for row in rows]))
  assert summary['psnr_pooled'] == pytest.approx(pooled)
  assert summary['parameters'] == 4 * 9 + 4 + 4 * 2 + 2 + 9 * 2 + 1
  assert image_files.read(output / 'contact_sheet.png', channels=3).shape[1] > 2000
  shown = capsys.readouterr().out
  assert 'worse than bicubic on 1 of 4 images' in shown and 'bicubic' in shown


def test_the_figures_are_those_of_what_upscale_writes(run, folder, tmp_path):
  """Do the protocol by hand with files: shrink, `jaxsr upscale`, compare."""
  small, large = tmp_path / 'small', tmp_path / 'large'
  small.mkdir()
  hr = image_files.read(folder / 'a.png')
  image_files.write(small / 'a.png', degradation.downscale(hr, 4))
  assert jaxsr('upscale', small, '--checkpoint', run, '--output', large) == 0
  error = (image_files.read(large / 'a.png').astype(float) - hr)[4:-4, 4:-4]
  psnr = 10 * np.log10(255**2 / np.square(error).mean())
  jaxsr('evaluate', '--checkpoint', run, '--data', folder / 'a.png', '--output', tmp_path / 'eval')
  (row,) = table(tmp_path / 'eval' / 'per_image.csv')
  assert float(row['psnr']) == pytest.approx(psnr, abs=1e-3)


@pytest.mark.parametrize('name', ['bicubic', 'lanczos'])
@pytest.mark.parametrize('scale', [2, 3, 8])
def test_interpolations_stand_in_every_table(folder, tmp_path, name, scale):
  options = ('--checkpoint', name, '--scale', scale, '--data', folder, '--output', tmp_path / 'e')
  assert jaxsr('evaluate', *options) == 0
  summary = json.loads((tmp_path / 'e' / 'summary.json').read_text())
  assert (summary['parameters'], summary['checkpoint_step'], summary['scale']) == (0, None, scale)
  assert abs(summary['psnr_gain']) < 1 and (name != 'bicubic' or summary['psnr_gain'] == 0)


def test_upscale_keeps_names_tree_depth_and_range(run, folder, tmp_path):
  deep = phantom(9, 0, size=64, bits=16)[..., None]
  image_files.write(folder / 'deeper' / 'deep film.png', deep)
  shutil.copy(folder / 'a.png', folder / 'deeper' / 'a.png')
  assert jaxsr('upscale', folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out') == 0
  for path in image_files.find(folder):
    before, after = (
      image_files.read(path),
      image_files.read(tmp_path / 'out' / path.relative_to(folder)),
    )
    assert after.dtype == before.dtype
    assert after.shape == (4 * before.shape[0], 4 * before.shape[1], 1)
    assert abs(float(after.mean()) - float(before.mean())) < 0.01 * np.iinfo(before.dtype).max
  after = image_files.read(tmp_path / 'out' / 'deeper' / 'deep film.png')
  expected = degradation.upscale(deep, 4)
  assert np.abs(after.astype(int) - expected).max() <= 1
  assert len(np.unique(after)) > 2000


def test_films_are_written_while_others_are_enlarged(folder, tmp_path, monkeypatch):
  """Packing a PNG takes longer than a small network does."""
  both_write, original = threading.Barrier(2, timeout=60), image_files.write

  def write(*arguments, **options):
    both_write.wait()
    original(*arguments, **options)

  monkeypatch.setattr(image_files, 'write', write)
  assert jaxsr('upscale', folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out') == 0
  assert len(image_files.find(tmp_path / 'out')) == 4


@pytest.mark.parametrize('fits', [0, 2])
@pytest.mark.parametrize('command', [('upscale', '--checkpoint=bicubic'), ('degrade',)])
def test_a_disk_that_is_full_ends_it(folder, tmp_path, monkeypatch, capsys, command, fits):
  original, lock, written = image_files.write, threading.Lock(), []

  def write(path, *arguments, **options):
    with lock:
      if len(written) == fits:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
      written.append(path)
    original(path, *arguments, **options)

  total = len(image_files.find(folder))
  name, *more = command
  with monkeypatch.context() as patch:
    patch.setattr(image_files, 'write', write)
    assert jaxsr(name, folder, *more, '--output', tmp_path / 'out') == 1
  (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
  assert ': No space left on device; ' in line
  assert f'; {total - fits} of {total} images are not made; free space and ' in line
  assert len([path for path in (tmp_path / 'out').rglob('*') if path.is_file()]) == fits
  if name == 'upscale':
    assert jaxsr(name, folder, *more, '--output', tmp_path / 'out') == 0


@pytest.mark.parametrize(
  'command', [('upscale', '--checkpoint=bicubic'), ('degrade', '--condition=clean', '--scale=2')]
)
def test_a_result_that_is_too_large_is_left_out_alone(tmp_path, command, capsys):
  """By `ulimit -f`, or on a file system with a largest size; a full disk concerns all files."""
  (films := tmp_path / 'films').mkdir()
  rng = np.random.default_rng(0)
  for name, size in (('a', 512), ('b', 32), ('c', 32)):
    image = rng.integers(0, 256, (size, size, 1), np.uint8)
    image_files.write(films / f'{name}.png', image)
  name, *options = command
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, limits[1]))
  try:
    code = jaxsr(name, films, *options, '--output', tmp_path / 'out')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  error = capsys.readouterr().err
  assert code == 1
  assert 'a.png: its result cannot be written as a.png (File too large); raise the limit' in error
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['b.png', 'c.png']


def test_pairs_are_prepared_while_others_are_measured(folder, tmp_path, monkeypatch):
  third_is_ready = threading.Event()
  prepare, measure = evaluator.Evaluator.pair, evaluator.Evaluator.measure

  def pair(self, index):
    if index == 2:
      third_is_ready.set()
    return prepare(self, index)

  def measured(self, *arguments):
    assert third_is_ready.wait(60)
    return measure(self, *arguments)

  monkeypatch.setattr(evaluator.Evaluator, 'pair', pair)
  monkeypatch.setattr(evaluator.Evaluator, 'measure', measured)
  options = ('--data', folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'eval')
  assert jaxsr('evaluate', *options) == 0


def test_upscale_takes_a_file_to_a_file_or_a_folder(run, folder, tmp_path):
  one = folder / 'a.png'
  assert jaxsr('upscale', one, '--checkpoint', run, '--output', tmp_path / 'sr.tif') == 0
  assert image_files.read(tmp_path / 'sr.tif').shape == (512, 512, 1)
  assert jaxsr('upscale', one, '--checkpoint', run, '--output', tmp_path / 'new') == 0
  np.testing.assert_array_equal(
    image_files.read(tmp_path / 'new' / 'a.png'), image_files.read(tmp_path / 'sr.tif')
  )


def test_upscale_takes_patterns_and_several_names(folder, tmp_path, capsys):
  options = ('--checkpoint', 'bicubic', '--output', tmp_path / 'out')
  assert jaxsr('upscale', folder / '[ab].png', folder / 'deeper', *options) == 0
  names = {path.name for path in image_files.find(folder)}
  assert {path.name for path in image_files.find(tmp_path / 'out')} <= names
  assert {'a.png', 'b.png'} <= {path.name for path in (tmp_path / 'out').iterdir()}
  capsys.readouterr()
  for wrong, reason in (((folder / '*.none',), 'matches no file'),):
    assert jaxsr('upscale', *wrong, *options) == 2
    assert reason in capsys.readouterr().err
  assert jaxsr('upscale', folder, *options[:2], '--output', tmp_path / 'sr.png') == 2
  assert 'give a folder for several images' in capsys.readouterr().err


def test_without_an_output_results_lie_beside_their_films(folder, capsys, monkeypatch):
  monkeypatch.chdir(folder)
  names = {path.name for path in folder.iterdir()}
  for _ in range(2):  # the second time the pattern finds what the first one made
    assert jaxsr('upscale', '*.*', 'deeper', '--checkpoint', 'bicubic') == 0
  made = {path.name for path in folder.iterdir()} - names
  assert made == {'a_x4.png', 'b_x4.png', 'd_x4.tif', 'deeper_x4'}
  assert (folder / 'deeper_x4' / 'c.png').exists()
  assert 'wrote 0 of 4 images to a_x4.png, b_x4.png, d_x4.tif and 1 more; 4 existed already' in (
    capsys.readouterr().out
  )
  shutil.copy('a.png', 'b_x4.png')
  assert jaxsr('upscale', 'b.png', '--checkpoint', 'bicubic') == 2
  assert 'b_x4.png: not written by jaxsr' in capsys.readouterr().err


def test_a_link_to_a_file_that_was_not_fetched_stays(folder, capsys):
  """git-annex and DVC leave such links where an image was not fetched."""
  link = folder / 'a_x4.png'
  link.symlink_to('/nowhere/a.png')
  for extra in ((), ('--overwrite',)):
    assert jaxsr('upscale', folder / 'a.png', '--checkpoint', 'bicubic', *extra) == 2
    assert 'a_x4.png: not written by jaxsr' in capsys.readouterr().err
  assert link.is_symlink()


def test_a_folder_beside_that_is_not_ours_stays(folder, capsys, monkeypatch):
  (folder / 'deeper_x4').mkdir()
  shutil.copy(folder / 'a.png', folder / 'deeper_x4' / 'c.png')
  before = (folder / 'deeper_x4' / 'c.png').read_bytes()
  for inputs in (['deeper'], ['deeper', 'deeper_x4'], ['d*r*']):
    assert jaxsr('upscale', *(folder / x for x in inputs), '--checkpoint', 'bicubic') == 2
    assert 'deeper_x4/c.png: not written by jaxsr' in capsys.readouterr().err
  assert (folder / 'deeper_x4' / 'c.png').read_bytes() == before
  (folder / 'deeper_x4' / 'c.png').unlink()
  monkeypatch.chdir(folder / 'deeper')
  for _ in range(2):
    assert jaxsr('upscale', '..', '--checkpoint', 'bicubic') == 0
  beside = folder.with_name(f'{folder.name}_x4')
  assert len(image_files.find(beside)) == len(image_files.find(folder)) == 4
  assert jaxsr('upscale', '/', '--checkpoint', 'bicubic') == 2
  assert 'has no folder beside it' in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jpg'])
def test_what_is_done_is_kept_and_says_where_it_comes_from(run, folder, tmp_path, capsys, suffix):
  target = tmp_path / f'sr{suffix}'
  command = ('upscale', folder / 'a.png', '--checkpoint', run, '--output', target)

  def again(*options):
    capsys.readouterr()
    assert jaxsr(*command, *options) == 0
    return capsys.readouterr().out

  assert 'wrote 1 of 1' in again()
  note = image_files.read_note(target)
  assert f'jaxsr {__version__}; srcnn x4; weights ' in note and 'not for diagnosis' in note
  assert 'wrote 0 of 1' in again() and 'wrote 1 of 1' in again('--overwrite')
  image_files.write(folder / 'a.png', 255 - image_files.read(folder / 'a.png'))
  assert 'wrote 1 of 1' in again('--overwrite')
  assert image_files.read_note(target) != note
  target.write_bytes(target.read_bytes()[:-100])
  assert 'wrote 1 of 1' in again()
  image_files.read(target)


def test_one_bad_image_is_named_and_the_exit_code_says_so(run, folder, tmp_path, capsys):
  (folder / 'empty.png').write_bytes(b'')
  rgb = np.zeros((64, 64, 3), np.uint8)
  rgb[..., 0] = 200
  image_files.write(folder / 'photo.png', rgb)
  evaluate = ('evaluate', '--checkpoint', run, '--data', folder, '--output', tmp_path / 'eval')
  assert jaxsr(*evaluate) == 1
  error = capsys.readouterr().err
  assert 'empty.png: is empty' in error and 'photo.png: is in colo' in error
  summary = json.loads((tmp_path / 'eval' / 'summary.json').read_text())
  assert summary['n'] == 4 and len(summary['failed']) == 2
  assert jaxsr('upscale', folder, '--checkpoint', run, '--output', tmp_path / 'out') == 1
  streams = capsys.readouterr()
  assert 'wrote 4 of 6' in streams.out and 'empty.png: is empty' in streams.err
  assert len(image_files.find(tmp_path / 'out')) == 4


def test_an_image_too_small_to_measure_is_named(folder, tmp_path, capsys):
  image_files.write(folder / 'stamp.png', np.zeros((20, 20, 1), np.uint8))
  options = ('--checkpoint', 'bicubic', '--data', folder, '--output', tmp_path)
  assert jaxsr('evaluate', *options) == 1
  assert 'is 20x20, smaller than the 30 pixels' in capsys.readouterr().err


def test_sizes_that_are_no_multiple_are_cut_and_that_is_said(folder, tmp_path, capsys):
  image_files.write(folder / 'odd.png', np.zeros((127, 126, 1), np.uint8))
  options = ('--checkpoint', 'bicubic', '--data', folder, '--output', tmp_path)
  assert jaxsr('evaluate', *options) == 0
  assert 'odd.png' in capsys.readouterr().err
  assert json.loads((tmp_path / 'summary.json').read_text())['n'] == 5


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('evaluate', '--checkpoint', 'gone', '--data', '{folder}'), "checkpoint 'gone' is neither"),
    (('evaluate', '--checkpoint', 'bicubic', '--data', '{folder}/gone'), 'no such file'),
    (('evaluate', '--checkpoint', 'bicubic', '--scale', '5', '--data', '{folder}'), 'scale 5'),
    (('evaluate', '--checkpoint', 'bicubic', '--data', '{empty}'), 'holds no image'),
    (('evaluate', '--checkpoint', '{empty}', '--data', '{folder}'), 'is neither the folder'),
  ],
)
def test_what_is_wrong_is_said_in_one_line(folder, tmp_path, capsys, arguments, message):
  empty = tmp_path / 'empty'
  empty.mkdir()
  filled = [a.format(folder=folder, empty=empty) for a in arguments]
  assert jaxsr(*filled, '--output', tmp_path / 'out') == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1 and message in lines[0]
  assert not (tmp_path / 'out').exists()


def test_an_input_is_never_overwritten(run, folder, capsys):
  before = (folder / 'a.png').read_bytes()
  for source, output in (
    (folder, folder),
    (folder, folder / 'out'),
    (folder / 'deeper', folder),
    (folder / 'a.png', folder),
    (folder / 'a.png', folder / 'a.png'),
  ):
    assert jaxsr('upscale', source, '--checkpoint', run, '--output', output) == 2
    assert 'could overwrite' in capsys.readouterr().err
  assert (folder / 'a.png').read_bytes() == before


def test_a_prediction_keeps_sixteen_bits_apart(run):
  """Two inputs that differ below 8 bit give outputs that differ."""
  upscale = load('bicubic').upscale
  low = np.full((16, 16, 1), 30_000, np.uint16)
  assert upscale(low).dtype == np.uint16
  np.testing.assert_array_equal(upscale(low), 30_000)
  np.testing.assert_array_equal(upscale(low + 1), 30_001)


def test_phantoms_can_be_written(tmp_path, capsys):
  options = ('--output', tmp_path, '--count', 2, '--size', 64, '--bits', 16)
  assert jaxsr('phantom', *options) == 0
  assert [image_files.read(p).dtype for p in image_files.find(tmp_path)] == [np.uint16] * 2
  assert jaxsr('phantom', '--output', tmp_path, '--size', 63) == 2
  assert 'error: ' in capsys.readouterr().err


def test_phantom_prints_what_it_wrote(tmp_path, capsys):
  assert jaxsr('phantom', '--output', tmp_path / 'p', '--count', 1, '--size', 64) == 0
  assert f'wrote 1 image of 64x64 pixels, 8 bit, to {tmp_path / "p"}' in capsys.readouterr().out


def test_what_is_no_file_is_named_and_the_rest_is_done(folder, tmp_path, capsys):
  """A pipe must not be waited for, and a broken link must not end the command."""
  os.mkfifo(folder / 'pipe.png')
  (folder / 'link.png').symlink_to('gone.png')
  (folder / 'circle.png').symlink_to('circle.png')
  command = ('upscale', folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out')
  assert jaxsr(*command) == 1
  streams = capsys.readouterr()
  assert 'pipe.png: is not a regular file' in streams.err
  assert 'link.png: is a link to a file that does not exist' in streams.err
  assert 'circle.png: ' in streams.err
  assert 'failed: 3 images' in streams.err and 'wrote 4 of 7 images' in streams.out


def test_control_characters_in_names_are_not_printed(folder, tmp_path, capsys):
  """A terminal would obey them."""
  for name in ('\x1b[31mred', '\x9b2J', 'two\nlines'):
    (folder / f'{name}.png').write_text('damaged')
    (folder / f'{name}.txt').touch()
  output = tmp_path / 'o\x1bt'
  assert jaxsr('upscale', folder, '--checkpoint', 'bicubic', '--output', output) == 1
  assert jaxsr('data', 'hash', folder, '--overwrite') == 1
  assert jaxsr('upscale', tmp_path / '\x1b[2J', '--checkpoint', 'bicubic') == 2
  told = capsys.readouterr()
  assert not {'\x1b', '\x9b'} & set(told.out + told.err)
  for text in ('\\x1b[31mred.png: is not', '\\x9b2J.png: is not', 'two\\nlines.png: is not'):
    assert text in told.err
  assert '/o\\x1bt' in told.out and '/\\x1b[2J: matches no file' in told.err


def test_a_limit_of_threads_is_named(monkeypatch, capsys):
  def start(*arguments, **options):
    raise RuntimeError("can't start new thread")

  monkeypatch.setattr('jaxsr.commands.phantom.run', start)
  assert jaxsr('phantom', '--output', 'x.png') == 1
  assert "error: can't start new thread: raise the limit of processes" in capsys.readouterr().err


@pytest.mark.skipif(
  os.geteuid() != 0 or shutil.which('setpriv') is None, reason='needs root and setpriv'
)
@pytest.mark.parametrize(('command', 'limit'), [('upscale', 12), ('evaluate', 12), ('train', 1)])
def test_a_limit_of_processes_ends_a_command_with_one_line(tmp_path, command, limit):
  """As another user, since the system does not limit root's."""
  output = tmp_path / 'output'
  arguments = {
    'upscale': (tmp_path, '--checkpoint', 'edsr_x4_tiny', '--output', output),
    'evaluate': ('--data', tmp_path, '--checkpoint', 'edsr_x4_tiny', '--output', output),
    'train': (f'--config={ROOT}/configs/quickstart.py:smoke', '--workdir', output),
  }[command]
  files = '+dac_read_search,+dac_override'  # of root's, which Python's folder may be
  user = ('setpriv', '--reuid=65534', '--clear-groups', '--inh-caps', f'-all,{files}')
  done = subprocess.run(
    [*user, '--ambient-caps', f'-all,{files}', 'prlimit', f'--nproc={limit}']
    + [sys.executable, '-m', 'jaxsr.cli', command, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 1 and not done.stdout and not output.exists()
  assert done.stderr.startswith("error: can't start new thread: raise the limit of processes")
  assert done.stderr.count('\n') == 1


def test_an_unreadable_file_is_named(folder, tmp_path, capsys, monkeypatch):
  def digest(path):
    if path.name == 'b.png':
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return 'f' * 16

  monkeypatch.setattr(provenance, 'digest', digest)
  command = ('upscale', folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out')
  assert jaxsr(*command) == 1
  assert 'b.png: cannot be read (Permission denied)' in capsys.readouterr().err
  assert len(image_files.find(tmp_path / 'out')) == 3


@pytest.mark.parametrize('options', [(), ('--overwrite',)])
def test_a_file_that_jaxsr_did_not_write_is_never_replaced(folder, tmp_path, capsys, options):
  target = tmp_path / 'out' / 'b.png'
  target.parent.mkdir()
  shutil.copy(folder / 'a.png', target)
  before = target.read_bytes()
  command = ('upscale', folder, '--checkpoint', 'bicubic', '--output', target.parent, *options)
  assert jaxsr(*command) == 2
  assert f'{target}: not written by jaxsr' in capsys.readouterr().err
  assert target.read_bytes() == before and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize('name', ['out.gif', 'out.nii', 'out.npy'])
def test_an_output_of_a_kind_that_is_not_written_is_refused(folder, tmp_path, capsys, name):
  command = ('upscale', folder / 'a.png', '--checkpoint', 'bicubic', '--output', tmp_path / name)
  assert jaxsr(*command) == 2
  assert 'cannot be written; choose one of .png' in capsys.readouterr().err
  assert not (tmp_path / name).exists()


def test_a_color_image_names_what_upscale_can_do(folder, tmp_path, capsys):
  image_files.write(folder / 'photo.png', np.full((64, 64, 3), (9, 99, 9), np.uint8))
  command = ('upscale', folder / 'photo.png', '--checkpoint', 'bicubic', '--output', tmp_path / 'o')
  assert jaxsr(*command) == 1
  assert 'convert it, or use a model with 3 channels' in capsys.readouterr().err


def test_a_tilde_is_the_home_folder_with_and_without_an_equals_sign(
  folder, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  place = '~/films'
  for i, arguments in enumerate(
    (
      (f'{place}/a.png', '--output=~/out0.png'),
      (f'{place}/a.p*', '--output', '~/out1.png'),
    )
  ):
    assert jaxsr('upscale', *arguments, '--checkpoint=bicubic') == 0
    assert (tmp_path / f'out{i}.png').is_file()
  assert jaxsr('phantom', '--output=~/p', '--count=1', '--size=64') == 0
  options = ('evaluate', '--data=~/films/a.png', '--output=~/eval', '--checkpoint=bicubic')
  assert jaxsr(*options) == 0
  assert (tmp_path / 'eval' / 'summary.json').is_file() and (tmp_path / 'p').is_dir()
  for arguments in (
    ('upscale', 'films/a.png', '--checkpoint=~/gone'),
    ('package', '~/gone', '--output=~/x'),
    ('import', '--model=edsr', '--weights=~/gone', '--output=~/x'),
    ('compress', '--config=~/gone', '--workdir=~/x'),
    ('data', 'verify', 'nih', '~/gone'),
    ('data', 'inspect', '~/gone'),
  ):
    capsys.readouterr()
    assert jaxsr(*arguments) == 2
    assert str(tmp_path / 'gone') in capsys.readouterr().err
  assert not (tmp_path / '~').exists()


def test_every_path_of_a_config_takes_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  flags = [f'--config.{name}=~/x' for name in PATHS if name != 'teacher.checkpoint']
  found = override(config.base(), [*flags, '--config.teacher.checkpoint=~/a,~/b'])
  values = {name: validate.get(found, name) for name in PATHS}
  expected = {name: f'{tmp_path}/x' for name in PATHS}
  assert values == expected | {'teacher.checkpoint': f'{tmp_path}/a,{tmp_path}/b'}


def test_a_path_in_a_config_file_takes_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  text = 'from jaxsr import config\n\ndef get_config(arg=None):\n  found = config.base()\n'
  (tmp_path / 'mine.py').write_text(f'{text}  found.data.train = "~/films"\n  return found\n')
  assert config.load('~/mine.py').data.train == f'{tmp_path}/films'


@pytest.mark.parametrize('name', ['rdn', 'rdn:smoke', 'configs/rdn.py', 'configs/rdn.py:smoke'])
def test_a_shipped_config_is_found_by_name_from_any_folder(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  found = config.load(name)
  assert found.model.name == 'rdn' and (found.steps < 100) == name.endswith(':smoke')


@pytest.mark.parametrize('name', ['rdm', 'elsewhere/rdn.py', 'rdn.txt', '/rdn.py'])
def test_another_name_is_no_shipped_config(name):
  with pytest.raises(UserError, match=f"--config={name}: no such file; did you mean 'rdn'"):
    config.load(name)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('trian',), "command 'trian' is unknown: did you mean 'train'?"),
    (('upscale', 'a.png', '--checkpont', 'x'), 'did you mean --checkpoint? see jaxsr upscale'),
    (('models', 'edsr', 'rdn'), "argument 'rdn' is not understood; see jaxsr models --help"),
    (('data', 'verify', 'nih', 'x', '--decod'), 'did you mean --decode?'),
    (('doctor', '--config.scale=2'), '--config.scale=2: `jaxsr doctor` has no config'),
  ],
)
def test_a_mistake_in_the_command_line_is_one_line(capsys, arguments, message):
  assert jaxsr(*arguments) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ') and message in line


def test_the_version_is_printed(capsys):
  for option in ('--version', '-V'):
    assert jaxsr(option) == 0
    assert capsys.readouterr().out == f'jaxsr {__version__}\n'


@pytest.mark.parametrize('shell', ['bash', 'zsh'])
def test_shell_completion_knows_every_command(capsys, shell):
  assert not jaxsr('--tyro-print-completion', shell)
  script = capsys.readouterr().out
  assert all(name in script for name in (*cli.COMMANDS, 'prepare', '--checkpoint'))


def test_help_lists_every_command_with_one_sentence(capsys):
  assert jaxsr('--help') == 0
  shown = capsys.readouterr().out
  for name, (kind, _) in cli.COMMANDS.items():
    assert f'• {name}' in shown and kind.__doc__.split()[0] in shown


def leaves():
  """Map the words of each command to its options."""
  found = {name: kind for name, (kind, _) in cli.COMMANDS.items() if name != 'data'}
  return found | {f'data {kind.__name__.lower()}': kind for kind in options.DATA_ACTIONS}


def test_every_command_runs_from_a_module_that_exists():
  for _, module in cli.COMMANDS.values():
    assert callable(import_module(f'jaxsr.commands.{module}').run)


POSITIONAL = ('inputs', 'checkpoint', 'checkpoints', 'dataset', 'name', 'records')


@pytest.mark.parametrize('name', sorted(leaves()))
def test_help_describes_every_option(capsys, name):
  assert jaxsr(*name.split(), '--help') == 0
  shown = ' '.join(capsys.readouterr().out.split())
  assert '{None}' not in shown and '[[' not in shown
  fields = {field.name.replace('_', '-') for field in dataclasses.fields(leaves()[name])}
  for field in fields - {*POSITIONAL, 'overrides', 'data'}:
    assert f'--{field}' in shown


def test_messages_name_options_of_the_command_that_prints_them():
  """In the module of a command, `--option` is one of that command's own options."""
  for name, (kind, module) in cli.COMMANDS.items():
    kinds = options.DATA_ACTIONS if name == 'data' else [kind]
    own = {field.name.replace('_', '-') for each in kinds for field in dataclasses.fields(each)}
    path = Path(cli.__file__).parent / 'commands' / f'{module}.py'
    text = path.read_text(encoding='utf-8')
    shown = re.sub(r'(pip|jaxsr) [^\n\']*', '', text)  # commands that a message proposes
    found = {each.replace('_', '-') for each in re.findall(r'--([a-z][a-z0-9_-]+)', shown)}
    assert found <= own | {'config', *OF_OTHERS}, (name, found - own)


OF_OTHERS = ('direct-num-workers', 'direct-running-mode', 'default-sdk-harness-log-level')  # Beam's


def test_commands_that_a_message_proposes_are_understood():
  """Every `jaxsr COMMAND --option ...` in a message of a command names existing options."""
  proposed = []
  for path in (Path(cli.__file__).parent / 'commands').rglob('*.py'):
    for name, rest in re.findall(r'jaxsr ([a-z]+) ([^\n\'`]*)', path.read_text(encoding='utf-8')):
      if name in cli.COMMANDS and name != 'data':
        proposed.append(name)
        known = {f'--{field.name}' for field in dataclasses.fields(cli.COMMANDS[name][0])}
        used = {
          each.replace('-', '_').replace('__', '--', 1) for each in re.findall(r'--[a-z-]+', rest)
        }
        assert used <= known | {'--help', '--config'}, (path.name, name, used)
  assert {'evaluate', 'train', 'upscale', 'models'} <= set(proposed)


def named_options(path):
  """Returns the options in the texts of a module, without those of other programs."""
  texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if is_text(node)]
  return {found for text in texts for found in re.findall(r'(?<![\w-])--([a-z][\w-]*)', text)}


def is_text(node):
  return isinstance(node, ast.Constant) and isinstance(node.value, str)


OF_OTHER_PROGRAMS = {  # of argparse, pip, npm, docker, TensorBoard, Beam and other repositories
  *('config', 'help', 'version', 'force-reinstall', 'ignore-scripts', 'pack-destination', 'silent'),
  *('shm-size', 'logdir', 'rgb_range', 'direct_num_workers', 'direct_running_mode'),
  'default_sdk_harness_log_level',
}


def test_every_option_that_a_message_names_exists():
  """And `--bits`, which the reader names, in every command that reads single images."""
  own = {
    name: {f.name for f in dataclasses.fields(kind)} for name, (kind, _) in cli.COMMANDS.items()
  }
  actions = {f.name for kind in options.DATA_ACTIONS for f in dataclasses.fields(kind)}
  known = actions.union(*own.values())
  package = Path(cli.__file__).parent
  for path in {*package.rglob('*.py')} - {package / 'cli.py'}:
    named = named_options(path) - OF_OTHER_PROGRAMS
    assert {name.replace('-', '_').removeprefix('no_') for name in named} <= known, path
  for name in ('upscale', 'evaluate', 'compare', 'calibrate', 'degrade', 'package'):
    assert 'bits' in own[name]
