"""Intervals and doubt, on errors whose distribution is known."""

import numpy as np
import pytest
from scipy import ndimage, stats

from jaxsr.errors import UserError
from jaxsr.inference.uncertainty import calibration, conformal, doubt, maps, samples, scale
from jaxsr.inference.uncertainty.samples import Sample

NUMBERS = np.array([0.4, 0.5, 0.3, 0.2, 0, 0.3, 0, 0.2, 0, 0])


def film(seed, patient=None, count=3000):
  """A sample whose errors are normal, with a deviation that is log-linear in its maps."""
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(count, 10)).astype(np.float32)
  values[:, 0], values[:, 1:3] = 1, rng.normal(0, 0.5, 2)  # two maps are the film's
  errors = np.abs(rng.normal(size=count)) * np.exp(values @ NUMBERS)
  scores = rng.gamma(2, size=400)
  wrong = scores * np.exp(rng.normal(0, 0.2, 400)) * 1.5
  inside = rng.random(count) < 0.5
  return Sample(patient or f'{seed:03d}', values, errors, inside, scores, wrong)


@pytest.fixture(scope='module')
def fitted():
  films = [film(i) for i in range(60)]
  return calibration.fit_interval(films), calibration.fit_doubt(films)


def test_the_scale_is_the_quantile_of_the_errors(fitted):
  interval, _ = fitted
  expected = NUMBERS.copy()
  expected[0] += np.log(stats.norm.ppf(0.95))
  found = interval.numbers.copy()
  found[0] += np.log(interval.factor)
  np.testing.assert_allclose(found, expected, atol=0.06)
  assert (interval.fitted_on, interval.chosen_on) == (30, 30)


def test_new_patients_are_covered_in_each_region(fitted):
  found = calibration.measure([film(i) for i in range(1000, 1040)], *fitted)
  assert found['coverage']['mean'] == pytest.approx(0.9, abs=0.015)
  assert all(abs(x - 0.9) < 0.02 for x in found['regions'].values())
  assert found['coverage']['sd_over_films'] < 0.02
  assert found['half_width'] < 0.95 * found['constant_half_width']
  assert found['patients'] == 40 and found['spearman'] > 0.3


def test_a_constant_does_not_cover_edges():
  """What the maps are for: without them, the edges of these films are covered less."""
  films = [film(i) for i in range(40)]
  flat = [f._replace(values=np.eye(1, 10).repeat(3000, 0).astype(np.float32)) for f in films]
  interval = calibration.fit_interval(flat)
  slopes = [f.regions()['edges'] for f in films]
  covered = [
    np.mean(f.errors[m] <= interval.factor * np.exp(interval.numbers[0]))
    for f, m in zip(films, slopes, strict=True)
  ]
  assert np.mean(covered) < 0.87


def test_films_of_one_patient_count_as_one():
  films = [film(i) for i in range(20)]
  noisy = film(99)
  noisy = noisy._replace(errors=10 * noisy.errors)
  once = calibration.fit_interval([*films, noisy._replace(patient='last')])
  often = calibration.fit_interval([*films, *[noisy._replace(patient='last')] * 5])
  assert once.factor == pytest.approx(often.factor, rel=0.05)


def test_at_most_a_tenth_of_the_bad_tiles_is_missed(fitted):
  _, found = fitted
  measured = calibration.measure([film(i) for i in range(2000, 2100)], *fitted)
  assert found.rule == 'rcps' and found.chosen_on == 60
  assert 0.05 < measured['tiles']['missed'] < 0.1
  assert measured['tiles']['bad'] < measured['tiles']['flagged'] < 2 * measured['tiles']['bad']
  few = calibration.fit_doubt([film(i) for i in range(12)])
  assert few.rule == 'crc' and few.threshold < found.threshold
  assert calibration.fit_doubt([film(0), film(1)]).rule == 'mean'


def test_rcps_is_refused_if_no_data_could_pass():
  assert conformal.fewest('rcps', 0.1) == 22 and conformal.fewest('crc', 0.1) == 9
  with pytest.raises(UserError, match=r'found 21 .*0\.9\^21 = 0\.11 is more than 0\.1'):
    calibration.fit_interval([film(i) for i in range(42)], rule='rcps')
  loose = calibration.fit_interval([film(i) for i in range(60)], rule='rcps')
  assert loose.factor > calibration.fit_interval([film(i) for i in range(60)]).factor
  assert not conformal.accepts('rcps', np.zeros(21), 0.1)
  assert conformal.accepts('rcps', np.zeros(30), 0.1)


def test_rules_control_the_risk_of_random_losses(rng):
  """Losses with a mean of 0.1 are accepted by `rcps` in at most a tenth of the trials."""
  losses = rng.beta(1, 9, (2000, 60))
  accepted = np.mean([conformal.accepts('rcps', x, 0.1) for x in losses])
  assert accepted <= 0.11
  assert np.mean([conformal.accepts('mean', x, 0.1) for x in losses]) == pytest.approx(0.5, abs=0.1)
  assert conformal.accepts('crc', np.full(99, 0.0909), 0.1)
  assert not conformal.accepts('crc', np.full(99, 0.0911), 0.1)


def test_too_few_patients_are_refused():
  with pytest.raises(UserError, match='one patient only'):
    calibration.fit_interval([film(0), film(1, '000')])
  with pytest.raises(UserError, match='rule crc needs at least 9 patients in the half .*, found 5'):
    calibration.fit_interval([film(i) for i in range(10)], rule='crc')


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(1)
  smooth = ndimage.gaussian_filter(rng.normal(size=(132, 100)), 6)
  lr = (128 + 60 * smooth / np.abs(smooth).max() + rng.normal(0, 2, smooth.shape)).clip(0, 255)
  lr = lr.astype(np.uint8)
  sr = np.rint(maps.bicubic(lr, 4).clip(0, 255)) + rng.integers(-3, 4, (528, 400))
  return lr, sr.clip(0, 255).astype(np.uint8)


def test_strips_give_the_maps_of_the_whole_image(images, monkeypatch):
  (whole,) = maps.strips(*images, 4)
  monkeypatch.setattr(maps, '_STRIP', 4 * 400 * 20)
  parts = list(maps.strips(*images, 4))
  assert len(parts) == 7 and parts[1].first == 80
  joined = np.concatenate([part.values for part in parts])
  np.testing.assert_allclose(joined, whole.values, atol=2e-3)


def test_deeper_images_have_the_same_maps(images):
  lr, _ = images
  deep = (lr.astype(np.uint16) * 257)[..., None]
  np.testing.assert_array_equal(maps.levels(deep, 65535), lr)
  np.testing.assert_array_equal(maps.levels(np.repeat(lr[..., None], 3, 2), 255), lr)


def test_noise_of_a_film_is_measured():
  clean = np.full((200, 200), 120.0)
  found = []
  for deviation in (1, 2, 4):
    noisy = clean + np.random.default_rng(0).normal(0, deviation, clean.shape)
    found.append(maps.film_noise(np.rint(noisy).astype(np.uint8)))
  np.testing.assert_allclose(found, np.array([[1, 1], [2, 2], [4, 4]]), rtol=0.12)
  assert maps.film_noise(np.zeros((40, 40), np.uint8)) == (0, 0)


def test_tiles_at_the_ends_are_smaller(rng):
  image = rng.random((40, 50)).astype(np.float32)
  found = doubt.tile_means(image)
  assert found.shape == (3, 4)
  assert found[2, 3] == pytest.approx(image[32:, 48:].mean(), rel=1e-5)
  mask = doubt.spread(found > np.median(found), image.shape)
  assert mask.shape == image.shape and mask[39, 49] == (found[2, 3] > np.median(found))


def test_a_sample_holds_the_errors_at_its_pixels(images):
  lr, sr = images
  hr = sr + 3.0
  hr[:264] -= 3
  found = samples.draw('1', hr, lr, sr.astype(np.float64), scale=4, count=2000)
  assert set(np.unique(found.errors)) == {0, 3}
  assert np.mean(found.errors == 0) == pytest.approx(0.5, abs=0.05)
  assert found.center.mean() == pytest.approx(9 / 16, abs=0.05)
  assert found.tile_errors[0] == 0 and found.tile_errors[-1] == pytest.approx(3, rel=1e-5)
  half = scale.scale_map(NUMBERS, lr, sr, 4)
  assert half.shape == sr.shape and np.isfinite(half).all()
  other = samples.draw('1', hr, lr, sr.astype(np.float64), scale=4, second=sr, count=10)
  assert not other.tile_scores.any()
