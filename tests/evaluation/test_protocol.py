import numpy as np
import pytest
from PIL import Image

from jaxsr.data import degradation, sources
from jaxsr.evaluation import protocol
from jaxsr.evaluation.evaluator import Evaluator, summarize
from jaxsr.models import build


def bicubic(folder, *, scale, name, channels):
  source = sources.Folder(folder, channels=channels)
  evaluator = Evaluator(build('bicubic', scale=scale), source, scale=scale, protocol=name)
  return summarize([row for row, _ in evaluator.measure_all({})])


@pytest.mark.slow
def test_bicubic_on_real_films_gives_the_protocols_figures(shared):
  found = bicubic(shared / 'nih' / 'val', scale=4, name='xray', channels=1)
  assert found['n'] == 40
  assert found['psnr'] == pytest.approx(39.183, abs=5e-4)
  assert found['ssim'] == pytest.approx(0.9622, abs=5e-5)
  assert found['psnr_centre'] == pytest.approx(42.002, abs=5e-4)
  assert found['ssim_centre'] == pytest.approx(0.9587, abs=5e-5)


@pytest.mark.parametrize(
  ('scale', 'psnr', 'ssim'), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_on_set5_gives_the_published_figures(shared, scale, psnr, ssim):
  found = bicubic(shared / 'reference' / 'set5', scale=scale, name='luma', channels=3)
  assert found['psnr'] == pytest.approx(psnr, abs=0.006)
  assert found['ssim'] == pytest.approx(ssim, abs=6e-5)


@pytest.mark.parametrize('image', ['bird', 'head'])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_imresize_equals_matlab(shared, image, scale):
  data = np.load(shared / 'reference' / 'matlab_imresize.npz')
  gt, low, back = (data[f'{image}_x{scale}_{kind}'][..., None] for kind in ('gt', 'l', 'b'))
  np.testing.assert_allclose(degradation.imresize(gt, *low.shape[:2]), low, atol=1e-10)
  np.testing.assert_allclose(degradation.imresize(low, *back.shape[:2]), back, atol=1e-10)


def test_imresize_keeps_what_a_resize_must():
  ramp = np.linspace(0, 1, 48)[:, None, None] * np.ones((1, 40, 1))
  assert np.ptp(degradation.imresize(np.full((48, 40, 1), 0.3), 12, 10)) < 1e-12
  half = degradation.imresize(ramp, 24, 20)
  np.testing.assert_allclose(
    half[3:-3, 0, 0], ramp.reshape(24, 2, 40)[3:-3, :, 0].mean(1), atol=1e-12
  )


def test_xray_rounds_to_the_depth_of_the_image(film):
  for image, levels in ((film, 255), (film.astype(np.uint16) * 257, 65535)):
    pair = protocol.xray(image, 4)
    assert pair.levels == levels
    assert pair.lr.shape == (32, 32, 1)
    for x in (pair.lr, pair.bicubic, pair.hr):
      steps = x.astype(np.float64) * levels
      np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)
  expected = Image.fromarray(film[..., 0]).resize((32, 32), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(protocol.xray(film, 4).lr[..., 0] * 255, np.asarray(expected))


def test_cut_leaves_a_multiple_of_the_scale(film):
  assert degradation.cut(film[:127, :121], 3).shape == (126, 120, 1)


def test_luminance_is_that_of_the_standard():
  colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
  np.testing.assert_array_equal(protocol.luminance(colors)[0, :, 0], [16, 235, 81, 145, 41])
