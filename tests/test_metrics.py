import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxsr import metrics, ops
from jaxsr.data.phantom import phantom


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
  found = metrics.measure(jnp.asarray(a)[None], jnp.asarray(b)[None], scale=4)
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


@pytest.mark.parametrize(
  'shape', [(2, 11, 30, 1), (1, 40, 138, 3), (1, 24, 139, 1), (2, 20, 300, 2)]
)
def test_ssim_is_that_of_dm_pix(rng, shape):
  """On CPUs the blur is our own, in blocks of up to 128 columns."""
  a, b = (jnp.asarray(rng.random(shape), jnp.float32) for _ in range(2))
  b = 0.7 * a + 0.3 * b
  np.testing.assert_allclose(metrics.ssim(a, b), dm_pix.ssim(a, b), atol=1e-5)
  expected = dm_pix.ssim(a, b, return_map=True).mean(-1)
  np.testing.assert_allclose(metrics.ssim_map(a, b), expected, atol=1e-4)
  pulls = [jax.grad(lambda a, f=f: f(a, b).sum())(a) for f in (metrics.ssim, dm_pix.ssim)]
  np.testing.assert_allclose(*pulls, atol=1e-4 * jnp.abs(pulls[1]).max())


@pytest.mark.usefixtures('uncached')
def test_ssim_on_a_cpu_has_none_of_its_slow_convolutions():
  image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
  for find in (metrics.ssim, metrics.ssim_map):
    assert ' convolution(' not in jax.jit(find).lower(image, image).compile().as_text()


def test_equal_images_get_a_number(pair):
  image = jnp.asarray(pair[0])[None]
  found = metrics.measure(image, image, scale=4)
  assert metrics.psnr(float(found['mse'][0])) == metrics.EQUAL
  assert found['ssim'][0] == pytest.approx(1.0, abs=1e-6)


def test_small_images_are_refused():
  image = jnp.zeros((1, 10, 30, 1))
  with pytest.raises(ValueError, match='at least 11'):
    metrics.ssim(image, image)


def test_center_is_three_quarters():
  assert metrics.center(jnp.zeros((1, 1024, 800, 1))).shape == (1, 768, 600, 1)


def reference_ms_ssim(a, b):
  """Write Wang et al.'s five octaves with scikit-image's maps; a huge K1 leaves out luminance."""
  product = 1.0
  for i, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
    options = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
    options |= {'data_range': 1.0, 'full': True, 'K1': 0.01 if i == 4 else 1e8}
    _, full = structural_similarity(a, b, **options)
    product *= full[5:-5, 5:-5].mean() ** exponent
    a, b = (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
    a, b = (x.reshape(x.shape[0] // 2, 2, -1, 2).mean((1, 3)) for x in (a, b))
  return product


def test_ms_ssim_equals_scikit_image(rng):
  a = phantom(3, 0, size=256).astype(np.float64) / 255
  b = np.clip(a + rng.normal(0, 0.02, a.shape), 0, 1)
  found = metrics.ms_ssim(*(jnp.asarray(x, jnp.float32)[None, ..., None] for x in (a, b)))
  assert found[0] == pytest.approx(reference_ms_ssim(a, b), abs=1e-4)
  assert 0.5 < found[0] < 0.99


def test_ms_ssim_is_left_out_where_an_image_is_too_small(pair):
  image = jnp.asarray(pair[0])[None]
  assert 'ms_ssim' not in metrics.measure(image, image, scale=4)
  with pytest.raises(ValueError, match='at least 176'):
    metrics.ms_ssim(image, image)


def test_high_energy_is_what_lies_beyond_the_low_resolution():
  """A wave below its Nyquist frequency does not count, one beyond it does, with its amplitude."""
  y, x = np.mgrid[:128, :128].astype(np.float32)
  energy = lambda image: float(metrics.high_energy(jnp.asarray(image)[None, ..., None], scale=4)[0])
  low, high = 0.2 * np.sin(2 * np.pi * 0.08 * x), 0.1 * np.sin(2 * np.pi * (0.3 * x + 0.1 * y))
  assert energy(0.5 + low) < 1e-4 * energy(0.5 + high)
  assert energy(0.5 + low + high) == pytest.approx(energy(0.5 + high), rel=0.02)
  assert energy(0.5 + 2 * high) == pytest.approx(4 * energy(0.5 + high), rel=1e-3)
  window = np.outer(*(np.hanning(130)[1:-1],) * 2)
  assert energy(0.5 + high) == pytest.approx(((high * window) ** 2).sum(), rel=0.02)  # Parseval


def test_high_energy_tells_blur_from_detail():
  film = jnp.asarray(phantom(3, 0, size=256), jnp.float32)[None, ..., None] / 255
  lr = film.reshape(1, 64, 4, 64, 4, 1).mean((2, 4))
  ratio = metrics.high_energy(ops.upsample(lr, 4), scale=4) / metrics.high_energy(film, scale=4)
  assert ratio[0] < 0.3
