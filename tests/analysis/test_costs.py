"""Costs of networks, compared with published counts and counts by hand."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline
from jaxsr import analysis, models, ops
from jaxsr.models import Network
from jaxsr.models.layers import Deconvolution
from jaxsr.models.swift_srgan import SeparableConv
from models.small import FREE, KEY, TRAINABLE, build, quick, shapes

SMALL_RDN = {'blocks': 5, 'layers': 3, 'features': 32, 'growth': 32}
PIXELS = analysis.SIDE**2
REMAT = [name for name in TRAINABLE if 'remat' in models.fields(name)]
DEPTHWISE = nn.Conv(3, (9, 9), padding=4, feature_group_count=3, conv_general_dilated=ops.convolve)


class Around(Network):
  """A network that consists of one function or module."""

  scale: int = 1
  layer: Callable = None

  def __call__(self, lr, *, train):
    return self.layer(lr)


def macs(layer, channels=3):
  return analysis.layers(Around(layer=layer, channels=channels)).macs


def flat(layer, path=()):
  """Returns the layers below a layer by path."""
  for each in layer.inner:
    yield (*path, each.name), each
    yield from flat(each, (*path, each.name))


@pytest.mark.parametrize(
  ('name', 'options', 'channels', 'gmacs'),
  [
    ('rdn', SMALL_RDN, 1, 33.4),
    ('rdn', {}, 1, 1_488),
    ('span', {'folded': True, 'features': 28}, 3, 9.8),
    ('srcnn', {'kernels': (9, 1, 5)}, 1, 8.4),
    ('srcnn', {'kernels': (9, 3, 5)}, 1, 25.6),
    ('srcnn', {}, 1, 60.0),
    ('srdensenet', {'variant': 'prelu'}, 1, 185),
    ('srdensenet', {}, 1, 292),
    ('srresnet', {}, 3, 145.4),
    ('swift_srgan', {}, 1, 21.2),
    ('vdsr', {}, 1, 697),
  ],
)
def test_gmacs_are_the_published_ones(name, options, channels, gmacs):
  found = analysis.layers(models.build(name, options, scale=4, channels=channels))
  assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(
  ('blocks', 'features', 'parameters', 'gmacs'),
  [(8, 64, 123_385, 16.4), (16, 32, 58_745, 7.1), (8, 32, 36_217, 5.7), (4, 16, 8_249, 2.05)],
)
def test_the_compressed_swift_srgans_cost_what_was_measured(blocks, features, parameters, gmacs):
  options = {'blocks': blocks, 'features': features}
  found = analysis.layers(models.build('swift_srgan', options, scale=4, channels=3))
  assert found.parameters == parameters
  assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(
  ('layer', 'expected'),
  [
    (nn.Conv(7, (5, 5)), PIXELS * 25 * 3 * 7),
    (nn.Conv(7, (5, 3), strides=2), PIXELS // 4 * 15 * 3 * 7),
    (nn.Conv(7, (3, 3), kernel_dilation=4), PIXELS * 9 * 3 * 7),
    (nn.Conv(7, (3, 3), padding='VALID'), 1022**2 * 9 * 3 * 7),
    (nn.Conv(7, (3, 3), padding=-1), 1020**2 * 9 * 3 * 7),
    (nn.Conv(6, (3, 3), feature_group_count=3), PIXELS * 9 * 1 * 6),
    (DEPTHWISE, PIXELS * 81 * 3),
    (SeparableConv(7, 3), PIXELS * (9 * 3 + 3 * 7)),
    (Deconvolution(5, 4, 9, padding=4), PIXELS * 81 * 3 * 5),  # of each input
    (Deconvolution(5, 2, 2), PIXELS * 4 * 3 * 5),
    (nn.ConvTranspose(5, (4, 4), (2, 2)), PIXELS * 16 * 3 * 5),
    (nn.Dense(7), PIXELS * 3 * 7),
    (lambda x: jnp.einsum('bhwc,bhwd->bcd', x, x), PIXELS * 3 * 3),
    (lambda x: jnp.einsum('bhwc,bhvc->bhwv', x, x), 1024 * PIXELS * 3),
    (lambda x: nn.relu(x.mean((1, 2), keepdims=True) * 3 + x), 0),
    (lambda x: ops.upsample(x, 4), 0),
    (nn.remat(nn.Conv)(7, (5, 5)), PIXELS * 25 * 3 * 7),
  ],
)
def test_macs_of_one_layer_are_those_by_hand(layer, expected):
  assert macs(layer) == expected


def test_groups_divide_the_macs():
  wide, grouped = (macs(nn.Conv(8, (3, 3), feature_group_count=n), 12) for n in (1, 4))
  assert wide == 4 * grouped == PIXELS * 9 * 12 * 8


@pytest.mark.parametrize('name', FREE)
def test_interpolation_counts_nothing(name):
  found = analysis.layers(models.build(name, scale=4))
  assert (found.parameters, found.macs, found.inner) == (0, 0, ())


@pytest.mark.parametrize('name', ['fsrcnn', 'rdn', 'srdensenet'])
def test_a_skip_of_interpolation_counts_nothing(name):
  plain, skip = (analysis.layers(build(name, {'bicubic_skip': on})) for on in (False, True))
  assert plain.macs == skip.macs


@pytest.mark.parametrize('name', TRAINABLE)
@pytest.mark.parametrize('channels', [1, 3])
def test_parameters_are_those_of_an_initialization(name, channels):
  network = build(name, channels=channels)
  _, variables = shapes(network, (1, 16, 16, channels), train=False)
  assert analysis.layers(network).parameters == models.count_parameters(variables)


def test_a_real_initialization_has_them_too():
  network = build('srcnn')
  variables = quick(lambda x: network.init(KEY, x, train=False))(jnp.zeros((1, 8, 8, 1)))
  assert analysis.measure(network).parameters == models.count_parameters(variables)


def test_width_and_depth_divide_the_macs_as_they_should():
  full, wide, deep = (
    analysis.layers(models.build('edsr', options, scale=4))
    for options in ({}, {'width': 0.5}, {'depth': 0.5})
  )
  conv, ends = PIXELS // 16 * 9 * 64 * 64, PIXELS // 16 * 9 * 64 + PIXELS * 9 * 64
  assert full.macs == (33 + 4 + 16) * conv + ends
  assert wide.macs == (33 + 4 + 16) * conv // 4 + ends // 2
  assert deep.macs == (17 + 4 + 16) * conv + ends


@pytest.mark.parametrize('name', TRAINABLE)
def test_layers_add_up_and_have_the_names_of_the_parameters(name):
  network = build(name)
  _, variables = shapes(network, (1, 16, 16, 1), train=False)
  top = analysis.layers(network)
  found = {(): top} | dict(flat(top))

  def check(params, path):
    layer = found.pop(path)
    inner = {k: v for k, v in params.items() if isinstance(v, dict)}
    own = {'params': {k: v for k, v in params.items() if k not in inner}}
    assert {each.name for each in layer.inner} == inner.keys()
    parts = sum(each.parameters for each in layer.inner)
    assert layer.parameters == models.count_parameters(own) + parts
    below = sum(each.macs for each in layer.inner)
    if name == 'swinir' and path[-1:] == ('attention',):  # its products of pixels are its own
      assert layer.macs - below == 2 * 512**2 * 16 * 12
    elif inner:
      assert layer.macs == below
    for key, value in inner.items():
      check(value, (*path, key))

  check(variables['params'], ())
  assert not found


@pytest.mark.parametrize('name', ['rdn', 'swift_srgan', 'bicubic'])
def test_the_total_is_that_of_the_layers(name):
  network = build(name)
  total, top = analysis.measure(network), analysis.layers(network)
  assert (total.parameters, total.macs) == (top.parameters, top.macs)
  assert top.output == (1, analysis.SIDE, analysis.SIDE, 1)


@pytest.mark.parametrize(
  ('name', 'layer', 'output'),
  [
    ('rdn', 'block_1/conv_0', (512, 512, 4)),
    ('rdn', 'fusion_1', (512, 512, 8)),  # in `_fuse`
    ('rdn', 'tail', (1024, 1024, 1)),
    ('srresnet', 'upsampler_0', (512, 512, 32)),  # in `_enlarge`
    ('srresnet', 'prelu_0', (1024, 1024, 8)),
    ('swift_srgan', 'upsampler_0/pointwise', (512, 512, 32)),
    ('swinir', 'group_1/block_0/attention/qkv', (128 * 128, 16, 36)),  # in `_trunk`, `_attend`
    ('swinir', 'group_1/block_0/mlp_0', (512, 512, 24)),
  ],
)
def test_what_methods_call_is_there_with_its_output(name, layer, output):
  found = {'/'.join(path): each for path, each in flat(analysis.layers(build(name)))}
  assert found[layer].output[-len(output) :] == output


@pytest.mark.parametrize('name', REMAT)
def test_remat_changes_no_cost(name):
  options = {'attention': False} if name == 'rcan' else {}
  plain, again = (build(name, options | {'remat': on}) for on in (False, True))
  assert analysis.layers(plain) == analysis.layers(again)
  if name in ('rcan', 'rdn'):
    assert analysis.measure(plain) == analysis.measure(again)


def test_the_work_of_any_function_is_counted():
  kernel, image = jnp.ones((3, 3, 8, 16)), jnp.ones((2, 10, 12, 8))
  convolve = lambda x, k: ops.convolve(x, k, (1, 1), 'SAME', dimension_numbers=ops.NHWC)
  found = analysis.count(convolve, image, kernel)
  pixels = 2 * 10 * 12
  assert found.macs == pixels * 9 * 8 * 16
  assert found.bytes == 4 * (pixels * (8 + 16) + kernel.size)
  both = jax.grad(lambda x, k: convolve(x, k).sum(), argnums=(0, 1))
  assert analysis.count(both, image, kernel).macs == 3 * found.macs


def test_a_roof_is_the_matrix_rate_or_what_memory_allows():
  roof = roofline.Roof(flops=1_000.0, bytes=10.0)
  dense = roofline.place(roof, analysis.Work(macs=4_000, bytes=20), seconds=16.0)
  assert (dense['bound'], dense['utilization'], dense['of_roof']) == ('compute', 0.5, 0.5)
  thin = roofline.place(roof, analysis.Work(macs=100, bytes=20), seconds=4.0)
  assert (thin['bound'], thin['utilization'], thin['of_roof']) == ('memory', 0.05, 0.5)


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_the_rates_of_this_machine_are_measured(precision, monkeypatch):
  monkeypatch.setattr(roofline, '_SIDE', {jax.default_backend(): 256})
  roof = roofline.measure(precision)
  assert 1e8 < roof.flops < 1e16 and 1e8 < roof.bytes < 1e14
