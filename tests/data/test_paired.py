"""Paired films: names, sizes, registration, and crops that correspond, on host and device."""

import json
import re

import jax
import numpy as np
import pytest
from scipy.ndimage import fourier_shift
from skimage.registration import phase_cross_correlation

from jaxsr import cli, sharding
from jaxsr import config as configs
from jaxsr.config import compatibility, validate
from jaxsr.data import crops, degradation, fingerprint, image_files, pipeline, registration, sources
from jaxsr.data.image_cache import Films
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.training import run_log
from jaxsr.training.train import train
from runs import final, same

NAMES = ('a.png', 'deeper/b.tif', 'c.png')


def coordinates(side, factor):
  """An image whose pixels say where they lie: the row in the high byte, the column in the low."""
  row, column = np.indices((side, side)) // factor
  return (256 * row + column).astype(np.uint16)[..., None]


@pytest.fixture
def pair(tmp_path):
  """Two folders of pairs by other means than bicubic; the suffix of one differs."""
  for i, name in enumerate(NAMES):
    hr = phantom(5, i, size=128)[..., None]
    for root, image in (('hr', hr), ('lr', 255 - hr[1::4, 1::4])):
      path = (tmp_path / root / name).with_suffix('.png' if root == 'lr' else name[-4:])
      path.parent.mkdir(parents=True, exist_ok=True)
      image_files.write(path, image)
  return tmp_path / 'hr', tmp_path / 'lr'


def open_pairs(pair):
  return sources.Paired(*map(sources.Folder, pair), 4)


def set_pairs(config, pair):
  config.data.update(train=str(pair[0]), train_lr=str(pair[1]))
  config.data.update(val=str(pair[0]), val_lr=str(pair[1]), val_count=2)


def test_pairs_have_equal_names(pair):
  found = open_pairs(pair)
  assert found.names == list(NAMES[:1]) + ['c.png', 'deeper/b.tif'] and not found.rejected
  for i, name in enumerate(found.names):
    hr = phantom(5, NAMES.index(name), size=128)[..., None]
    np.testing.assert_array_equal(found[i], hr)
    np.testing.assert_array_equal(found.low_resolution(i), 255 - hr[1::4, 1::4])
  subset = sources.Subset(found, 2)
  lr = sources.low_resolution(subset, 1)
  np.testing.assert_array_equal(lr, found.low_resolution(subset.indices[1]))
  assert sources.is_paired(subset)
  assert sources.low_resolution(sources.Folder(pair[0]), 0) is None


def test_what_is_no_pair_is_named(pair):
  hr, lr = pair
  (lr / 'c.png').rename(lr / 'd.png')
  image_files.write(lr / 'a.png', np.zeros((31, 32, 1), np.uint8))
  for suffix in ('.tif', '.jpg'):
    image_files.write(hr / f'e{suffix}', np.zeros((64, 64, 1), np.uint8))
  image_files.write(lr / 'e.png', np.zeros((16, 16, 1), np.uint8))
  found = open_pairs(pair)
  assert found.names == ['deeper/b.tif', 'e.jpg']
  texts = [str(error).replace(str(hr.parent), '') for error in found.rejected]
  assert texts == [
    '/hr/a.png: is 128x128, and its low-resolution image 32x31: not 4 times as large',
    '/hr/c.png: has no low-resolution image of its name in /lr',
    '/hr/e.tif: has the low-resolution image of e.jpg',
    '/lr/d.png: has no image of its name in /hr',
  ]
  with pytest.raises(UserError, match='have no pair'):
    sources.Paired(sources.Folder(hr / 'c.png'), sources.Folder(lr / 'd.png'), 4)


def test_a_pair_of_which_one_file_is_damaged_is_named_so(pair):
  hr, lr = pair
  for damaged in (lr / 'c.png', hr / 'a.png'):
    damaged.write_bytes(damaged.read_bytes()[:100])
  found = open_pairs(pair)
  assert found.names == ['deeper/b.tif']
  texts = {str(error).replace(str(hr.parent), '') for error in found.rejected}
  assert '/hr/c.png: has a low-resolution image in /lr that cannot be used' in texts
  assert '/lr/a.png: has an image in /hr that cannot be used' in texts
  assert len(texts) == 4


def test_crops_correspond_exactly(tmp_path):
  source = sources.Phantoms(seed=0, start=0, count=1, size=128, bits=16)
  films = Films(source, scale=4, capacity=2**30)
  hr, lr = coordinates(128, 4), coordinates(32, 1)
  films._keep(0, crops.make_film(hr, 4, lr))
  windows = crops.Windows(seed=3, patch=8, margin=2, by_error=0.5)
  dataset = pipeline.batches(films, windows, batch_size=16)
  batch = dataset[7]
  np.testing.assert_array_equal(batch['hr'][:, ::4, ::4], batch['lr'])
  assert len(np.unique(batch['lr'][:, 0, 0])) > 8


@pytest.mark.parametrize('cache', ['host', 'device'])
def test_batches_hold_the_given_low_resolution(pair, cache):
  config = configs.base()
  set_pairs(config, pair)
  config.data.update(patch=8, margin=2, threads=1, cache=cache)
  config.batch_size = 8
  loader = pipeline.make_loader(config, sources.training(config), sharding.make_mesh(1))
  found = []
  for start in (3, 3):
    batches = loader.batches(start)
    batch = jax.jit(loader.to_batch)(next(batches), loader.device_arrays)
    batches.close()
    found.append(jax.device_get(batch))
  np.testing.assert_array_equal(found[0]['lr'], found[1]['lr'])
  hr, lr = (np.rint(255 * found[0][name]) for name in ('hr', 'lr'))
  flips = [hr[:, i::4, j::4] for i in (1, 2) for j in (1, 2)]  # crops are turned
  equal = [[np.array_equal(255 - x, y) for x, y in zip(each, lr, strict=True)] for each in flips]
  assert np.any(equal, axis=0).all()


@pytest.mark.slow
def test_a_run_of_pairs_resumes_bit_identically(pair, tmp_path, tiny, capsys):
  set_pairs(tiny, pair)
  assert train(tiny, tmp_path / 'once') == 0
  out = capsys.readouterr().out
  assert 'training: registration of 3 pairs' in out and 'validation: registration of' in out
  short = configs.copy(tiny)
  short.steps = 2
  train(short, tmp_path / 'twice')
  with pytest.MonkeyPatch.context() as patch:  # a shorter run has another cosine
    patch.setattr(run_log, 'report_sources', lambda *args: None)
    assert train(tiny, tmp_path / 'again') == 0
  assert same(final(tiny, tmp_path / 'once'), final(tiny, tmp_path / 'again'))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'train_lr': 'lr'}, 'needs images or records as config.data.train'),
    ({'val_lr': 'lr'}, 'needs images or records as config.data.val'),
    ({'train': 'hr', 'train_lr': 'lr', 'edges': 0.5}, 'cannot be combined'),
  ],
)
def test_settings_that_contradict_are_named(tiny, settings, message):
  tiny.data.update(settings)
  with pytest.raises(UserError, match=message):
    validate.check(tiny)


def test_older_runs_have_no_pairs(tiny):
  new = configs.to_dict(tiny)
  old = json.loads(json.dumps(new))
  for name in ('train_lr', 'val_lr'):
    del old['data'][name]
  assert not compatibility.check_change(old, new, allowed=False)


@pytest.mark.parametrize('wanted', [(0.0, 0.0), (0.4, -0.3), (-7.62, 3.3), (0.0, 12.5)])
def test_the_shift_is_that_of_scikit_image(wanted):
  image = degradation.resize(phantom(3, 0, size=512)[..., None], 128, 128)[..., 0].astype(float)
  moved = np.fft.ifft2(fourier_shift(np.fft.fft2(image), wanted)).real
  moved += np.random.default_rng(0).normal(0, 1, image.shape)
  found = registration.shift(moved, image)
  np.testing.assert_allclose(found, wanted, atol=0.1)
  other, _, _ = phase_cross_correlation(image, moved, upsample_factor=50, normalization=None)
  np.testing.assert_allclose(found, -other, atol=0.25)


def test_a_shifted_pair_is_named(pair):
  hr = image_files.read(pair[0] / 'a.png')
  image_files.write(pair[1] / 'a.png', np.roll(degradation.downscale(hr, 4), 2, axis=1))
  for name in ('c.png', 'deeper/b.png'):
    full = image_files.read((pair[0] / name).with_suffix('.tif' if 'b' in name else '.png'))
    image_files.write(pair[1] / name, degradation.downscale(full, 4))
  text = registration.describe(open_pairs(pair))
  assert text.startswith('registration of 3 pairs: 1 shifted by more than 0.25')
  size = float(re.search(r'at most ([0-9.]+) low', text)[1])
  assert size == pytest.approx(2, abs=0.1) and '(a.png); shifts are not corrected' in text


def test_the_fingerprint_sees_the_low_resolution(pair):
  before = fingerprint.of(open_pairs(pair))
  assert fingerprint.compare(before, fingerprint.of(open_pairs(pair))) == ''
  image_files.write(pair[1] / 'c.png', np.zeros((32, 32, 1), np.uint8))
  text = fingerprint.compare(before, fingerprint.of(open_pairs(pair)))
  assert text == 'low resolution: the content of c.png has changed'


def test_evaluation_measures_the_given_pairs(pair, tmp_path, capsys):
  options = ['--data', str(pair[0]), '--output', str(tmp_path / 'eval'), '--checkpoint', 'bicubic']
  (pair[1] / 'c.png').unlink()
  assert cli.run(['evaluate', *options, '--lr', str(pair[1])]) == 1
  out = capsys.readouterr()
  assert 'registration of 2 pairs' in out.err
  assert f'c.png: has no low-resolution image of its name in {pair[1]}' in out.err
  summary = json.loads((tmp_path / 'eval/summary.json').read_text())
  wanted = []
  for name in ('a.png', 'deeper/b.tif'):
    hr = image_files.read(pair[0] / name).astype(float)
    lr = image_files.read((pair[1] / name).with_suffix('.png'))
    error = (degradation.upscale(lr, 4) - hr)[4:-4, 4:-4] / 255
    wanted.append(-10 * np.log10(np.mean(error**2)))
  assert summary['psnr'] == pytest.approx(np.mean(wanted), abs=1e-3) and summary['lr'] == 'lr'
  assert cli.run(['evaluate', *options, '--lr', str(pair[1]), '--conditions', 'all']) == 2
  assert 'no conditions' in capsys.readouterr().err


@pytest.mark.parametrize('inside', ['.', 'eval'])
def test_results_do_not_lie_among_the_low_resolutions(pair, capsys, inside):
  options = ['--data', str(pair[0]), '--lr', str(pair[1]), '--checkpoint', 'bicubic']
  before = sorted(pair[1].rglob('*'))
  assert cli.run(['evaluate', *options, '--output', str(pair[1] / inside)]) == 2
  assert f'lies in the data {pair[1]}' in capsys.readouterr().err
  assert sorted(pair[1].rglob('*')) == before
