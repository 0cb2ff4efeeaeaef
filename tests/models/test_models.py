"""Properties of every network: costs, shapes, precision, features and options."""

import ast
from importlib import import_module
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import specs
from jaxsr import models, ops
from jaxsr.errors import UserError
from models.small import FREE, KEY, TRAINABLE, build, draw, quick, shapes

FAR = ('rcan', 'rlfn', 'swinir')  # attention reaches further than convolutions, or works in windows
LIGHT_SWINIR = {'features': 60, 'depths': (6, 6, 6, 6), 'upsampler': 'direct'}
VARIANTS = [
  ('edsr', {'upsampler': 'direct'}),
  ('rcan', {'attention': False}),
  ('span', {'folded': True}),
  ('srdensenet', {'variant': 'prelu'}),
  ('srdensenet', {'variant': 'dense'}),
  ('swinir', {'upsampler': 'direct'}),
]
WITH_SKIP = [name for name in TRAINABLE if 'bicubic_skip' in models.fields(name)]
SKIPS = [
  *((name, {'bicubic_skip': True}, 2) for name in WITH_SKIP),
  ('edsr', {'bicubic_skip': True}, 4),
  ('edsr', {'bicubic_skip': True, 'upsampler': 'direct'}, 4),
  ('vdsr', {}, 4),
]


def parameters(name, channels, options, *, scale=4):
  network = models.build(name, options, scale=scale, channels=channels)
  with ops.plain():  # which is quicker to trace
    _, variables = shapes(network, (1, 16, 16, channels), train=False)
  return models.count_parameters(variables)


@pytest.mark.parametrize(
  ('name', 'channels', 'options', 'count'),
  [
    *((name, *row) for name, spec in specs.SPECS.items() for row in spec.counts),
    *((name, channels, {}, 0) for name in FREE for channels in (1, 3)),
  ],
)
def test_parameters_are_the_published_ones(name, channels, options, count):
  assert parameters(name, channels, options) == count


@pytest.mark.parametrize(
  ('name', 'options', 'count'),
  [('span', {'folded': True}, 410_700), ('rlfn', {}, 526_856)],  # 411 K, 527 K
)
def test_parameters_at_scale_2_are_the_published_ones(name, options, count):
  assert parameters(name, 3, options, scale=2) == count


def test_full_edsr_has_43_million_parameters():
  count = parameters('edsr', 3, {'features': 256, 'blocks': 32, 'residual_scaling': 0.1})
  assert round(count / 1e6, 1) == 43.1


@pytest.mark.parametrize(('scale', 'published'), [(2, 878), (3, 886), (4, 897)])
def test_light_swinir_has_the_published_parameters(scale, published):
  """The paper's counts, in thousands, exclude the position bias tables."""
  tables = 24 * (2 * 8 - 1) ** 2 * 6
  count = parameters('swinir', 3, LIGHT_SWINIR, scale=scale)
  assert round((count - tables) / 1e3) == published


@pytest.mark.parametrize('name', models.MODELS)
@pytest.mark.parametrize('scale', models.SCALES)
@pytest.mark.parametrize('channels', [1, 3])
def test_output_is_scale_times_the_input(name, scale, channels):
  network = build(name, scale=scale, channels=channels)
  odd = {2: (2, 1), 4: (33, 40), 8: (7, 8)}.get(scale)
  for height, width in [(12, 9), odd] if odd else [(12, 9)]:
    sr, _ = shapes(network, (2, height, width, channels), train=False)
    assert sr.shape == (2, height * scale, width * scale, channels)
    assert sr.dtype == jnp.float32


@pytest.mark.parametrize(('name', 'options'), VARIANTS)
@pytest.mark.parametrize('scale', models.SCALES)
def test_variants_enlarge_by_the_scale(name, options, scale):
  sr, _ = shapes(build(name, options, scale=scale), (1, 5, 7, 1), train=False)
  assert sr.shape == (1, 5 * scale, 7 * scale, 1)


@pytest.mark.parametrize('name', TRAINABLE)
def test_bfloat16_computes_low_and_keeps_float32_outside(name, rng):
  lr = jnp.asarray(rng.random((1, 12, 12, 3), dtype=np.float32))
  full, low = (build(name, channels=3, precision=p) for p in models.PRECISIONS)
  variables = draw(rng, low, lr.shape, train=False)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))

  @quick
  def run(variables, x):
    options = {'train': False, 'mutable': ['features']}
    return full.apply(variables, x, **options)[0], low.apply(variables, x, **options)

  a, (b, sown) = run(variables, lr)
  assert b.dtype == jnp.float32
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(sown))
  largest = float(jnp.abs(a).max())  # SPAN's own are hundreds
  np.testing.assert_allclose(a, b, atol=0.05 * (largest if name == 'span' else min(1, largest)))


@pytest.mark.parametrize('name', TRAINABLE)
def test_features_are_sown_only_when_asked_for(name):
  network, lr = build(name), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
  _, variables = shapes(network, lr.shape, train=False)
  variables.pop('features')
  _, found = jax.eval_shape(
    lambda v, x: network.apply(v, x, train=False, mutable=['features']), variables, lr
  )
  assert len(found['features']['trunk']) == (3 if name == 'fsrcnn' else 2)
  sr = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, lr)
  assert isinstance(sr, jax.ShapeDtypeStruct)


@pytest.mark.parametrize('name', TRAINABLE)
def test_running_averages_stay_float32_in_bfloat16_training(name):
  network = build(name, precision='bfloat16')
  sr, variables = shapes(network, (2, 8, 8, 1), train=True)
  assert sr.dtype == jnp.float32
  averages = jax.tree.leaves(variables.get('batch_stats', {}))
  assert bool(averages) == (name in ('srresnet', 'swift_srgan'))
  assert all(x.dtype == jnp.float32 for x in averages)


@pytest.mark.parametrize(('name', 'options', 'scale'), SKIPS)
@pytest.mark.parametrize('channels', [1, 3])
def test_a_network_with_a_skip_starts_at_bicubic(name, options, scale, channels, rng):
  """Only the last convolution has its initial value; all others are random."""
  lr = jnp.asarray(rng.random((1, 8, 8, channels), dtype=np.float32))
  network = build(name, options, scale=scale, channels=channels)
  variables = draw(rng, network, lr.shape, train=False)
  last = 'tail' if 'tail' in variables['params'] else max(variables['params'])

  @quick
  def run(variables, x):
    initial = network.init(KEY, x, train=False)['params'][last]
    params = variables['params'] | {last: initial}
    return network.apply(variables | {'params': params}, x, train=False)

  np.testing.assert_array_equal(run(variables, lr), ops.upsample(lr, scale))


@pytest.mark.parametrize('name', [name for name in TRAINABLE if name not in FAR])
def test_far_pixels_do_not_matter(name, rng):
  """Away from the border, a convolutional network commutes with cropping."""
  lr = jnp.asarray(rng.random((1, 40, 40, 1), dtype=np.float32))
  network = build(name)
  variables = draw(rng, network, lr.shape, train=False)
  run = lambda x: network.apply(variables, x, train=False)
  full, part = quick(lambda x: (run(x), run(x[:, 8:, 4:])))(lr)
  np.testing.assert_allclose(full[:, 40:60, 40:60], part[:, 24:44, 32:52], atol=1e-5)


def test_what_is_unknown_is_named_with_the_nearest():
  with pytest.raises(UserError, match="did you mean 'edsr'"):
    models.build('edsrr', scale=4)
  with pytest.raises(UserError, match="did you mean 'blocks'"):
    models.build('vdsr', {'block': 3}, scale=4)
  with pytest.raises(UserError, match='scale 5 is not supported'):
    models.build('vdsr', scale=5)
  with pytest.raises(UserError, match="did you mean 'bfloat16'"):
    models.build('vdsr', scale=4, precision='bf16loat')


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('edsr', {'blocks': '4'}, "edsr': blocks '4' is not an integer"),
    ('edsr', {'blocks': True}, 'blocks True is not an integer'),
    ('edsr', {'blocks': 10_000_000}, 'blocks 10000000 is more than 10,000'),
    ('edsr', {'bicubic_skip': 'yes'}, "bicubic_skip 'yes' is not true or false"),
    ('edsr', {'residual_scaling': None}, 'residual_scaling None is not a number'),
    ('srcnn', {'kernels': 9}, 'kernels 9 is not a list'),
    ('srcnn', {'kernels': [9, '5', 5]}, 'is not an integer'),
  ],
)
def test_options_of_another_type_are_refused(name, options, message):
  with pytest.raises(UserError, match=message):
    models.build(name, options, scale=4)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('srdensenet', {'variant': 'al'}, "variant 'al' is not one of 'all', 'prelu', 'dense'"),
    ('swinir', {'heads': 5}, 'features=12 is not a multiple of heads=5'),
    ('swinir', {'upsampler': 'x'}, "upsampler 'x' is not one of 'shuffle', 'direct'"),
    ('edsr', {'upsampler': 'x'}, "upsampler 'x' is not one of 'shuffle', 'direct'"),
    ('srcnn', {'edges': 'x'}, "boundary 'x' is not one of 'cut', 'mirror'"),
    ('vdsr', {'edges': 'x'}, "boundary 'x' is not one of 'cut', 'mirror'"),
  ],
)
def test_an_option_that_is_not_one_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    shapes(build(name, options), (1, 8, 8, 1), train=False)


def layers():
  """Yields all modules except parameter-free networks, as `module.Layer` or a network's name."""
  for path in Path(models.__file__).parent.glob('[!_]*.py'):
    module = import_module(f'jaxsr.models.{path.stem}')
    for kind in vars(module).values():
      if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not models.Network:
        names = [name for name, other in models.MODELS.items() if other is kind]
        if kind.__module__ == module.__name__ and not set(names) & set(FREE):
          yield names[0] if names else f'{path.stem}.{kind.__name__}'


def used_in(path):
  """Returns the `module.Layer` attributes and the strings of a test's code, without docstrings."""
  nodes = list(ast.walk(ast.parse(path.read_text(encoding='utf-8'))))
  attributes = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
  strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
  return attributes | strings


def test_every_layer_is_compared_with_pytorch():
  paths = Path(__file__).parent.glob('test_references*.py')
  compared = set().union(*map(used_in, paths))
  found = list(layers())
  assert set(TRAINABLE) <= set(found) and 'layers.Upsampler' in found
  missing = [name for name in found if name not in compared]
  assert not missing, f'compare with PyTorch in tests/models/test_references*.py: {missing}'
