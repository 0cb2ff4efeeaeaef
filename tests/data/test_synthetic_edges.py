import numpy as np
import pytest

from jaxsr import config as configs
from jaxsr.config import validate
from jaxsr.config.overrides import override
from jaxsr.data import degradation, pipeline, sources, synthetic_edges
from jaxsr.data.crops import Windows
from jaxsr.data.image_cache import Films
from jaxsr.errors import UserError

WINDOWS = Windows(seed=1, patch=12, margin=3, by_error=0.5)


@pytest.fixture(scope='module')
def films():
  return Films(
    sources.Phantoms(seed=2, start=0, count=2, size=128, bits=8), scale=4, capacity=2**30
  )


def batch(films, share, number=0):
  return pipeline.batches(films, WINDOWS, batch_size=32, edges=share)[number]


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_what_is_drawn_is_hard_and_lies_between_pixels(kind):
  """Gray becomes black, white or nearly so, and along the edges something in between."""
  gray = np.full((64, 64, 1), np.iinfo(kind).max // 2, kind)
  parts = []
  for seed in range(60):
    drawn = synthetic_edges.draw(gray, np.random.default_rng(seed))
    assert drawn.dtype == kind and drawn.shape == gray.shape
    levels = drawn / np.iinfo(kind).max
    changed = np.abs(levels - 0.5) > 0.01
    hard = (levels < 0.11) | (levels > 0.99)
    parts.append((changed.mean(), (changed & ~hard).mean()))
  assert np.mean([whole > 0 for whole, _ in parts]) > 0.8
  assert all(between < 0.25 for _, between in parts)
  assert np.mean([between > 0 for _, between in parts]) > 0.8


def test_a_share_of_the_crops_has_them(films):
  plain, all_of_them, half = (batch(films, share)['hr'] for share in (0.0, 1.0, 0.5))
  changed = lambda x: (x != plain).any((1, 2, 3)).mean()
  assert changed(all_of_them) > 0.8
  assert 0.2 < changed(half) < 0.7
  again = batch(films, 0.5)['hr']
  np.testing.assert_array_equal(again, half)


def test_the_low_resolution_is_that_of_what_is_drawn(films):
  """Inside the margin it is what a whole film with the same drawing would give."""
  found = batch(films, 1.0)
  for hr, lr in zip(found['hr'], found['lr'], strict=True):
    upright = [x for x in turns(hr, lr) if np.array_equal(degradation.downscale(x[0], 4), x[1])]
    assert upright  # Pillow rounds after each of its two passes, so a turn is off by one
    film = np.pad(upright[0][0], ((64, 64), (64, 64), (0, 0)), mode='wrap')
    inside = degradation.downscale(film, 4)[18:-18, 18:-18]
    np.testing.assert_array_equal(upright[0][1][2:-2, 2:-2], inside)


def turns(*images):
  flipped = [images, [x.swapaxes(0, 1) for x in images]]
  return [[np.rot90(x, k) for x in each] for each in flipped for k in range(4)]


@pytest.mark.parametrize(
  'flags, reason',
  [
    (['--config.data.edges=1.5'], 'config.data.edges=1.5 must be at most 1'),
    (['--config.data.cache=device'], 'config.data.edges=0.5 cannot be combined with'),
    (['--config.data.margin=1'], 'config.data.margin=1 must be at least 2'),
  ],
)
def test_what_does_not_go_together_is_refused(flags, reason):
  config = configs.load('configs/quickstart.py:smoke')
  config = override(config, ['--config.data.edges=0.5', *flags])
  with pytest.raises(UserError, match=reason):
    validate.check(config)
