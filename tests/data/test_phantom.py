"""Properties of phantoms: determinism, anatomy, resolution and noise."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from jaxsr.data.phantom import Nodule, phantom_nodules
from phantoms import draw as phantom


def digest(image):
  return hashlib.sha256(image.tobytes()).hexdigest()


def correlation(a, b):
  return np.corrcoef(a.astype(float).ravel(), b.astype(float).ravel())[0, 1]


def shrink(image, factor):
  side = len(image) // factor
  return image.reshape(side, factor, side, factor).mean((1, 3))


def region(image, rows, columns):
  """Mean gray of a box given in fractions of the film, over a dozen films at once."""
  size = image.shape[-1]
  (r0, r1), (c0, c1) = (np.round(np.array(part) * size).astype(int) for part in (rows, columns))
  return image[..., r0:r1, c0:c1].mean()


@pytest.fixture(scope='module')
def films():
  return np.stack([phantom(3, index, size=128) for index in range(24)])


@pytest.mark.parametrize('bits, dtype', [(8, np.uint8), (16, np.uint16)])
def test_shape_and_dtype(bits, dtype):
  film = phantom(0, 0, size=128, bits=bits)
  assert film.shape == (128, 128)
  assert film.dtype == dtype


def test_same_film_whatever_was_rendered_before():
  first = digest(phantom(1, 2, size=128))
  phantom(5, 6, size=256)
  np.random.default_rng().random()
  assert digest(phantom(1, 2, size=128)) == first


def test_every_seed_and_index_gives_another_film():
  films = [phantom(seed, index, size=64) for seed in range(3) for index in range(4)]
  assert len({digest(film) for film in films}) == len(films)


def test_films_differ_in_anatomy_not_only_in_noise(films):
  pairs = [correlation(films[i], films[i + 1]) for i in range(len(films) - 1)]
  assert np.median(pairs) < 0.95


def test_bit_depths_agree():
  eight, sixteen = (phantom(0, 7, size=256, bits=bits).astype(int) for bits in (8, 16))
  assert np.abs((sixteen >> 8) - eight).max() <= 1
  assert len(np.unique(sixteen)) > 5000  # true depth, not shifted bytes


@pytest.mark.parametrize('index', [0, 4])
def test_same_anatomy_at_every_size(index):
  large = phantom(0, index, size=1024)
  assert correlation(shrink(large, 4), phantom(0, index, size=256)) > 0.98
  assert correlation(shrink(large, 8), phantom(0, index, size=128)) > 0.98


@pytest.mark.parametrize('size', [64, 72, 200, 328])
def test_any_multiple_of_eight_renders(size):
  assert phantom(0, 1, size=size).shape == (size, size)


@pytest.mark.parametrize('index', [0, 1, 2])
def test_nodules_are_local_and_bright(index):
  with_them, without = (
    phantom(0, index, size=512, bits=16, nodules=n).astype(float) for n in (2, 0)
  )
  added = with_them - without
  rows, columns = np.indices(added.shape)
  far = np.ones(added.shape, bool)
  for nodule in phantom_nodules(0, index, size=512, nodules=2):
    far &= np.hypot(rows - nodule.row, columns - nodule.column) > 4 * nodule.radius
    row, column = round(nodule.row), round(nodule.column)
    assert added[row - 1 : row + 2, column - 1 : column + 2].mean() > 257  # a gray level of 8 bits
  assert np.abs(added[far]).max() == 0


def test_nodules_scale_with_the_film():
  small, large = (phantom_nodules(2, 3, size=size, nodules=3) for size in (256, 1024))
  for a, b in zip(small, large, strict=True):
    assert isinstance(a, Nodule)
    assert b.radius == pytest.approx(4 * a.radius)
    assert b.row + 0.5 == pytest.approx(4 * (a.row + 0.5))
    assert a.contrast == b.contrast


def test_number_of_nodules_is_drawn_by_default():
  counts = [len(phantom_nodules(0, index)) for index in range(200)]
  assert 0.5 < np.mean(np.equal(counts, 0)) < 0.85
  assert max(counts) <= 3


def test_drawn_nodules_are_those_on_the_film():
  index = next(i for i in range(50) if len(phantom_nodules(0, i)) == 1)
  assert digest(phantom(0, index, size=128)) == digest(phantom(0, index, size=128, nodules=1))


def test_lungs_are_darker_than_the_mediastinum(films):
  middle = region(films, (0.35, 0.6), (0.46, 0.54))
  for columns in ((0.25, 0.35), (0.68, 0.76)):
    assert region(films, (0.3, 0.5), columns) < middle - 30


def test_heart_lies_to_the_right_of_the_viewer(films):
  assert region(films, (0.5, 0.62), (0.58, 0.66)) > region(films, (0.5, 0.62), (0.34, 0.42)) + 10


def test_abdomen_is_brighter_than_the_lungs(films):
  assert region(films, (0.85, 0.93), (0.3, 0.7)) > region(films, (0.3, 0.5), (0.25, 0.35)) + 30


def test_bicubic_restores_as_much_as_on_clinical_films():
  for index in range(4):
    film = phantom(0, index)
    image = Image.fromarray(film)
    again = image.resize((256, 256), Image.BICUBIC).resize(image.size, Image.BICUBIC)
    error = (film.astype(float) - np.asarray(again, float))[4:-4, 4:-4]
    assert 34 < 10 * np.log10(255**2 / np.mean(error**2)) < 48


@pytest.mark.parametrize(
  'arguments, words',
  [
    (dict(seed=-1, index=0), 'seed=-1'),
    (dict(seed=0, index=-2), 'index=-2'),
    (dict(seed=0, index=0, size=100), 'size=100'),
    (dict(seed=0, index=0, size=56), 'size=56'),
    (dict(seed=0, index=0, size=2056), 'size=2056'),
    (dict(seed=0, index=0, bits=12), 'bits=12'),
    (dict(seed=0, index=0, nodules=-1), 'nodules=-1'),
  ],
)
def test_errors_name_value_and_rule(arguments, words):
  with pytest.raises(ValueError, match=f'^{words}: must be [^\n]*$'):
    phantom(**arguments)
