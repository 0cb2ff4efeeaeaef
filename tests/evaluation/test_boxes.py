import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxsr import metrics
from jaxsr.data.nih.metadata import Box
from jaxsr.evaluation import boxes as regions
from jaxsr.evaluation.plots import Example

NAME = '00000013_019.png'


@pytest.fixture
def example(rng):
  """Make an example of 112x128 pixels, whose bicubic is worse than its SR.

  Its contrast is high, so that single windows are exact in float32, too.
  """
  hr = rng.uniform(0, 1, (112, 128, 1)).astype(np.float32)
  noisy = [hr + rng.normal(0, s, hr.shape).astype(np.float32) for s in (0.02, 0.06)]
  sr, bicubic = (np.clip(x, 0, 1) for x in noisy)
  return Example('title', hr[::4, ::4], bicubic, sr, hr)


def box(x, y, width, height, finding='Mass', name=NAME):
  return Box(name, finding, x, y, width, height)


def reference_ssim(a, b):
  options = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  a, b = (x[..., 0].astype(np.float64) for x in (a, b))
  return structural_similarity(a, b, data_range=1.0, **options)


BOXES = {  # x, y, width, height, and what is cut out of the 112x128 pixels
  'inside': ((20, 30, 41, 25), np.s_[30:55, 20:61]),
  'rounded': ((19.6, 30.4, 41.0, 24.8), np.s_[30:55, 20:61]),
  'whole': ((0, 0, 128, 112), np.s_[:, :]),
  'smallest': ((50, 60, 11, 11), np.s_[60:71, 50:61]),
  'over the corner': ((-9.5, -20, 40, 50), np.s_[0:30, 0:30]),
  'over the end': ((100, 90, 500, 500), np.s_[90:112, 100:128]),
  'over all sides': ((-5, -5, 999, 999), np.s_[:, :]),
}


@pytest.mark.parametrize('kind', BOXES)
def test_figures_in_a_box_are_those_of_the_crop(example, kind):
  place, window = BOXES[kind]
  (row,) = regions.measure(example, [box(*place)])
  hr = example.hr[window]
  for prefix, image in (('', example.sr), ('bicubic_', example.bicubic)):
    wanted = -10 * np.log10(np.square(image[window].astype(np.float64) - hr).mean())
    assert row[f'{prefix}psnr'] == pytest.approx(wanted, abs=1e-9)
    assert row[f'{prefix}ssim'] == pytest.approx(reference_ssim(image[window], hr), abs=1e-5)
  assert row['psnr'] > row['bicubic_psnr']
  assert row['ssim'] > row['bicubic_ssim']
  assert (row['height'], row['width']) == hr.shape[:2]
  assert (row['y'], row['x']) == tuple(s.start or 0 for s in window)
  assert (row['file'], row['finding'], row['patient']) == (NAME, 'Mass', '00000013')


def test_the_map_over_a_box_averages_to_the_ssim_of_the_crop(rng):
  a = rng.uniform(0, 1, (2, 40, 50, 3))
  b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)
  a, b = (jnp.asarray(x, jnp.float32) for x in (a, b))
  found, ssim = jax.jit(metrics.ssim_map)(a, b), jax.jit(metrics.ssim)
  assert found.shape == (2, 30, 40)
  for top, bottom, left, right in ((0, 40, 0, 50), (5, 35, 20, 45)):
    wanted = ssim(a[:, top:bottom, left:right], b[:, top:bottom, left:right])
    windows = np.asarray(found)[:, top : bottom - 10, left : right - 10]
    np.testing.assert_allclose(windows.mean((1, 2)), wanted, rtol=0, atol=1e-5)


def test_a_box_tells_what_differs_inside_it_from_what_differs_outside(example):
  sr = example.hr.copy()
  sr[40:60, 50:70] = 1 - sr[40:60, 50:70]
  changed = example._replace(sr=sr)
  clean, hit = regions.measure(changed, [box(80, 40, 30, 30), box(50, 40, 20, 20)])
  assert clean['psnr'] == metrics.EQUAL
  assert clean['ssim'] == pytest.approx(1, abs=1e-6)
  assert hit['psnr'] < 20
  assert hit['ssim'] < 0.5


@pytest.mark.parametrize(
  'place',
  [(20, 30, 10, 40), (20, 30, 40, 10), (118, 20, 40, 40), (-30, 20, 40, 40), (200, 20, 9, 9)],
)
def test_a_box_below_the_window_of_ssim_is_left_out(example, place):
  found = regions.measure(example, [box(*place), box(20, 30, 11, 11, 'Nodule')])
  assert [row['finding'] for row in found] == ['Nodule']


def test_boxes_are_averaged_by_finding_and_together(example):
  places = ((20, 30, 40, 40), (60, 10, 30, 30), (10, 60, 20, 25))
  named = (('Mass', NAME), ('Mass', '00000014_000.png'), ('Nodule', '00000014_001.png'))
  boxes = [box(*place, *pair) for place, pair in zip(places, named, strict=True)]
  rows = regions.measure(example, boxes)
  found = regions.summarize(rows)
  assert list(found) == ['Mass', 'Nodule', 'all']
  assert [(x['n'], x['patients']) for x in found.values()] == [(2, 2), (1, 1), (3, 2)]
  for name in ('psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim'):
    assert found['Mass'][name] == pytest.approx((rows[0][name] + rows[1][name]) / 2)
    assert found['all'][name] == pytest.approx(np.mean([row[name] for row in rows]))
  low, high = found['all']['psnr_gain_interval']
  assert low <= found['all']['psnr_gain'] <= high
  assert found['Nodule']['psnr_interval'] is None


def test_boxes_are_found_by_the_name_of_their_image():
  one, two, three = box(1, 2, 3, 4), box(5, 6, 7, 8, 'Nodule'), box(1, 2, 3, 4, name='other.png')
  found = regions.by_image([one, three, two])
  assert dict(found) == {NAME: [one, two], 'other.png': [three]}
