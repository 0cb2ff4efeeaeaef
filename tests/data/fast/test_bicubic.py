"""The compiled bicubic equals Pillow's, to the bit, on every size, scale and kind of image."""

import numpy as np
import pytest

from jaxsr.data import crops, degradation, image_files

pytest.importorskip('numba', reason="resizing is compiled with pip install 'jaxsr-xray[nih]'")

from jaxsr.data.fast import bicubic
from jaxsr.data.fast.transpose import transpose

IMAGES = {
  'noise': lambda rng, size: rng.integers(0, 256, size),
  'black and white': lambda rng, size: rng.integers(0, 2, size) * 255,  # overshoots both ends
  'flat': lambda rng, size: np.full(size, rng.integers(256)),
  'smooth': lambda rng, size: rng.normal(128, 3, size),
}


def equals_pillow(image, scale):
  lr = bicubic.downscale(image, scale)
  reference = degradation.downscale(image[..., None], scale)
  np.testing.assert_array_equal(lr, reference[..., 0])
  errors, expected = bicubic.map_error(image, lr), crops.map_error(image[..., None], reference)
  assert errors.dtype == expected.dtype
  np.testing.assert_array_equal(errors, expected)


@pytest.mark.parametrize('kind', IMAGES)
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
@pytest.mark.parametrize('size', [(1, 1), (2, 5), (3, 1), (8, 16), (17, 6), (64, 40)])
def test_it_is_pillows(size, scale, kind):
  rng = np.random.default_rng((*size, scale))
  equals_pillow(IMAGES[kind](rng, [side * scale for side in size]).astype(np.uint8), scale)


@pytest.mark.parametrize('scale', [2, 4])
def test_it_is_pillows_on_films(shared, scale):
  for path in image_files.find(shared / 'nih' / 'val')[:6]:
    equals_pillow(image_files.read(path)[..., 0], scale)


@pytest.mark.parametrize('size', [(8, 8), (8, 72), (136, 64), (9, 8), (1, 5), (200, 64)])
def test_transposing_is_numpys(size):
  image = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
  for some in (image, image[::-1], image[:, ::-1]):
    np.testing.assert_array_equal(transpose(some), some.T)
