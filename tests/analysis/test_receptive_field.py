"""Receptive radii of networks, compared with gradients and with counts by hand."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsr import analysis, models, ops
from jaxsr.analysis import receptive_field
from jaxsr.analysis.jaxpr import trace
from jaxsr.models import Network
from models.small import FREE, TRAINABLE, build, draw, quick

NHWC = ('NHWC', 'HWIO', 'NHWC')
SHAPE = (1, 6, 7, 2)
ALONE = {
  'rcan': {'attention': False},
  'rlfn': {'blocks': 1},
  'rrdb': {'blocks': 1},
  'swift_srgan': {'blocks': 1},
}
CASES = [
  *((name, ALONE.get(name, {}), 2) for name in TRAINABLE),
  ('edsr', {'upsampler': 'direct', 'bicubic_skip': True}, 3),
  ('fsrcnn', {}, 3),
  ('srdensenet', {'variant': 'prelu'}, 4),
  ('vdsr', {'edges': 'mirror'}, 2),
  *((name, {}, 3) for name in FREE),
]


class Around(Network):
  """A network that consists of one function."""

  scale: int = 1
  function: Callable = None

  def __call__(self, lr, *, train):
    return self.function(lr)


def push(function, x, tangent):
  """Forward-mode derivative by two reverse passes, since some layers only define a VJP."""
  y, pull = jax.vjp(function, x)
  _, pull_again = jax.vjp(lambda t: pull(t)[0], jnp.zeros_like(y))
  return pull_again(tangent)[0]


def positive(path, x):
  """Returns positive parameters, with kernels that average, so that nothing saturates."""
  x = jnp.abs(x)
  return x / x.sum(range(x.ndim - 1)) if path[-1].key == 'kernel' else x


def measured_radius(rng, network, length=128):
  """Returns the radius from derivatives for a few pixels; positive weights prevent cancellation.

  All other pixels are darker and constant, so that a maximum is taken where the pixel matters.
  """
  pixels, images = length // 2 + np.arange(8), np.arange(8)
  one = np.zeros((8, 1, length, 1), np.float32)
  one[images, :, pixels] = 1
  variables = draw(rng, network, one.shape, train=False)
  variables = jax.tree_util.tree_map_with_path(positive, variables)
  apply = lambda x: network.apply(variables, x, train=False)
  changed = quick(lambda x, t: push(apply, x, t))(0.5 + one, one)
  columns = np.any(np.asarray(changed) != 0, (1, 3)).reshape(8, length, -1).any(-1)
  assert not columns[:, 0].any() and not columns[:, -1].any()
  image, column = np.nonzero(columns)
  return np.abs(column - pixels[image]).max()


@pytest.mark.parametrize(('name', 'options', 'scale'), CASES)
def test_radius_is_that_of_the_gradient(rng, name, options, scale):
  network = build(name, options, scale=scale)
  assert analysis.receptive_radius(network) == measured_radius(rng, network)


def refined(radius, scale):
  """Returns the low-resolution radius of `radius` high-resolution pixels plus bicubic's kernel."""
  seen = [(place + radius) / scale for place in range(scale)]
  return max(int(x) + (2 if x % 1 >= 0.5 else 1) for x in seen)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_radius_of_what_refines_bicubic_is_that_by_hand(scale):
  vdsr = models.build('vdsr', {'features': 2}, scale=scale)
  assert analysis.receptive_radius(vdsr) == refined(20, scale)
  srcnn = models.build('srcnn', {'features': (2, 2)}, scale=scale)
  assert analysis.receptive_radius(srcnn) == refined(4 + 2 + 2, scale)
  assert scale != 4 or refined(20, scale) == 5 + 2


@pytest.mark.parametrize(
  ('name', 'options', 'radius'),
  [
    ('bicubic', {}, 2),
    ('lanczos', {}, 3),
    ('edsr', {'features': 4}, 1 + 2 * 16 + 1 + 2),  # 2: of the upsampler and the tail
    ('edsr', {'features': 4, 'depth': 0.25}, 1 + 2 * 4 + 1 + 2),
    ('edsr', {'features': 4, 'blocks': 3, 'upsampler': 'direct'}, 1 + 2 * 3 + 1 + 1),
    ('fsrcnn', {}, 2 + 4 + 1),
    ('rdn', {'features': 4, 'growth': 4}, 2 + 16 * 8 + 1 + 2),
    ('srresnet', {'features': 4}, 4 + 2 * 16 + 1 + 3),  # 3: of the upsampler and a tail of 9x9
  ],
)
def test_radius_at_scale_4_is_that_by_hand(name, options, radius):
  assert analysis.receptive_radius(models.build(name, options, scale=4)) == radius


def test_attention_over_the_image_has_no_radius():
  assert analysis.receptive_radius(build('rcan', {'groups': 1, 'blocks': 1})) is None
  assert (
    analysis.receptive_radius(build('rcan', {'attention': False})) == 1 + 2 * (2 * 2 + 1) + 1 + 2
  )


@pytest.mark.parametrize('name', ['edsr', 'vdsr', 'fsrcnn'])
def test_depth_widens_and_width_does_not(name):
  shallow, deep = (analysis.receptive_radius(build(name, {'blocks': n})) for n in (3, 7))
  wide = analysis.receptive_radius(build(name, {'blocks': 7, 'features': 16}))
  assert shallow < deep == wide


@pytest.mark.parametrize(
  ('function', 'radius'),
  [
    (nn.Conv(2, (1, 5)), 2),
    (nn.Conv(2, (1, 3), kernel_dilation=(1, 6)), 6),
    (nn.Conv(1, (3, 7), padding=((1, 1), (3, 3)), conv_general_dilated=ops.convolve), 3),
    (nn.remat(nn.Conv)(2, (1, 9)), 4),
    (lambda x: jnp.roll(x, 5, axis=2), 5),
    (lambda x: nn.max_pool(x, (1, 5), padding='SAME'), 2),
    (lambda x: nn.avg_pool(x, (1, 3), padding='SAME'), 1),
    (lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 1, 7, 1), (1, 1, 1, 1), 'SAME'), 3),
    (lambda x: x / (1 + jnp.abs(x)), 0),
    (lambda x: x / x.prod(), None),
    (lambda x: x - x.mean(2, keepdims=True), None),
    (lambda x: 0 * x + 1, 0),  # the factors of a product are not inspected
  ],
)
def test_radius_of_one_layer_is_that_by_hand(function, radius):
  assert analysis.receptive_radius(Around(function=function)) == radius


@pytest.mark.parametrize(
  ('name', 'function'),
  [
    ('cumsum', lambda x: jnp.cumsum(x, 1)),
    ('dynamic_slice', lambda x: jnp.roll(x, x.sum().astype(int), 1)),
    ('dynamic_update_slice', lambda x: lax.dynamic_update_slice(x, x[:, :, 3:4], (0, 0, 0, 0))),
    ('fft', lambda x: jnp.fft.fft(x, axis=1).real),
    ('gather', lambda x: x[:, :, jnp.array([3, 1, 2, 0])]),
    ('scatter-add', lambda x: x.at[:, :, jnp.array([3, 1])].add(x[:, :, :2])),
    ('sort', lambda x: jnp.median(x, 1, keepdims=True)),
    ('split', lambda x: jnp.split(x, 2, axis=2)[0]),
    ('top_k', lambda x: lax.top_k(x[..., 0], 2)[0]),
  ],
)
def test_a_primitive_without_a_rule_is_named(name, function):
  with pytest.raises(ValueError, match=f"field of the primitive '{name}' is not known"):
    analysis.receptive_radius(Around(function=function))


@pytest.mark.parametrize(
  ('message', 'function'),
  [
    ('loop', lambda x: lax.map(jnp.sin, x)),
    ('loop', lambda x: lax.fori_loop(0, 3, lambda _, y: y * 2, x)),
    ('loop', lambda x: lax.while_loop(lambda y: y.sum() < 3, lambda y: y * 2, x)),
    ('cond', lambda x: lax.cond(x.sum() > 0, lambda y: y, lambda y: y[:, ::-1], x)),
  ],
)
@pytest.mark.parametrize('ask', [analysis.receptive_radius, analysis.layers, analysis.measure])
def test_loops_and_branches_are_refused(message, function, ask):
  with pytest.raises(ValueError, match=message):
    ask(Around(function=function))


def convolve(*shape, strides=(1, 1), padding='SAME', **options):
  kernel = np.random.default_rng(1).uniform(1, 2, shape).astype(np.float32)
  return lambda x: lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=NHWC, **options
  )


@pytest.mark.parametrize(
  'function',
  [
    convolve(3, 3, 2, 3),
    convolve(2, 3, 2, 3, strides=(2, 3)),
    convolve(3, 2, 1, 4, feature_group_count=2),
    convolve(3, 3, 2, 1, rhs_dilation=(2, 1)),
    convolve(3, 3, 2, 1, lhs_dilation=(2, 3), padding=((1, 2), (0, 3))),
    convolve(3, 3, 2, 1, padding=((-1, 2), (2, -2))),
    convolve(4, 3, 2, 2, lhs_dilation=(2, 2), padding=((-2, 3), (3, -1)), strides=(1, 2)),
    lambda x: ops.deconvolve(x, jnp.ones((3, 3, 1, 2)), 2, 1),
    lambda x: ops.convolve(x, jnp.ones((3, 3, 1, 2)), (2, 2), [(1, 1)] * 2,
      dimension_numbers=NHWC, feature_group_count=2),
    lambda x: ops.upsample(x, 3),
    lambda x: ops.upsample(x, 2, method='lanczos3', boundary='mirror'),
    lambda x: ops.resize(x, 3, 4, method='cubic'),
    lambda x: ops.resize(x, 4, 3, method='linear', antialias=False),
    lambda x: ops.pixel_shuffle(x.repeat(2, -1), 2),
    lambda x: lax.pad(x, 0.0, ((0, 0, 0), (2, -1, 1), (-2, 1, 2), (0, 0, 0))),
    lambda x: jnp.pad(x, ((0, 0), (2, 1), (1, 3), (0, 0)), mode='reflect'),
    lambda x: jnp.flip(x, 2)[:, 1:5:2, ::3],
    lambda x: jnp.concatenate([x, x[:, ::-1] * 2, jnp.ones(x.shape)], axis=-1),
    lambda x: nn.softmax(x, axis=2),
    lambda x: x * x.mean((1, 3), keepdims=True),
    lambda x: jnp.einsum('bhwc,bhvc->bwv', x, x),
    lambda x: jnp.einsum('bhwc,hk->bkwc', x, np.tri(6, 3, dtype=np.float32)),
    lambda x: jnp.einsum('hk,bhwc->bkwc', np.eye(6, 4, k=-1, dtype=np.float32), x),
    lambda x: nn.avg_pool(x, (3, 2), (2, 1)),
    lambda x: jax.nn.gelu(x.transpose(2, 0, 3, 1).reshape(14, 6) + 1),
    lambda x: jnp.where(x > 2, x, 0.5 * x).squeeze(0)[..., None],
    lambda x: jax.checkpoint(lambda y: y[:, 1:] + y[:, :-1])(x),
  ],
)  # fmt: skip
def test_marks_are_the_pattern_of_the_jacobian(rng, function):
  """For a few elements of the image, the marks are the nonzeros of the Jacobian's column."""
  x = jnp.asarray(rng.uniform(0.5, 1, SHAPE), jnp.float32)
  jacobian = np.asarray(quick(jax.jacrev(function))(x)) != 0
  program = trace(function, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
  for place in rng.permutation(list(np.ndindex(*SHAPE)))[:6]:
    marks = np.zeros(SHAPE, bool)
    marks[tuple(place)] = True
    (found,) = receptive_field.run(program, {program.inputs[-1]: marks})
    np.testing.assert_array_equal(found, jacobian[(..., *place)])
