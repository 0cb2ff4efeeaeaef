"""Names of films and networks whose bytes are not UTF-8, in every command that reads films."""

import os
from html import escape

import pytest

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.evaluation import conditions_report
from jaxsr.evaluation.html import figures
from jaxsr.trust import lesions
from runs import pack

FILM, NETWORK = os.fsdecode(b'f\xff.png'), os.fsdecode(b'k\xff\xfe')
MODEL = {'name': 'edsr', 'features': 8, 'blocks': 1, 'upsampler': 'direct', 'bicubic_skip': True}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  root = tmp_path_factory.mktemp('names')
  (root / 'films').mkdir()
  for i, name in enumerate(('ok.png', FILM)):
    image_files.write(root / 'films' / name, phantom(7, i, size=128)[..., None])
  pack(root / NETWORK, MODEL)
  return root


@pytest.fixture(scope='module', autouse=True)
def films(tmp_path_factory):
  """Some file systems refuse such names."""
  try:
    (tmp_path_factory.mktemp('probe') / FILM).touch()
  except OSError:
    pytest.skip('the file system has no such names')


@pytest.mark.parametrize(
  ('command', 'written'),
  [
    (['degrade', 'films'], {'ok.png', FILM}),
    (['calibrate', '--checkpoint', NETWORK, '--data', 'films'], {'calibration.json'}),
    (
      ['evaluate', '--checkpoint', NETWORK, '--data', 'films', '--conditions', 'jpeg75'],
      {'summary.json', 'report.html', 'conditions.png'},
    ),
    (['compare', NETWORK, 'lanczos', '--data', 'films'], {'compare.csv', 'report.html'}),
    (['upscale', 'films', '--checkpoint', NETWORK], {'ok.png', FILM}),
  ],
)
def test_every_command_takes_them(place, tmp_path, monkeypatch, capsys, command, written):
  monkeypatch.chdir(place)
  assert cli.run([*command, '--output', str(tmp_path / 'out')]) == 0
  assert written <= {path.name for path in (tmp_path / 'out').iterdir()}
  told = capsys.readouterr()
  assert (told.out + told.err).isascii()  # as bytes, here of the networks' names in tables
  page = tmp_path / 'out' / 'report.html'
  if page.exists():
    assert r'k\xff\xfe' in told.out
    text = page.read_text(encoding='utf-8')  # a browser would show no other bytes
    assert text.count(r'k\xff\xfe') > 5 and r'f\xff.png' in text


def test_figures_show_their_bytes():
  shown = r'k\xff\xfe'
  drawn = figures.distribution('PSNR', {NETWORK: [1.0, 2.0]})
  drawn += figures.intervals('gain', [NETWORK], {name: [(1.0, None)] for name in (NETWORK, 'b')})
  assert drawn.count(f'>{escape(shown)}</text>') == 3
  values = dict.fromkeys(('psnr', 'psnr_centre', 'ssim', 'ssim_centre'), 0.9)
  found = {'clean': dict.fromkeys(('bicubic', NETWORK, '$\\foo$'), values)}
  assert conditions_report.plot(found) and shown in conditions_report.table(found)


def test_random_numbers_are_of_the_bytes():
  first, second = (lesions.generator(name).integers(2**32) for name in (FILM, FILM[:-4]))
  assert first != second
