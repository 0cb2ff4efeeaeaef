"""Acquisition: formulas of the physics, Pillow, and the jitted crops against the whole film."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsr import sharding
from jaxsr.config import base
from jaxsr.data import degradation, pipeline, sources
from jaxsr.data.acquisition import (
  ATTENUATION,
  CONDITIONS,
  Acquisition,
  blur_transfer,
  crops,
  film,
  generator,
  nyquist_transfer,
  quanta_in_air,
)
from jaxsr.data.phantom import phantom

SCALE = 4
INNER = np.s_[6:-6, 6:-6]  # where no kernel sees the border


@pytest.fixture(scope='module')
def hr():
  return phantom(3, 0, size=256)[..., None]


def acquire_condition(hr, condition, *, name, scale):
  rng = generator(name, condition)
  return film.acquire(hr, CONDITIONS[condition], rng, scale=scale)


def flat(v, size=512):
  return np.full((size, size, 1), round(65535 * v), np.uint16)


@pytest.mark.parametrize('v', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('dose', [1.0, 1 / 16])
def test_the_noise_of_a_flat_field_follows_the_counts(v, dose):
  how = Acquisition(kernel='detector', dose=dose)
  lr = film.acquire(flat(v), how, np.random.default_rng(0), scale=SCALE) / 65535
  assert lr.size >= 10_000
  mean = quanta_in_air(dose, SCALE) * np.exp(-ATTENUATION * v)
  assert lr.mean() == pytest.approx(v, abs=2e-3)
  assert lr.var() == pytest.approx(1 / (ATTENUATION**2 * mean), rel=0.03)


def test_electronic_noise_adds_to_the_counts():
  how = Acquisition(kernel='detector', dose=1 / 16, electronic=100.0)
  lr = film.acquire(flat(0.5), how, np.random.default_rng(0), scale=SCALE) / 65535
  mean = quanta_in_air(1 / 16, SCALE) * np.exp(-ATTENUATION * 0.5)
  assert lr.var() == pytest.approx((mean + 100**2) / (ATTENUATION * mean) ** 2, rel=0.03)


def test_quanta_grow_with_the_pixel():
  assert quanta_in_air(1.0, 4) == 4 * quanta_in_air(1.0, 2)


@pytest.mark.parametrize('frequency', [1 / 64, 1 / 32, 1 / 16])
@pytest.mark.parametrize(('blur', 'tail'), [(1.0, 0.0), (2.0, 0.2)])
def test_the_blur_has_its_transfer_function(frequency, blur, tail):
  wave = np.cos(2 * np.pi * frequency * np.arange(512))
  image = np.rint(65535 * (0.5 + 0.4 * np.tile(wave, (64, 1)))).astype(np.uint16)[..., None]
  how = Acquisition(kernel='nearest', blur=blur, tail=tail)
  lr = film.acquire(image, how, np.random.default_rng(0), scale=2)[16, 64:-64, 0] / 65535
  place = 2 * np.arange(256)[64:-64]
  amplitude = 2 * np.mean((lr - 0.5) * np.cos(2 * np.pi * frequency * place))
  assert amplitude / 0.4 == pytest.approx(blur_transfer(frequency, blur, tail), rel=0.02)


def test_the_aperture_has_its_transfer_function():
  pixel = (np.arange(10_000) + 0.5) / 10_000 - 0.5  # a low-resolution pixel, and half a period
  assert nyquist_transfer(CONDITIONS['binned'], 4) == pytest.approx(np.cos(np.pi * pixel).mean())
  assert nyquist_transfer(CONDITIONS['blurred'], 4) == blur_transfer(1 / 8, 2.0, 0.0)
  assert nyquist_transfer(CONDITIONS['clean'], 4) == 1.0


def test_the_detector_integrates_the_intensity(hr):
  lr = film.acquire(hr, CONDITIONS['binned'], np.random.default_rng(0), scale=SCALE)[..., 0]
  intensity = np.exp(-ATTENUATION * hr[..., 0] / 255).reshape(64, 4, 64, 4).mean((1, 3))
  np.testing.assert_array_equal(lr, np.rint(-255 * np.log(intensity) / ATTENUATION))


def test_clean_is_the_protocol(hr):
  lr = acquire_condition(hr, 'clean', name='a.png', scale=SCALE)
  np.testing.assert_array_equal(lr, degradation.downscale(hr, SCALE))


@pytest.mark.parametrize('quality', [75, 50])
def test_jpeg_is_pillows(hr, quality):
  lr = acquire_condition(hr, f'jpeg{quality}', name='a.png', scale=SCALE)
  data = io.BytesIO()
  Image.fromarray(degradation.downscale(hr, SCALE)[..., 0]).save(data, 'JPEG', quality=quality)
  np.testing.assert_array_equal(lr[..., 0], np.asarray(Image.open(data)))


@pytest.mark.parametrize('kernel', ['bilinear', 'lanczos', 'area'])
def test_resampling_is_pillows(hr, kernel):
  lr = film.acquire(hr, Acquisition(kernel=kernel), np.random.default_rng(0), scale=SCALE)
  method = {'bilinear': 'BILINEAR', 'lanczos': 'LANCZOS', 'area': 'BOX'}[kernel]
  wanted = Image.fromarray(hr[..., 0]).resize((64, 64), Image.Resampling[method])
  np.testing.assert_array_equal(lr[..., 0], np.asarray(wanted))


@pytest.mark.parametrize('condition', CONDITIONS)
def test_a_condition_depends_on_the_name_alone(hr, condition):
  first, again = (acquire_condition(hr, condition, name='a', scale=SCALE) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert first.dtype == np.uint8 and first.shape == (64, 64, 1)
  other = acquire_condition(hr, condition, name='b', scale=SCALE)
  assert (other != first).any() == bool(CONDITIONS[condition].dose)
  deep = acquire_condition(hr.astype(np.uint16) * 257, condition, name='a', scale=SCALE)
  difference = np.abs(deep / 257 - first)
  assert difference.mean() < 0.5 and (CONDITIONS[condition].jpeg or difference.max() <= 1.01)


def test_random_numbers_are_those_of_every_machine():
  assert generator('a.png', 'low_dose').integers(2**32, size=2).tolist() == [402039320, 339943206]


CASES = {
  'bicubic': Acquisition(),
  'detector, blurred': Acquisition(kernel='detector', blur=1.5, tail=0.1),
  'bilinear, sharpened': Acquisition(kernel='bilinear', sharpen=0.3),
  'lanczos': Acquisition(kernel='lanczos', blur=0.7),
}


def by_crops(hr, how, key, repeat=1):
  x = jnp.asarray(np.repeat(hr[None] / 255, repeat, 0), jnp.float32)
  rows = jnp.asarray(np.repeat(crops.pack(how)[None], repeat, 0))
  acquire = jax.jit(crops.acquire, static_argnames=('scale', 'levels'))
  return 255 * np.asarray(acquire(x, rows, key, scale=SCALE, levels=255))[..., 0]


@pytest.mark.parametrize('name', CASES)
def test_crops_are_the_film(hr, name):
  how = CASES[name]
  found = by_crops(hr, how, jax.random.key(0))[0]
  wanted = film.acquire(hr, how, np.random.default_rng(0), scale=SCALE)[..., 0]
  difference = np.abs(found - wanted)[INNER]  # Pillow rounds twice, and sharpening amplifies that
  assert difference.max() <= 2.01 and difference.mean() < 0.3


def test_crops_have_the_films_noise(hr):
  how = Acquisition(kernel='detector', dose=1 / 64, correlation=0.4, electronic=10.0)
  found = by_crops(hr, how, jax.random.key(0), repeat=64)
  rng = np.random.default_rng(0)
  wanted = np.stack([film.acquire(hr, how, rng, scale=SCALE)[..., 0] for _ in range(64)])
  for statistic in (lambda x: x.mean(), lambda x: x.std(axis=0).mean()):
    assert statistic(found) == pytest.approx(statistic(wanted.astype(float)), rel=0.02)
  np.testing.assert_allclose(found.std(0), wanted.std(0), rtol=1.0, atol=1.0)


@pytest.mark.parametrize('quality', [95, 75, 40])
def test_the_jitted_jpeg_is_nearly_pillows(hr, quality):
  how = Acquisition(jpeg=quality)
  found = by_crops(hr, how, jax.random.key(0))[0]
  wanted = film.acquire(hr, how, np.random.default_rng(0), scale=SCALE)[..., 0]
  clean = film.acquire(hr, Acquisition(), np.random.default_rng(0), scale=SCALE)[..., 0]
  # Pillow's reduction is rounded twice, so that the inputs differ by a level here and there.
  assert np.abs(found - wanted).mean() < 0.25 * np.abs(wanted - clean.astype(float)).mean() + 0.3


def test_the_mixture_has_its_shares():
  rng = np.random.default_rng(0)
  drawn = [crops.draw(rng, crops.Mixture()) for _ in range(2000)]
  share = np.mean([how == Acquisition() for how in drawn])
  assert 0.22 < share < 0.32  # 0.25, and bicubic crops to which nothing happened
  assert {how.kernel for how in drawn} == {'detector', 'bicubic', 'bilinear', 'lanczos', 'area'}
  doses = [how.dose for how in drawn if how.dose]
  assert min(doses) >= 0.01 and max(doses) <= 2.0
  assert all(np.isfinite(crops.pack(how)).all() for how in drawn)


def test_the_jitted_step_acquires_the_same_crops_for_every_cache():
  source = sources.Phantoms(seed=2, start=0, count=3, size=128, bits=8)
  mesh = sharding.make_mesh(1)
  lrs = []
  for cache in ('host', 'device'):
    config = base()
    config.data.update(patch=12, margin=4, cache=cache, threads=1)
    config.data.degradation.kind = 'acquisition'
    config.batch_size = 16
    loader = pipeline.make_loader(config, source, mesh)
    batches = loader.batches(5)
    host = next(batches)
    batches.close()
    batch = jax.jit(loader.to_batch)(host, loader.device_arrays)
    assert batch.keys() == {'lr', 'hr', 'mask'} and batch['lr'].shape == (16, 20, 20, 1)
    key = jax.random.fold_in(jax.random.key(config.seed), host['noise'][0])
    wanted = crops.acquire(batch['hr'], host['acquisition'], key, scale=SCALE, levels=255)
    # Not equal everywhere: JPEG and rounding amplify the last bits of another program.
    difference = 255 * np.abs(np.asarray(batch['lr'] - wanted))
    assert np.median(difference.max(axis=(1, 2, 3))) < 1.01 and difference.mean() < 0.05
    assert len(np.unique(np.asarray(host['acquisition']), axis=0)) > 8
    lrs.append(np.asarray(batch['lr']))
  np.testing.assert_array_equal(*lrs)


def test_the_kind_decides_whether_crops_are_acquired():
  source = sources.Phantoms(seed=2, start=0, count=3, size=128, bits=8)
  found = {}
  for kind in ('bicubic', 'acquisition'):
    config = base()
    config.data.update(patch=12, margin=4, threads=1)
    config.data.degradation.update(kind=kind, clean=0.0, noise_share=1.0)
    config.batch_size = 16
    loader = pipeline.make_loader(config, source, sharding.make_mesh(1))
    batches = loader.batches(0)
    found[kind] = jax.jit(loader.to_batch)(next(batches), loader.device_arrays)
    batches.close()
  np.testing.assert_array_equal(found['bicubic']['hr'], found['acquisition']['hr'])
  difference = np.asarray(found['bicubic']['lr'] - found['acquisition']['lr'])
  assert (np.abs(difference).max(axis=(1, 2, 3)) > 1 / 255).all()
