import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsr import ops
from jaxsr.data import degradation


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


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_upsample_with_mirrored_edges_is_matlabs(rng, scale):
  x = rng.random((13, 9, 1))
  expected = degradation.imresize(x, 13 * scale, 9 * scale)
  found = ops.upsample(jnp.asarray(x, jnp.float32)[None], scale, edges='mirror')[0]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('size', 'factor', 'padding'),
  [(2, 2, 0), (3, 2, 1), (4, 2, 1), (3, 3, 0), (5, 3, 1), (9, 4, 4), (9, 8, 4)],
)
def test_deconvolution_has_the_same_gradient_by_either_way(rng, size, factor, padding):
  x = jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 2, 3)), jnp.float32)
  y, pull = jax.vjp(lambda x, k: ops.deconvolve(x, k, factor, padding), x, kernel)
  same, expected = jax.vjp(lambda x, k: ops._by_dilation(x, k, factor, padding), x, kernel)
  np.testing.assert_array_equal(y, same)
  g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
  jax.tree.map(close, pull(g), expected(g))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize('image', [(2, 9, 12, 3), (1, 10, 9, 2)])
def test_depthwise_is_a_convolution_with_a_group_for_each_channel(rng, stride, size, image):
  x = jnp.asarray(rng.normal(size=image), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 1, image[-1])), jnp.float32)
  strides, padding = (stride, stride), [(size // 2, size // 2)] * 2
  options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': image[-1]}

  def pulled(function):
    y, pull = jax.vjp(lambda x, k: function(x, k, strides, padding, **options), x, kernel)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
  jax.tree.map(close, pulled(ops.depthwise), pulled(jax.lax.conv_general_dilated))
