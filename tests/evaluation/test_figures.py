"""A metric is a mean in `metrics.measure` and a line in the table; all places read the table."""

import numpy as np
import pytest

from jaxsr import metrics
from jaxsr.data import sources
from jaxsr.evaluation import conditions, shards
from jaxsr.evaluation.evaluator import Evaluator, summarize
from jaxsr.evaluation.figures import FIGURES, Figure, compared, of_image
from jaxsr.models.interpolation import Lanczos

SOURCE = sources.Phantoms(seed=0, start=0, count=2, size=64, bits=8)


@pytest.fixture
def nmse(monkeypatch):
  """Add a metric whose name ends like that of a column that is not averaged."""
  measure = metrics.measure

  def more(sr, hr, *, scale):
    found = measure(sr, hr, scale=scale)
    return found | {'relative': ((sr - hr) ** 2).mean((1, 2, 3)) / (hr**2).mean((1, 2, 3))}

  added = Figure(
    'nmse', 'NMSE', '.4f', 'MSE / HR²', means=('relative',), always=True, by_condition=True
  )
  monkeypatch.setattr(metrics, 'measure', more)
  monkeypatch.setitem(FIGURES, 'nmse', added)


def test_a_new_metric_is_in_every_table(nmse, tmp_path):
  evaluator = Evaluator(Lanczos(scale=4, channels=1), SOURCE, scale=4)
  rows = [evaluator.measure({}, index)[0] for index in range(2)]
  hr = SOURCE[0] / 255
  mse = 10 ** (-rows[0]['psnr_uncropped'] / 10)
  assert rows[0]['nmse'] == pytest.approx(mse / (hr**2).mean(), rel=1e-4)
  summary = summarize(rows)
  assert summary['nmse'] == pytest.approx(np.mean([row['nmse'] for row in rows]))
  assert 'mse' not in summary and 'nmse' in [figure.name for figure in compared(summary)]
  assert shards.is_whole(shards.Measured(rows[0]))
  damaged = {name: value for name, value in rows[0].items() if name != 'bicubic_nmse'}
  assert not shards.is_whole(shards.Measured(damaged))
  methods = conditions.methods([])[:1]
  table = conditions.measure(methods, SOURCE, ['clean'], scale=4, images=[0, 1], folder=tmp_path)
  assert table['clean']['bicubic']['nmse'] == pytest.approx(summary['bicubic_nmse'], rel=1e-3)
  assert 'nmse' in (tmp_path / conditions.PER_IMAGE).read_text().splitlines()[0].split(',')


def test_values_that_an_image_lacks():
  means = dict.fromkeys(('mse', 'mse_centre', 'mse_uncropped', 'mse_consistency'), 0.01)
  means |= {'ssim': 0.9, 'ssim_centre': 0.8, 'high_energy': 0.0, 'high_energy_hr': 0.0}
  row = of_image(means)
  assert row['psnr'] == row['consistency'] == pytest.approx(20) and row['ssim_centre'] == 0.8
  assert row['ms_ssim'] is None, 'the image is too small'
  assert row['high_frequency'] is None, 'the original has no energy there'
  assert not {'feature_distance', 'psnr_pooled', 'raw_psnr'} & row.keys()
  assert of_image(means | {'feature_distance': 0.1})['feature_distance'] == 0.1
  assert [*of_image(means, [FIGURES['ssim']])] == ['ssim']


def test_metrics_under_conditions_are_always_there():
  assert all(figure.always for figure in FIGURES.values() if figure.by_condition)
