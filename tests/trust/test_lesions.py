"""Lesions, observers and the study: its sanity rows, and definitions against SciPy."""

import numpy as np
import pytest
from scipy.stats import rankdata

from jaxsr.data.phantom import phantom
from jaxsr.trust import lesions, observers, study
from jaxsr.trust.networks import interpolation


@pytest.fixture(scope='module')
def subjects():
  """Four phantoms with their lesions."""
  films = [phantom(7, i, size=256, nodules=0)[..., None] for i in range(4)]
  return [study.subject(film, f'{i}.png', 4) for i, film in enumerate(films)]


@pytest.fixture(scope='module')
def rows(subjects):
  """The study of HR and bicubic on the phantoms, by lesion and network."""
  found = [each for each in subjects if each is not None]
  assert len(found) >= study.SMALLEST
  outputs = {
    study.HR: [study.observe(x, None, 'clean', 4) for x in found],
    'bicubic': [study.observe(x, interpolation(4), 'clean', 4) for x in found],
    'absent': [study.observe(x, without_lesion(x), 'clean', 4) for x in found],
  }
  return study.summarize(outputs, [x.name for x in found])


def without_lesion(subject):
  """Returns a network that returns the film without the lesion."""
  return lambda lr: np.concatenate([subject.absent] * (len(lr) // len(subject.absent)))


def test_sanity_rows_hold(rows):
  hr = [row for row in rows if row['network'] == study.HR]
  assert len(hr) == len(lesions.DESIGN)
  assert all(row['contrast_kept'] == row['contrast_kept_10'] == 1.0 for row in hr)
  assert all(row['to_hr'] == 0 and row['to_hr_interval'] == [0, 0] for row in hr)
  for name in (study.ABSENT, 'absent'):
    absent = [row for row in rows if row['network'] == name]
    assert all((row['auc'], row['contrast_kept']) == (0.5, 0.0) for row in absent)
    assert all(row['hits'] == row['false_alarms'] for row in absent)


def test_bicubic_weakens_small_lesions_most(rows):
  kept = {
    row['size']: row['contrast_kept']
    for row in rows
    if row['network'] == 'bicubic' and row['kind'] == 'nodule'
  }
  assert list(kept.values()) == sorted(kept.values()) and kept[2] < 0.4 and kept[12] > 0.85


def test_lesions_are_where_and_as_strong_as_asked():
  crop = np.full((64, 64, 1), 100, np.uint8)
  for lesion in lesions.DESIGN:
    drawn = lesions.profile(lesion, 64, (3.0, -2.0))
    y, x = np.mgrid[:64, :64]
    center = [(drawn * axis).sum() / drawn.sum() for axis in (y, x)]
    assert center == pytest.approx([35.0, 30.0], abs=0.1)
    darker = lesions.insert(crop, drawn, lesion.contrast).astype(int) - crop
    expected = (255 - 100) * (1 - (1 - lesion.contrast) ** drawn.max())
    assert darker.max() == pytest.approx(expected, abs=0.51) and darker.min() >= 0


def test_places_are_inside_and_the_same_again():
  film = phantom(7, 0, size=256, nodules=0) / 255
  first, second = (lesions.places(film, lesions.generator('a.png')) for _ in range(2))
  assert first == second and len(set(first)) == lesions.PLACES
  assert first != lesions.places(film, lesions.generator('b.png'))
  phases = np.array([lesions.generator(str(i)).uniform(-2, 2, 2) for i in range(200)])
  assert len({tuple(x) for x in np.floor(phases).astype(int)}) == 16  # of the grid at x4
  assert lesions.places(np.zeros((256, 256)), lesions.generator('a.png')) == []


def test_auc_is_that_of_ranks_and_pairs_its_differences(rng):
  patients = np.repeat(np.arange(10), 4)
  present, absent = rng.normal(0.8, 1, 40), np.round(rng.normal(0, 1, 40), 1)
  found = observers.Auc(present, absent, patients)
  ranks = rankdata(np.concatenate([present, absent]))
  assert found.value == pytest.approx((ranks[:40].sum() - 40 * 41 / 2) / 1600)
  low, high = found.interval()
  assert low < found.value < high
  same = observers.Auc(present * 3 + 1, absent * 3 + 1, patients)
  assert found.difference(same) == (0, [0, 0])


def test_the_template_is_trained_on_the_other_half(rng):
  """A template for noise is no better than chance on patients that it has not seen."""
  patients = np.repeat(np.arange(40), 4)
  present, absent = rng.normal(size=(2, 160, 8))
  scores = observers.cross_scores(present, absent, patients)
  assert abs(observers.Auc(*scores, patients).value - 0.5) < 0.1
  weights = observers.template(present, absent)
  assert observers.Auc(present @ weights, absent @ weights, patients).value > 0.55
