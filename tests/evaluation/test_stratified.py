import numpy as np
import pytest

from jaxsr.data.records import IndexRow
from jaxsr.evaluation import stratified

FIGURES = ('psnr', 'bicubic_psnr', 'ssim', 'bicubic_ssim')


def known(*entries):
  """Make the index of films `(patient, findings, age)`, by name."""
  rows = [
    IndexRow('test', f'{i:08d}_000.png', patient, findings, age, 'FM'[i % 2], 'PA', 64, 64)
    for i, (patient, findings, age) in enumerate(entries)
  ]
  return {row.name: row for row in rows}


def measured(names, rng):
  values = [dict(zip(FIGURES, rng.uniform(0.2, 0.9, 4), strict=True)) for _ in names]
  return [{'file': f'films/{name}'} | value for name, value in zip(names, values, strict=True)]


def mean(rows, name, which):
  return pytest.approx(np.mean([rows[i][name] for i in which]))


def test_a_film_counts_for_each_of_its_findings_and_once_in_all(rng):
  index = known(('a', 'Mass|Nodule', 50), ('a', '', 50), ('b', 'Mass', 50), ('c', 'Edema', 50))
  rows = measured([*list(index)[:3], 'of-nobody.png'], rng)
  found = stratified.summarize(rows, index)
  assert list(found) == ['all', 'finding', 'view', 'sex', 'age']
  wanted = {'Mass': (0, 2), 'No Finding': (1,), 'Nodule': (0,)}
  assert list(found['finding']) == list(wanted)
  for finding, which in wanted.items():
    figures = found['finding'][finding]
    assert (figures['n'], figures['patients']) == (len(which), len(which))
    for name in FIGURES:
      assert figures[name] == mean(rows, name, which)
  everything = found['all']['all']
  assert (everything['n'], everything['patients']) == (3, 2)
  for name in ('psnr', 'ssim'):
    gain = np.mean([row[name] - row[f'bicubic_{name}'] for row in rows[:3]])
    assert everything[f'{name}_gain'] == pytest.approx(gain)
  assert {sex: figures['n'] for sex, figures in found['sex'].items()} == {'F': 2, 'M': 1}
  assert found['view']['PA'] == everything


def test_films_of_which_nothing_is_known_make_no_strata(rng):
  assert stratified.summarize(measured(['a.png', 'b.png'], rng), known(('a', '', 50))) == {}


BANDS = {
  '0-17': (0, 17),
  '18-39': (18, 39),
  '40-59': (40, 59),
  '60-79': (60, 79),
  '80+': (80, 95, 200, 414),  # the publisher's older table has patients of 414 years
}


@pytest.mark.parametrize('age, band', [(age, band) for band in BANDS for age in BANDS[band]])
def test_both_ends_of_a_band_are_in_it(rng, age, band):
  index = known(('a', '', age))
  assert list(stratified.summarize(measured(index, rng), index)['age']) == [band]


def sample(rng, *, patients, spread=1.0, within=0.2):
  """Draw values of films that are alike within a patient, of mean 3, and whose they are."""
  sizes = rng.integers(1, 8, patients)
  whose = np.repeat(np.arange(patients), sizes)
  values = 3 + rng.normal(0, spread, patients)[whose] + rng.normal(0, within, len(whose))
  return values, [f'patient {i}' for i in whose]


def test_intervals_hold_the_true_mean_as_often_as_they_say(rng, monkeypatch):
  monkeypatch.setattr(stratified, 'RESAMPLES', 500)  # for speed
  draws, held = 200, 0
  for _ in range(draws):
    low, high = stratified.interval(*sample(rng, patients=60))
    held += low <= 3 <= high
  chance = 3 * np.sqrt(0.95 * 0.05 / draws)  # three standard errors of the count itself
  assert held / draws == pytest.approx(0.95, abs=chance)


def test_intervals_over_patients_are_wider_where_their_films_are_alike(rng):
  values, whose = sample(rng, patients=60, within=0.0)
  over_patients = np.ptp(stratified.interval(values, whose))
  over_films = np.ptp(stratified.interval(values, [str(i) for i in range(len(values))]))
  _, sizes = np.unique(whose, return_counts=True)
  effect = np.sqrt(np.square(sizes).sum() / sizes.sum())  # Kish's design effect
  assert over_patients / over_films == pytest.approx(effect, rel=0.25)
  assert over_patients > 1.5 * over_films


def test_an_interval_equals_a_plain_loop_over_drawn_patients(rng):
  values, whose = sample(rng, patients=25)
  films = {patient: values[np.array(whose) == patient] for patient in sorted(set(whose))}
  means = []
  for _ in range(2_000):
    drawn = rng.choice(list(films), len(films))
    means.append(np.concatenate([films[patient] for patient in drawn]).mean())
  # A quantile of n normal draws has the error sqrt(p (1 - p) / n) / density.
  density = 0.0584 / np.std(means)
  error = np.sqrt(0.025 * 0.975 * (1 / stratified.RESAMPLES + 1 / len(means))) / density
  found = stratified.interval(values, whose)
  np.testing.assert_allclose(found, np.percentile(means, (2.5, 97.5)), atol=3 * error)


def test_one_film_a_patient_gives_the_textbook_interval(rng):
  values = rng.normal(30, 2, 400)
  low, high = stratified.interval(values, [str(i) for i in range(400)])
  half = 1.96 * values.std() / np.sqrt(400)
  assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.2 * half)
  assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_intervals_depend_on_nothing_but_the_films(rng):
  values, whose = sample(rng, patients=20)
  found = stratified.interval(values, whose)
  np.random.seed(1)
  assert stratified.interval(values, whose) == found
  order = rng.permutation(len(values))
  shuffled = stratified.interval(values[order], [whose[i] for i in order])
  np.testing.assert_allclose(shuffled, found, rtol=1e-12)
  np.testing.assert_allclose(stratified.interval(values + 1, whose), np.add(found, 1), rtol=1e-12)


def test_one_patient_has_no_interval(rng):
  assert stratified.interval(np.array([1.0, 2.0]), ['a', 'a']) is None
  assert stratified.interval(np.array([1.0, 2.0]), ['a', 'b']) is not None


def test_lines_are_a_table_with_a_row_for_each_value(rng):
  index = known(('a', 'Mass', 50), ('a', '', 30), ('b', 'Mass', 70))
  found = stratified.summarize(measured(index, rng), index)
  table = stratified.lines(found)
  assert [(row['kind'], row['value']) for row in table] == [
    (kind, value) for kind, values in found.items() for value in values
  ]
  assert len({tuple(row) for row in table}) == 1  # all have the same columns
  for row in table:
    figures = found[row['kind']][row['value']]
    assert row['psnr'] == figures['psnr']
    low, high = figures['psnr_interval'] or (None, None)
    assert (row['psnr_interval_low'], row['psnr_interval_high']) == (low, high)
    assert (low is None) == (row['patients'] == 1)
