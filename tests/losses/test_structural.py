import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxsr.losses import structural


@pytest.fixture
def images(rng):
  return [rng.random((2, 16, 20, 3), dtype=np.float32) for _ in range(2)]


def test_total_variation_equals_numpy(images):
  sr = images[0]
  down, right = np.diff(sr, axis=1), np.diff(sr, axis=2)
  for term, size in ((structural.tv, np.abs), (structural.tv_squared, lambda d: 2 * d**2)):
    expected = size(down).mean((1, 2, 3)) + size(right).mean((1, 2, 3))
    np.testing.assert_allclose(term(jnp.asarray(sr)), expected, rtol=1e-5)


def test_squared_total_variation_is_that_of_the_public_code(images):
  """Twice (vertical sum / vertical count + horizontal sum / horizontal count) over the batch."""
  x = images[0].transpose(0, 3, 1, 2)
  batch, channels, height, width = x.shape
  vertical = ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum() / (channels * (height - 1) * width)
  horizontal = ((x[..., 1:] - x[..., :-1]) ** 2).sum() / (channels * height * (width - 1))
  found = structural.tv_squared(jnp.asarray(images[0])).mean()
  np.testing.assert_allclose(found, 2 * (vertical + horizontal) / batch, rtol=1e-5)


def test_gradient_equals_numpy(images):
  sr, hr = images
  error = [np.abs(np.diff(sr - hr, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)]
  found = structural.gradient(jnp.asarray(sr), jnp.asarray(hr))
  np.testing.assert_allclose(found, sum(error), rtol=1e-5)


def test_frequency_equals_numpy(images):
  sr, hr = images
  error = np.fft.rfft2((sr - hr).astype(np.float64), axes=(1, 2), norm='ortho')
  found = structural.frequency(jnp.asarray(sr), jnp.asarray(hr))
  expected = (np.abs(error.real) + np.abs(error.imag)).mean((1, 2, 3))
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_ssim_equals_scikit_image(images):
  sr, hr = images
  options = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  found = structural.ssim(jnp.asarray(sr), jnp.asarray(hr))
  for i in range(2):
    _, full = structural_similarity(
      sr[i], hr[i], data_range=1.0, channel_axis=2, full=True, **options
    )
    np.testing.assert_allclose(found[i], 1 - full[5:-5, 5:-5].mean(), rtol=1e-4)


def test_a_constant_has_no_variation_and_equal_images_no_error(images):
  flat, image = jnp.full((1, 16, 16, 1), 0.3), jnp.asarray(images[0])
  assert structural.tv(flat) == structural.tv_squared(flat) == 0
  for term in (structural.gradient, structural.frequency, structural.ssim):
    np.testing.assert_allclose(term(image, image), 0, atol=1e-6)


def test_frequency_forgives_what_repeats_and_not_what_is_confined():
  """Against `l1` of the same error; the docstring says so."""
  column = jnp.arange(32)
  waves = jnp.broadcast_to(0.1 * jnp.sin(2 * jnp.pi * column / 8), (32, 32))[None, ..., None]
  dot = jnp.zeros((1, 32, 32, 1)).at[0, 5, 7, 0].set(0.1)
  ratio = lambda error: float(structural.frequency(error, 0 * error)[0] / jnp.abs(error).mean())
  assert ratio(waves) < 0.1 < 10 < ratio(dot)
