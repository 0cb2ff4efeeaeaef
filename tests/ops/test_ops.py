import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsr import ops
from jaxsr.data import degradation
from jaxsr.ops import attention, convolution
from jaxsr.ops.cpu import narrow, winograd
from models.small import build, quick, shapes


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
  found = ops.upsample(jnp.asarray(x, jnp.float32)[None], scale, boundary='mirror')[0]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
  ('size', 'factor', 'padding'),
  [(2, 2, 0), (3, 2, 1), (4, 2, 1), (3, 3, 0), (5, 3, 1), (9, 4, 4), (9, 8, 4)],
)
def test_deconvolution_has_the_same_gradient_by_either_way(rng, size, factor, padding):
  x = jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 2, 3)), jnp.float32)
  y, pull = jax.vjp(lambda x, k: ops.deconvolve(x, k, factor, padding), x, kernel)
  same, expected = jax.vjp(lambda x, k: convolution._by_dilation(x, k, factor, padding), x, kernel)
  np.testing.assert_array_equal(y, same)
  g = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
  jax.tree.map(close, pull(g), expected(g))


def pulled(function, x, kernel, *arguments, **options):
  """Returns the output of a convolution and its gradients."""

  @quick
  def run(x, kernel):
    y, pull = jax.vjp(lambda x, k: function(x, k, *arguments, **options), x, kernel)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  return run(x, kernel)


def agrees(x, kernel, strides, padding, tolerance=1e-5, **options):
  """Compare a convolution and its gradients with XLA's."""
  options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')} | options
  found = pulled(ops.convolve, x, kernel, strides, padding, **options)
  expected = pulled(jax.lax.conv_general_dilated, x, kernel, strides, padding, **options)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())
  jax.tree.map(close, found, expected)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('image', [(2, 9, 12, 3), (1, 10, 9, 2)])
def test_a_group_for_each_channel(rng, stride, size, image):
  x = jnp.asarray(rng.normal(size=image), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 1, image[-1])), jnp.float32)
  padding = [(size // 2, size // 2)] * 2
  agrees(x, kernel, (stride, stride), padding, feature_group_count=image[-1])


@pytest.mark.parametrize(
  ('size', 'inputs', 'outputs', 'way'),
  [
    (1, 5, 7, convolution._convolve_1x1),
    (3, 32, 40, winograd.convolve),
    (3, 40, 32, winograd.convolve),
    (3, 27, 3, narrow.convolve),
    (5, 16, 1, narrow.convolve),
    (7, 16, 1, narrow.convolve),
    (7, 16, 2, narrow.convolve),
    (3, 8, 3, None),
    (3, 5, 32, None),
    (5, 32, 32, None),
  ],
)
@pytest.mark.parametrize(
  ('padding', 'image'),
  [
    ('SAME', (2, 16, 12)),
    ('SAME', (1, 9, 13)),
    ('VALID', (1, 9, 23)),
    (((2, 1), (2, 4)), (1, 9, 24)),
  ],
)
def test_each_way_to_convolve_is_a_convolution(rng, size, inputs, outputs, way, padding, image):
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(*image, inputs)))
    kernel = jnp.asarray(rng.normal(size=(size, size, inputs, outputs)))
    chosen = convolution._choose_algorithm(x, kernel, (1, 1), 1)
    assert chosen is way
    agrees(x, kernel, (1, 1), padding, tolerance=1e-12)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='for CPUs only')
@pytest.mark.parametrize(
  ('size', 'inputs', 'outputs', 'groups'),
  [(1, 5, 7, 1), (3, 32, 32, 1), (3, 27, 3, 1), (3, 1, 6, 6), (9, 1, 6, 6)],
)
@pytest.mark.internal
@pytest.mark.usefixtures('uncached')
def test_a_cpu_goes_its_own_way(size, inputs, outputs, groups):
  specs = (1, 16, 16, inputs * groups), (size, size, inputs, outputs)

  def run(x, kernel, convolve):
    options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': groups}
    return jax.grad(lambda *a: convolve(*a, (1, 1), 'SAME', **options).sum(), (0, 1))(x, kernel)

  def compiled(convolve):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in specs]
    return quick(lambda x, k: run(x, k, convolve)).lower(*arguments).compile().as_text()

  assert ' convolution(' not in compiled(ops.convolve)
  assert ' convolution(' in compiled(jax.lax.conv_general_dilated)


@pytest.mark.parametrize('dtype', [jnp.float64, jnp.bfloat16])
def test_joining_is_a_convolution_of_what_is_side_by_side(rng, dtype):
  with jax.enable_x64(True):
    parts = [jnp.asarray(rng.normal(size=(2, 5, 4, c)), dtype) for c in (3, 1, 4)]
    kernel = jnp.asarray(rng.normal(size=(1, 1, 8, 6)), dtype)
    own = pulled(ops.join, parts, kernel)
    expected = pulled(
      lambda parts, kernel: jax.lax.conv_general_dilated(
        jnp.concatenate(parts, -1), kernel, (1, 1), 'VALID', dimension_numbers=ops.NHWC
      ),
      parts,
      kernel,
    )
  tolerance = 1e-12 if dtype == jnp.float64 else 0.05
  close = lambda a, b: np.testing.assert_allclose(
    np.float64(a), np.float64(b), rtol=0, atol=tolerance * np.abs(np.float64(b)).max()
  )
  jax.tree.map(close, own, expected)


@pytest.mark.parametrize(
  ('shape', 'large', 'strips'),  # rows of a strip, lanes, strips in each
  [
    ((2, 30, 17), 999, (8, 1, 4)),
    ((1, 66, 17), 1, (8, 4, 3)),
    ((2, 66, 17), 1, (4, 4, 5)),
    ((2, 30, 17), 1, (8, 1, 4)),  # too few rows for lanes
  ],
)
@pytest.mark.internal
def test_tiles_computed_in_strips_are_the_same(rng, monkeypatch, shape, large, strips):
  monkeypatch.setattr(winograd, '_CHUNK', 2**30)
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(*shape, 32)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, 32, 32)))
    whole = pulled(winograd._convolve, x, kernel, ((1, 1), (1, 1)))
    row = 5 * 36 * 64  # numbers in a row of five tiles
    monkeypatch.setattr(winograd, '_CHUNK', 2 * row * 3)
    monkeypatch.setattr(winograd, '_PARTS', 3)
    monkeypatch.setattr(winograd, '_LARGE', large * 64)
    found = winograd._divide(shape, 64)
    assert (found.rows, found.lanes, found.rounds) == strips
    stripped = pulled(winograd._convolve, x, kernel, ((1, 1), (1, 1)))
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12 * np.abs(b).max())
  jax.tree.map(close, stripped, whole)


@pytest.mark.parametrize(
  ('shape', 'channels', 'lanes'),
  [((1, 128, 128), 128, 4), ((1, 128, 128), 64, 1), ((1, 256, 256), 64, 4), ((8, 48, 48), 128, 1)],
)
@pytest.mark.internal
def test_lanes_are_for_what_is_large(shape, channels, lanes):
  assert winograd._divide(shape, channels).lanes == lanes


def test_tiles_in_float32_lose_little(rng):
  x = jnp.asarray(rng.random((1, 48, 48, 64)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)), jnp.float32)
  agrees(x, kernel, (1, 1), 'SAME', tolerance=2e-5)


@pytest.mark.parametrize(
  'options', [{'rhs_dilation': (2, 2)}, {'lhs_dilation': (2, 2)}, {'feature_group_count': 2}]
)
@pytest.mark.internal
def test_what_has_no_way_of_its_own_is_left_to_xla(rng, options):
  groups = options.get('feature_group_count', 1)
  x = jnp.asarray(rng.normal(size=(1, 12, 12, 32 * groups)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 32, 32)), jnp.float32)
  agrees(x, kernel, (1, 1), [(2, 2), (2, 2)], tolerance=1e-6, **options)


@pytest.mark.internal
def test_strides_and_bfloat16_are_left_to_xla(rng):
  x = jnp.asarray(rng.normal(size=(1, 16, 16, 32)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 32, 32)), jnp.float32)
  agrees(x, kernel, (2, 2), 'SAME', tolerance=1e-6)
  assert convolution._choose_algorithm(x.astype(jnp.bfloat16), kernel, (1, 1), 1) is None


@pytest.mark.parametrize(('size', 'groups'), [(3, 1), (3, 32), (5, 32)])
def test_second_derivatives_are_a_convolutions(rng, size, groups):
  """R1 regularization differentiates a gradient."""
  with jax.enable_x64(True):
    x = jnp.asarray(rng.normal(size=(1, 11, 12, 32)))
    kernel = jnp.asarray(rng.normal(size=(size, size, 32 // groups, 32)))
    options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': groups}

    def penalty(function, kernel):
      made = lambda x: jnp.sin(function(x, kernel, (1, 1), 'SAME', **options)).sum()
      return (jax.grad(made)(x) ** 2).sum()

    found, expected = (
      jax.grad(lambda k, f=f: penalty(f, k))(kernel)
      for f in (ops.convolve, jax.lax.conv_general_dilated)
    )
  np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('divided', [False, True])
def test_attention_by_parts_is_attention(rng, images, divided):
  """Twelve windows per image are not a multiple of the windows that are processed at a time."""
  qkv = jnp.asarray(rng.normal(size=(12 * images, 9, 3 * 2 * 4)), jnp.float32)
  bias = jnp.asarray(rng.normal(size=(2, 9, 9)), jnp.float32)
  regions = jnp.asarray(rng.integers(0, 3, (12, 9))) if divided else None
  parts, whole = (
    f(qkv, bias, regions, 2) for f in (attention._by_parts, attention._attend_at_once)
  )
  np.testing.assert_allclose(parts, whole, atol=1e-6)
  chosen = lambda *a: ops.attend(*a, regions, heads=2)
  np.testing.assert_allclose(chosen(qkv, bias), whole, atol=1e-6)
  found, expected = (
    jax.grad(lambda x, b, f=f: jnp.sin(f(x, b)).sum(), (0, 1))(qkv, bias)
    for f in (chosen, lambda x, b: attention._attend_at_once(x, b, regions, 2))
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_pixels_of_different_regions_do_not_attend(rng):
  qkv = jnp.asarray(rng.normal(size=(1, 4, 3)), jnp.float32)
  regions, bias = jnp.asarray([[0, 0, 1, 1]]), jnp.zeros((1, 4, 4))
  other = qkv.at[0, 2:].set(0.0)
  found, same = (ops.attend(x, bias, regions, heads=1)[0, :2] for x in (qkv, other))
  np.testing.assert_allclose(found, same, atol=1e-6)


@pytest.mark.parametrize('name', ['fsrcnn', 'srdensenet', 'swift_srgan', 'swinir'])
def test_plain_programs_have_no_branches_by_platform(name):
  """Also if the same shapes were traced before, outside the context."""
  network = build(name)
  lr = jax.ShapeDtypeStruct((1, 16, 24, 1), jnp.float32)
  _, variables = shapes(network, lr.shape, train=False)

  def traced():
    return str(jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False))(variables, lr))

  before = traced()
  with ops.plain():
    inside = traced()
  assert 'platform_index' in before
  assert 'platform_index' not in inside and 'cond' not in inside
  assert traced() == before


def test_plain_programs_take_symbolic_sizes():
  network = build('edsr')
  lr = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 1'), jnp.float32)
  _, variables = shapes(network, (1, 16, 16, 1), train=False)
  with ops.plain():
    sr = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, lr)
  assert str(sr.shape) == '(b, 2*h, 2*w, 1)'
