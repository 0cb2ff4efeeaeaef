"""Windows: the same image as whole."""

import itertools

import jax
import numpy as np
import pytest

from jaxsr import cli, models
from jaxsr.data import image_files
from jaxsr.inference import tiling
from jaxsr.inference.model import Model
from models.small import TRAINABLE, build
from runs import variables_of

FREE = ['bicubic', 'lanczos', 'back_projection']


@pytest.mark.parametrize(
  ('length', 'side', 'margin', 'grid'),
  [(10, 4, 1, 1), (100, 30, 7, 1), (131, 24, 5, 8), (64, 16, 8, 8), (67, 5, 3, 4), (9, 1, 1, 1)],
)
def test_each_pixel_is_given_once_and_sees_as_far_as_it_must(length, side, margin, grid):
  size, found = tiling.spans(length, side, margin, grid)
  given = itertools.chain.from_iterable(range(w.first, w.last) for w in found)
  assert list(given) == list(range(length)) and len(found) > 1
  for start, first, last in found:
    assert start % grid == 0 and start >= 0 and start + size <= length
    assert start == 0 or first - start >= margin
    assert start + size == length or start + size - last >= margin


def test_a_small_image_is_one_window():
  assert tiling.spans(20, 10, 5) == (20, [(0, 0, 20)])
  assert tiling.spans(93, 40, 24, 8) == (93, [(0, 0, 93)])


@pytest.mark.parametrize(('length', 'margin', 'most'), [(551, 19, 1.2), (1024, 133, 1.6)])
def test_windows_are_even(length, margin, most):
  size, found = tiling.spans(length, tiling.SIDE, margin)
  assert size * len(found) < most * length


@pytest.mark.parametrize(
  ('name', 'ensemble'), [*((name, False) for name in (*FREE, *TRAINABLE)), ('swinir', True)]
)
def test_windows_give_the_whole(name, ensemble, monkeypatch):
  calm = {'image_range': 1.0} if name == 'span' else {}  # times 255 its image would be 480 high
  network = models.build(name, scale=2) if name in FREE else build(name, calm)
  model = Model(name, network, variables_of(network), 2, 1, None)
  image = np.random.default_rng(0).integers(0, 65536, (61, 150, 1), np.uint16)
  whole = model.upscale(image, ensemble=ensemble, tile=200)
  calls = []
  original = tiling.upscale
  monkeypatch.setattr(tiling, 'upscale', lambda *a, **k: calls.append(k) or original(*a, **k))
  pieces = model.upscale(image, ensemble=ensemble, tile=16)
  assert np.abs(whole.astype(int) - pieces).max() <= 2  # of 65,535 levels
  margin = tiling.margin(network)
  assert bool(calls) == (margin is not None)
  assert (margin is None) == (name in ('rcan', 'rlfn'))
  if margin is not None:
    assert calls[0]['margin'] == margin and calls[0]['batch_size'] == jax.device_count() > 1


def test_a_margin_too_small_is_seen(monkeypatch):
  """The test above can fail."""
  network = build('edsr')
  model = Model('edsr', network, variables_of(network), 2, 1, None)
  image = np.random.default_rng(0).integers(0, 65536, (61, 90, 1), np.uint16)
  whole = model.upscale(image, tile=100)
  monkeypatch.setattr(tiling, 'margin', lambda _: 2)
  pieces = model.upscale(image, tile=16)
  assert np.abs(whole.astype(int) - pieces).max() > 10


def test_upscale_takes_a_tile(tmp_path, capsys):
  rng = np.random.default_rng(0)
  image_files.write(tmp_path / 'a.png', rng.integers(0, 256, (40, 40, 1), np.uint8))
  made = []
  for tile in (8, 64, 0):
    command = ['upscale', str(tmp_path / 'a.png'), '--checkpoint', 'back_projection']
    with pytest.raises(SystemExit) as caught:
      cli.main([*command, '--output', str(tmp_path / f'{tile}.png'), '--tile', str(tile)])
    assert caught.value.code == (0 if tile else 2)
    made += [image_files.read(tmp_path / f'{tile}.png')] if tile else []
  off = np.abs(made[0].astype(int) - made[1])
  assert off.max() <= 1 and (off > 0).mean() < 1e-3  # halves may be rounded either way
  assert '--tile 0 is less than 1' in capsys.readouterr().err
