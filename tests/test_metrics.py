import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxsr import metrics


@pytest.fixture
def pair(film, rng):
  noisy = film.astype(np.float32) + rng.normal(0, 6, film.shape)
  return film / np.float32(255), np.rint(np.clip(noisy, 0, 255)).astype(np.float32) / 255


def reference_ssim(a, b):
  return structural_similarity(
    a.astype(np.float64),
    b.astype(np.float64),
    data_range=1.0,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
  )


def test_figures_equal_scikit_image(pair):
  a, b = pair
  found = metrics.measure(jnp.asarray(a)[None], jnp.asarray(b)[None], border=4)
  found = {name: float(value[0]) for name, value in found.items()}
  windows = {'': np.s_[4:-4, 4:-4, 0], '_centre': np.s_[16:-16, 16:-16, 0]}
  for name, window in windows.items():
    x, y = a[window], b[window]
    expected = peak_signal_noise_ratio(x.astype(float), y.astype(float), data_range=1.0)
    assert metrics.psnr(found[f'mse{name}']) == pytest.approx(expected, abs=1e-4)
    assert found[f'ssim{name}'] == pytest.approx(
      reference_ssim(x, y), abs=1e-5
    )  # of the four digits that tables show
  expected = peak_signal_noise_ratio(a.astype(float), b.astype(float), data_range=1.0)
  assert metrics.psnr(found['mse_uncropped']) == pytest.approx(expected, abs=1e-4)


def test_equal_images_get_a_number(pair):
  image = jnp.asarray(pair[0])[None]
  found = metrics.measure(image, image, border=4)
  assert metrics.psnr(float(found['mse'][0])) == metrics.EQUAL
  assert found['ssim'][0] == pytest.approx(1.0, abs=1e-6)


def test_quantise_rounds_and_clips():
  x = jnp.array([-0.5, 0.0, 0.6 / 255, 254.4 / 255, 7.0]).reshape(1, 5, 1, 1)
  np.testing.assert_allclose(metrics.quantise(x, 255).ravel() * 255, [0, 0, 1, 254, 255], atol=1e-4)


def test_small_images_are_refused():
  image = jnp.zeros((1, 10, 30, 1))
  with pytest.raises(ValueError, match='at least 11'):
    metrics.ssim(image, image)


def test_centre_is_three_quarters():
  assert metrics.centre(jnp.zeros((1, 1024, 800, 1))).shape == (1, 768, 600, 1)
