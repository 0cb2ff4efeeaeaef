"""Estimates of noise and blockiness: against known noise, JPEG by Pillow, and their own limits."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from jaxsr.data import quality


@pytest.fixture(scope='module')
def smooth():
  """An image in levels of 255, without noise: shades, and a hard edge."""
  field = gaussian_filter(np.random.default_rng(1).standard_normal((256, 256)), 12)
  image = 128 + 60 * field / np.abs(field).max()
  image[100:, 40:60] += 30
  return image


def stored(image, dtype=np.uint8):
  return np.rint(np.clip(image, 0, 255) * (np.iinfo(dtype).max // 255)).astype(dtype)[..., None]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('sigma', [1.0, 3.0, 8.0])
def test_the_noise_is_the_standard_deviation(smooth, sigma, dtype):
  image = smooth + np.random.default_rng(0).normal(0, sigma, smooth.shape)
  found = quality.measure(stored(image, dtype), np.iinfo(dtype).max)
  rounding = 1 / 12 if dtype == np.uint8 else 0.0
  assert found.noise == pytest.approx(np.hypot(sigma, np.sqrt(rounding)), rel=0.04)
  assert found.blockiness < 0.25 * sigma


@pytest.mark.parametrize('start', [0, 3])
def test_jpeg_is_seen_on_any_grid(smooth, start):
  image = stored(smooth + np.random.default_rng(0).normal(0, 1.5, smooth.shape))
  assert quality.measure(image, 255).blockiness < 0.2
  found = []
  for level in (90, 75, 50):
    data = io.BytesIO()
    Image.fromarray(image[..., 0]).save(data, 'JPEG', quality=level)
    opened = np.asarray(Image.open(data))[start:, start:, None]
    found.append(quality.measure(opened, 255).blockiness)
  assert found == sorted(found) and found[1] > 0.25


@pytest.mark.parametrize('side', [48, 96, 256])
def test_small_images_have_no_blocks_by_chance(side):
  rng = np.random.default_rng(0)
  found = [
    quality.measure(stored(rng.normal(128, 2.0, (side, side))), 255).blockiness for _ in range(20)
  ]
  assert max(found) < 0.2


def test_what_cannot_be_judged_is_zero():
  assert quality.measure(np.zeros((64, 64, 1), np.uint8), 255) == (0, 0)
  assert quality.measure(np.full((20, 300, 1), 99, np.uint8), 255) == (0, 0)


def test_large_images_are_judged_by_their_middle(smooth):
  noisy = stored(smooth + np.random.default_rng(0).normal(0, 3.0, smooth.shape))
  film = np.full((2304, 2304, 1), 128, np.uint8)
  film[128:-128, 128:-128] = np.tile(noisy, (8, 8, 1))
  assert quality.measure(film, 255).noise == pytest.approx(3, rel=0.1)
