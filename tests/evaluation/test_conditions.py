"""Figures by condition: against scikit-image and Pillow, resumed, and shown."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means

import jaxsr
from jaxsr import cli
from jaxsr.data import acquisition, image_files, quality, sources
from jaxsr.data.acquisition.film import acquire
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.evaluation import conditions, conditions_report

NAMES = ['low_dose', 'jpeg75']


@pytest.fixture(scope='module')
def films(tmp_path_factory):
  root = tmp_path_factory.mktemp('films')
  for i, name in enumerate('ab'):
    image_files.write(root / f'{name}.png', phantom(5, i, size=128)[..., None])
  return root


def resized(image, side):
  return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def psnr(a, b):
  return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))


def measure(methods, films, folder=None):
  source = sources.Folder(films)
  options = {'scale': 4, 'images': range(len(source)), 'folder': folder}
  return conditions.measure(methods, source, NAMES, **options)


def test_figures_are_those_of_other_libraries(films):
  found = measure(conditions.methods([jaxsr.load('bicubic')]), films)
  for condition in NAMES:
    rows = {conditions.BICUBIC: [], conditions.DENOISER: []}
    for name in ('a.png', 'b.png'):
      hr = image_files.read(films / name)
      how, rng = acquisition.CONDITIONS[condition], acquisition.generator(name, condition)
      lr = acquire(hr, how, rng, scale=4)[..., 0]
      unit = (lr / 255).astype(np.float32)
      sigma = quality.noise(unit)
      kept = denoise_nl_means(unit, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
      clean = np.rint(255 * kept).astype(np.uint8)
      for method, small in ((conditions.BICUBIC, lr), (conditions.DENOISER, clean)):
        sr, hr2 = resized(small, 128), hr[..., 0]
        inner, center = np.s_[4:-4, 4:-4], np.s_[16:-16, 16:-16]
        options = {'gaussian_weights': True, 'use_sample_covariance': False, 'data_range': 255}
        _, ssim = structural_similarity(sr[inner], hr2[inner], full=True, **options)
        again = psnr(resized(sr, 32), lr)
        rows[method].append(
          [
            psnr(sr[inner], hr2[inner]),
            ssim[5:-5, 5:-5].mean(),
            psnr(sr[center], hr2[center]),
            again,
          ]
        )
    for method, expected in rows.items():
      row = found[condition][method]
      mine = [row[name] for name in ('psnr', 'ssim', 'psnr_centre', 'consistency')]
      np.testing.assert_allclose(mine, np.mean(expected, axis=0), atol=2e-3)
      assert row['n'] == 2
  gain = found['low_dose'][conditions.DENOISER]
  base = found['low_dose'][conditions.BICUBIC]
  assert gain['psnr_gain'] == pytest.approx(gain['psnr'] - base['psnr'], abs=1e-9)
  assert base['images_below_bicubic'] == 0


def counting(name, digest, fail_at=None):
  calls = []

  def upscale(pair):
    if len(calls) == fail_at:
      raise KeyboardInterrupt
    calls.append(pair)
    return pair.bicubic

  return conditions.Method(name, digest, upscale), calls


def test_an_interrupted_evaluation_continues(films, tmp_path):
  bicubic, _ = counting('bicubic', 'bicubic')
  broken, _ = counting('net', 'v1', fail_at=3)
  with pytest.raises(KeyboardInterrupt):
    measure([bicubic, broken], films, tmp_path)
  network, calls = counting('net', 'v1')
  found = measure([bicubic, network], films, tmp_path)
  assert len(calls) == 1, 'three of four figures were kept'
  again, calls = counting('net', 'v1')
  assert measure([bicubic, again], films, tmp_path) == found and not calls
  changed, calls = counting('net', 'v2')
  measure([bicubic, changed], films, tmp_path)
  assert len(calls) == 4, 'other weights are measured anew'
  rows = table(tmp_path / conditions.PER_IMAGE)
  assert len(rows) == 8 and [row['condition'] for row in rows[:4]] == [
    *NAMES[:1] * 2,
    *NAMES[1:] * 2,
  ]
  path = tmp_path / conditions.PER_IMAGE
  text = path.read_text()
  psnr = rows[1]['psnr']
  path.write_text(text.replace(psnr, psnr[:-1] + str((int(psnr[-1]) + 1) % 10), 1))
  again, calls = counting('net', 'v2')
  measure([bicubic, again], films, tmp_path)
  assert path.read_text() == text, 'another digit was silent'
  image_files.write(films / 'a.png', phantom(6, 0, size=128)[..., None])
  changed, calls = counting('net', 'v2')
  measure([bicubic, changed], films, tmp_path)
  assert len(calls) == 2, 'an image that changed is measured anew'


def test_the_command_writes_and_prints(films, tmp_path, capsys):
  options = ['--data', str(films / 'b.png'), '--output', str(tmp_path), '--checkpoint', 'lanczos']
  wanted = ['--conditions', 'clean,very_low_dose', '--beside', 'bicubic']
  assert cli.run(['evaluate', *options, *wanted]) == 0
  out = capsys.readouterr().out
  line = next(text for text in out.splitlines() if text.startswith('very_low_dose'))
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['conditions_version'] == acquisition.VERSION
  found = summary['conditions']['very_low_dose']
  assert list(found) == ['bicubic', conditions.DENOISER, 'lanczos']
  assert found['lanczos']['psnr'] < found['bicubic']['psnr'] and '!' in line
  clean = summary['conditions']['clean']['lanczos']
  assert clean['psnr'] == pytest.approx(summary['psnr'], abs=1e-4)
  assert clean['consistency'] == pytest.approx(summary['consistency'], abs=1e-3)
  rows = table(tmp_path / conditions_report.CSV)
  assert [(row['condition'], row['method']) for row in rows][2] == ('clean', 'lanczos')
  assert float(rows[2]['psnr']) == clean['psnr']
  with Image.open(tmp_path / conditions_report.PLOT) as picture:
    assert picture.width > 800
  assert cli.run(['evaluate', *options]) == 0
  assert not list(tmp_path.glob('conditions*'))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--conditions', 'lowdose'], "did you mean 'low_dose'"),
    (['--conditions', 'all', '--protocol', 'luma'], 'defined for the protocol xray'),
    (['--beside', 'lanczos'], 'by conditions only'),
    (['--conditions', 'all', '--beside', 'edsr_x4_tiny', 'edsr_x4_tiny'], 'two checkpoints are'),
    (['--conditions', 'all', '--beside', 'edsr_x2'], 'measure them separately'),
  ],
)
def test_mistakes_are_named(films, tmp_path, capsys, options, message):
  given = ['--data', str(films), '--output', str(tmp_path / 'eval'), '--checkpoint', 'bicubic']
  assert cli.run(['evaluate', *given, *options]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'eval/summary.json').exists()


def figures(psnr, ssim=0.9):
  names = ('psnr', 'psnr_centre'), ('ssim', 'ssim_centre')
  return {name: value for keys, value in zip(names, (psnr, ssim), strict=True) for name in keys}


def red(png):
  pixels = np.asarray(Image.open(io.BytesIO(png)).convert('RGB')).astype(int)
  return int((np.abs(pixels - (0xD0, 0, 0)).sum(-1) < 30).sum())


def test_a_network_below_bicubic_is_marked():
  of = {'bicubic': figures(30.0), conditions.DENOISER: figures(29.0), 'net': figures(31.0)}
  good = {'low_dose': of, 'clean': of}
  bad = {'low_dose': {**of, 'net': figures(29.99)}, 'clean': of}
  text = conditions_report.table(good, color=True)
  assert '!' not in text and '\033' not in text, 'a denoiser below bicubic is no network'
  line = conditions_report.table(bad, color=True).splitlines()[1]
  assert line.count('!') == 2 and '\033[31m' in line
  assert '\033' not in conditions_report.table(bad)
  assert red(conditions_report.plot(good)) == 0 and red(conditions_report.plot(bad)) > 100


def test_without_scikit_image_the_row_is_left_out(films, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'skimage.restoration', None)
  model = jaxsr.load('bicubic')
  found = jaxsr.evaluate(model, films, output=tmp_path / 'eval', conditions=['jpeg50'])
  assert list(found['conditions']['jpeg50']) == ['bicubic']
  assert 'needs scikit-image' in capsys.readouterr().err


def test_all_is_every_condition():
  assert conditions.choose('all') == [*acquisition.CONDITIONS]
  assert conditions.choose('jpeg50, clean,jpeg50') == ['jpeg50', 'clean']
  with pytest.raises(UserError, match='unknown'):
    conditions.choose('')
