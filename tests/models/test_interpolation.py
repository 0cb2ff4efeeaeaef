"""Back-projection: another implementation, and its residual after downsampling."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsr import models, ops
from jaxsr.data import degradation, image_files
from jaxsr.errors import UserError
from jaxsr.models.interpolation import BackProjection


def project(lr, scale, iterations=3):
  network = BackProjection(scale, lr.shape[-1], iterations=iterations)
  return np.asarray(network.apply({}, jnp.asarray(lr)[None], train=False)[0])


def pillow(image, height, width):
  """Resize each channel as float, which Pillow does without rounding."""
  planes = [
    Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
      (width, height), Image.Resampling.BICUBIC
    )
    for c in range(image.shape[-1])
  ]
  return np.stack([np.asarray(plane) for plane in planes], -1)


def missed(lr, sr):
  """Returns the RMS difference between a downsampled output and the input."""
  return np.sqrt(np.mean((pillow(sr, *lr.shape[:2]) - lr) ** 2))


@pytest.fixture
def lr(film):
  return degradation.downscale(film, 4).astype(np.float32) / 255


@pytest.mark.parametrize('scale', models.SCALES)
@pytest.mark.parametrize('channels', [1, 3])
def test_it_equals_a_loop_around_pillow(rng, scale, channels):
  iterations = channels
  lr = rng.random((13, 17, channels), dtype=np.float32)
  size = (13 * scale, 17 * scale)
  expected = pillow(lr, *size)
  for _ in range(iterations):
    expected = expected + pillow(lr - pillow(expected, 13, 17), *size)
  np.testing.assert_allclose(project(lr, scale, iterations), expected, atol=1e-4)


@pytest.mark.parametrize('scale', models.SCALES)
def test_each_iteration_brings_it_nearer_to_the_input(lr, scale):
  rest = [missed(lr, pillow(lr, *(side * scale for side in lr.shape[:2])))]
  rest += [missed(lr, project(lr, scale, n)) for n in (1, 2, 3, 4, 5)]
  assert all(after < 0.95 * before for before, after in pairwise(rest))
  assert rest[-1] < 0.5 * rest[0]


@pytest.mark.parametrize('scale', models.SCALES)
def test_a_constant_stays(scale):
  values = np.array([0.0, 0.3, 1.0], np.float32)
  lr = np.broadcast_to(values, (9, 12, 3))
  np.testing.assert_allclose(project(lr, scale) - values, 0, atol=1e-6)


def test_channels_do_not_mix(rng):
  lr = rng.random((8, 9, 3), dtype=np.float32)
  apart = [project(lr[..., c : c + 1], 4) for c in range(3)]
  np.testing.assert_allclose(project(lr, 4), np.concatenate(apart, -1), atol=1e-6)


def test_it_is_linear_and_commutes_with_flips(rng):
  lr = rng.random((8, 9, 1), dtype=np.float32)
  np.testing.assert_allclose(project(2 * lr - 1, 3), 2 * project(lr, 3) - 1, atol=1e-5)
  np.testing.assert_allclose(project(lr[:, ::-1], 3), project(lr, 3)[:, ::-1], atol=1e-5)


def test_no_iteration_is_bicubic_and_is_not_built(lr):
  bicubic = ops.upsample(jnp.asarray(lr)[None], 4)[0]
  np.testing.assert_array_equal(project(lr, 4, iterations=0), bicubic)
  for iterations in (0, -1):
    with pytest.raises(UserError, match=f'iterations {iterations} is less than 1'):
      models.build('back_projection', {'iterations': iterations}, scale=4)


def psnr(image, hr):
  error = np.rint(np.clip(image, 0, 1) * 255) - hr
  return -10 * np.log10(np.mean((error[4:-4, 4:-4] / 255) ** 2))


def test_it_is_above_bicubic_on_a_phantom(film, lr):
  assert psnr(project(lr, 4), film) > psnr(pillow(lr, *film.shape[:2]), film) + 0.2


def test_it_is_above_bicubic_on_films(shared):
  for path in sorted((shared / 'nih' / 'val').glob('*.png'))[::10]:
    hr = image_files.read(path)
    lr = degradation.downscale(hr, 4).astype(np.float32) / 255
    assert psnr(project(lr, 4), hr) > psnr(pillow(lr, *hr.shape[:2]), hr) + 0.2
