import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsr import ops


def test_pixel_shuffle_has_tensorflow_order(rng):
  x = rng.random((2, 3, 5, 4 * 2), dtype=np.float32)
  expected = x.reshape(2, 3, 5, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 10, 2)
  np.testing.assert_array_equal(ops.pixel_shuffle(jnp.asarray(x), 2), expected)


@pytest.mark.parametrize(
  ('method', 'pillow'),
  [('cubic', Image.Resampling.BICUBIC), ('lanczos3', Image.Resampling.LANCZOS)],
)
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_upsample_equals_pillow_on_floats(rng, method, pillow, scale):
  x = rng.random((13, 9), dtype=np.float32)
  expected = Image.fromarray(x).resize((9 * scale, 13 * scale), pillow)
  found = ops.upsample(jnp.asarray(x)[None, ..., None], scale, method=method)[0, ..., 0]
  np.testing.assert_allclose(found, np.asarray(expected), atol=2e-6)


def test_upsample_commutes_with_flips(rng):
  x = jnp.asarray(rng.random((1, 8, 12, 1), dtype=np.float32))
  flipped = ops.upsample(x[:, ::-1], 4)[:, ::-1]
  np.testing.assert_allclose(flipped, ops.upsample(x, 4), atol=1e-6)
