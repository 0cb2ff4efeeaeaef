"""Reading of names, layouts, types and shapes, and the messages for tensors that do not fit."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from jaxsr import interop, models
from jaxsr.data import sources
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.evaluation.evaluator import Evaluator, summarize
from jaxsr.interop import WeightMismatchError, trial
from models.small import SMALL, TRAINABLE, build, draw, quick

ROWS_LAST = {'OIHW': (3, 2, 0, 1), 'HWIO': (0, 1, 2, 3)}


def small(rng, name, scale=2, channels=1):
  """Draw random variables of a small network."""
  return draw(rng, build(name, scale=scale, channels=channels), (1, 16, 16, channels), train=False)


def named(variables, separator='.', *, collection=False):
  """Returns arrays by this project's names."""
  paths = flatten_dict(variables)
  return {separator.join(p if collection else p[1:]): np.asarray(x) for p, x in paths.items()}


BASICSR = (  # this project's paths of an EDSR, and BasicSR's
  (r'head\.', r'conv_first.'),
  (r'block_(\d)\.conv_0', r'body.\1.conv1'),
  (r'block_(\d)\.conv_1', r'body.\1.conv2'),
  (r'body\.(?=[kb])', r'conv_after_body.'),
  (r'upsampler\.conv_0', r'upsample.0'),
  (r'upsampler\.conv_1', r'upsample.2'),
  (r'tail\.', r'conv_last.'),
)


def basicsr(variables, layout='OIHW', order='torch'):
  """Returns an EDSR's arrays by BasicSR's names and in its layout."""
  found = {}
  for name, x in named(variables).items():
    if order == 'torch' and name.startswith('upsampler'):
      x = x.reshape(*x.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(x.shape)
    pattern, theirs = next(rule for rule in BASICSR if re.match(rule[0], name))
    name = re.sub(pattern, theirs, name, count=1).replace('kernel', 'weight')
    found[name] = x.transpose(ROWS_LAST[layout]) if x.ndim == 4 else x
  return found


@pytest.fixture
def edsr(rng):
  """A small EDSR x4 for RGB: its variables in Flax, and its tensors in BasicSR's format."""
  variables = small(rng, 'edsr', 4, 3)
  return variables, basicsr(variables)


def same(found, variables, **tolerance):
  ours, theirs = flatten_dict(found.variables), flatten_dict(variables)
  assert ours.keys() == theirs.keys()
  for path, x in ours.items():
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, theirs[path], **({'rtol': 0} | tolerance), err_msg=str(path))


def mismatch(tensors, model='edsr', scale=4, **options):
  with pytest.raises(WeightMismatchError) as caught:
    interop.read(tensors, model=model, scale=scale, **options)
  assert isinstance(caught.value, UserError)
  assert '\n' not in str(caught.value)
  return caught.value


@pytest.mark.parametrize('name', TRAINABLE)
@pytest.mark.parametrize('form', [{}, {'separator': '/', 'collection': True}])
def test_own_names_and_what_shapes_tell(name, form, rng):
  channels = 3 if name in ('rdn', 'vdsr') else 1
  variables = small(rng, name, 2, channels)
  found = interop.read(named(variables, **form), model=name, scale=2)
  assert (found.naming, found.layout, found.channels) == ('this project', 'HWIO', channels)
  assert found.options.items() >= SMALL[name].items()
  same(found, variables)


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('edsr', {'upsampler': 'direct'}),
    ('rcan', {'attention': False}),
    ('rlfn', {'middle': 6}),
    ('span', {'folded': True}),
    ('srcnn', {'kernels': (9, 1, 5)}),
    ('srdensenet', {'variant': 'dense'}),
    ('srdensenet', {'variant': 'prelu'}),
    ('swinir', {'upsampler': 'direct', 'mlp_ratio': 4.0}),
  ],
)
def test_variants_are_read_from_shapes(name, options, rng):
  network = build(name, options)
  variables = draw(rng, network, (1, 16, 16, 1), train=False)
  found = interop.read(named(variables), model=name, scale=2)
  assert found.options.items() >= options.items()
  same(found, variables)


@pytest.mark.parametrize(('features', 'scaling'), [(255, 1.0), (256, 0.1)])
def test_the_wide_edsr_scales_its_residuals(features, scaling):
  shapes = {'head': (3, 3, 1, features), 'tail': (3, 3, features, 4)}
  inner = ('block_0.conv_0', 'block_0.conv_1', 'body')
  shapes |= {name: (3, 3, features, features) for name in inner}
  tensors = {f'{name}.kernel': np.zeros(shape, np.float32) for name, shape in shapes.items()}
  tensors |= {f'{name}.bias': np.zeros(shape[-1]) for name, shape in shapes.items()}
  assert interop.read(tensors, model='edsr', scale=2).options['residual_scaling'] == scaling


@pytest.mark.parametrize('layout', ['OIHW', 'HWIO'])
def test_both_layouts_under_public_names(layout, edsr):
  variables, _ = edsr
  found = interop.read(basicsr(variables, layout), model='edsr', scale=4)
  assert (found.naming, found.layout, found.channels) == ('BasicSR', layout, 3)
  same(found, variables)


def test_order_of_channels_before_a_shuffle(edsr):
  variables, theirs = edsr
  found = interop.read(basicsr(variables, order='tensorflow'), model='edsr', scale=4)
  with pytest.raises(AssertionError):
    same(found, variables)
  unordered = basicsr(variables, order='tensorflow')
  same(interop.read(unordered, model='edsr', scale=4, order='tensorflow'), variables)
  same(interop.read(theirs, model='edsr', scale=4, order='torch'), variables)


def test_order_may_be_set_under_own_names(edsr):
  variables, theirs = edsr
  tensors = named(variables)
  for i in (0, 1):
    kernel, bias = theirs[f'upsample.{2 * i}.weight'], theirs[f'upsample.{2 * i}.bias']
    tensors[f'upsampler.conv_{i}.kernel'] = kernel.transpose(2, 3, 1, 0)
    tensors[f'upsampler.conv_{i}.bias'] = bias
  same(interop.read(tensors, model='edsr', scale=4, order='torch'), variables)


@pytest.mark.parametrize(
  'wrapper',
  [
    *('module.', 'params_ema.', 'params.', 'state_dict.module.', 'generator.', 'model.net.'),
    *('_orig_mod.', 'module._orig_mod.', 'generator_ema.', 'net_g.', 'teacher.0.', 'body.'),
  ],
)
def test_wrappers(wrapper, edsr):
  variables, theirs = edsr
  wrapped = {wrapper + name: x for name, x in theirs.items()}
  same(interop.read(wrapped, model='edsr', scale=4), variables)


def test_own_names_may_have_a_prefix_too(edsr):
  tensors = {f'ema/params/{k}': x for k, x in named(edsr[0], '/').items()}
  same(interop.read(tensors, model='edsr', scale=4), edsr[0])


@pytest.mark.parametrize(
  ('dtype', 'error'), [(np.float16, 1e-3), (np.float64, 0), (jnp.bfloat16, 8e-3)]
)
def test_kinds_of_number(dtype, error, edsr):
  variables, theirs = edsr
  found = interop.read({k: x.astype(dtype) for k, x in theirs.items()}, model='edsr', scale=4)
  same(found, variables, rtol=error, atol=error / 100)


def edsr_pytorch(theirs):
  """Returns BasicSR's arrays by the names of EDSR-PyTorch."""
  names = {'conv_first': 'head.0', 'conv_after_body': 'body.2', 'conv_last': 'tail.1'}
  names |= {f'body.{i}.conv{j}': f'body.{i}.body.{2 * j - 2}' for i in (0, 1) for j in (1, 2)}
  names |= {f'upsample.{i}': f'tail.0.{i}' for i in (0, 2)}
  split = ((*name.rpartition('.'), x) for name, x in theirs.items())
  return {f'{names[module]}.{leaf}': x for module, _, leaf, x in split}


def test_a_stored_mean_is_read_and_must_be_a_mean(edsr):
  tensors = edsr_pytorch(edsr[1])
  options = interop.read(tensors, model='edsr', scale=4).options
  assert options['mean'] == (0.4488, 0.4371, 0.4040) and options['image_range'] == 255
  tensors['sub_mean.weight'] = np.eye(3, dtype=jnp.bfloat16)[..., None, None]
  tensors['sub_mean.bias'] = np.array([-51, -102, -153], jnp.bfloat16)
  mean = interop.read(tensors, model='edsr', scale=4).options['mean']
  assert mean == pytest.approx((0.2, 0.4, 0.6))
  tensors['sub_mean.weight'] = 1.5 * tensors['sub_mean.weight']
  problems = mismatch(tensors).problems
  assert problems == ['sub_mean.weight (3, 3, 1, 1): should be the identity']
  tensors['sub_mean.weight'] = np.eye(3, dtype=np.float32)[..., None, None]
  tensors['add_mean.weight'] = tensors['sub_mean.weight']
  tensors['add_mean.bias'] = np.array([51, 102, 150], np.float32)
  problems = mismatch(tensors).problems
  assert problems == ['add_mean.bias (3,): should be what sub_mean subtracts']


@pytest.mark.parametrize('unit', [True, False])
def test_a_stored_mean_tells_the_image_range(edsr, unit):
  tensors = edsr_pytorch(edsr[1])
  mean, largest = np.array([0.2, 0.4, 0.6], np.float32), 1 if unit else 255
  tensors['sub_mean.weight'] = np.eye(3, dtype=np.float32)[..., None, None]
  tensors['sub_mean.bias'] = -mean * largest
  options = interop.read(tensors, model='edsr', scale=4).options
  assert options['mean'] == pytest.approx(mean) and options['image_range'] == largest


def test_a_stored_mean_of_one_channel_is_named(edsr):
  tensors = edsr_pytorch(edsr[1])
  tensors['sub_mean.weight'] = np.ones((1, 1, 1, 1), np.float32)
  tensors['sub_mean.bias'] = np.array([-100], np.float32)
  assert mismatch(tensors).problems == [
    'sub_mean.weight (1, 1, 1, 1): should be (3, 3, 1, 1), the mean of RGB',
    'sub_mean.bias (1,): should be (3,), the mean of RGB',
  ]


@pytest.mark.parametrize(
  ('name', 'value', 'text'),
  [
    ('residual_scaling', np.nan, 'is not finite'),
    ('residual_scaling', np.inf, 'is not finite'),
    ('image_range', 0.0, 'is not positive'),
    ('image_range', -1.0, 'is not positive'),
    ('mean', (0.4, np.nan, 0.4), 'is not finite'),
  ],
)
def test_an_option_that_computes_no_image_is_refused(edsr, name, value, text):
  with pytest.raises(UserError, match=text):
    interop.read(edsr[1], model='edsr', scale=4, options={name: value})


def test_what_does_not_fit_is_listed_by_name_and_shape(edsr):
  _, theirs = edsr
  theirs['conv_last.weight'] = theirs['conv_last.weight'][:, :, :1, :1]
  theirs['more.bias'] = theirs.pop('body.1.conv2.bias')
  assert set(mismatch(theirs).problems) == {
    'conv_last.weight (3, 8, 1, 1): should be (3, 8, 3, 3)',
    'more.bias (8,): is not known',
    'block_1/conv_1/bias (8,): is missing',
  }
  assert 'BasicSR, OIHW' in str(mismatch(theirs))


def test_two_tensors_of_one_place_are_listed(edsr):
  _, theirs = edsr
  theirs['upsample.1.bias'] = theirs['upsample.0.bias'] + 1
  (line,) = mismatch(theirs).problems
  assert line == 'upsample.1.bias (32,): has the same place as upsample.0.bias'


def test_two_own_names_of_one_place_are_listed(edsr):
  ours = named(edsr[0])
  (line,) = mismatch(ours | {'params/tail/bias': ours['tail.bias'] + 1}).problems
  assert line == 'params/tail/bias (3,): has the same place as tail.bias'


def test_own_names_that_do_not_fit_are_listed(rng):
  tensors = named(small(rng, 'srresnet'))
  tensors['body.scale'] = tensors.pop('norm.scale')
  tensors['block_0.norm_0.mean'] = tensors['block_0.norm_0.mean'][:4]
  assert set(mismatch(tensors, 'srresnet', 2).problems) == {
    'norm/scale (8,): is missing',
    'body.scale (8,): has no place in this network',
    'block_0.norm_0.mean (4,): should be (8,)',
  }


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_numbers_that_are_not_finite(value, dtype, edsr):
  _, theirs = edsr
  theirs['conv_first.bias'] = np.array([0, value] * 4, dtype)
  assert mismatch(theirs).problems == ['conv_first.bias (8,): is not finite']


def test_some_biases_missing_is_not_no_biases():
  """Lornatang's VDSR has no biases, so they are zero; a file with one bias must have all."""
  names = ['conv1.0', 'trunk.0.conv', 'trunk.1.conv', 'conv2']
  shapes = [(4, 1, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3), (1, 4, 3, 3)]
  tensors = {f'{n}.weight': np.ones(s, np.float32) for n, s in zip(names, shapes, strict=True)}
  biases = interop.read(tensors, model='vdsr', scale=2).variables['params']['conv_1']['bias']
  np.testing.assert_array_equal(biases, 0)
  tensors['conv2.bias'] = np.zeros(1, np.float32)
  assert [line.split()[0] for line in mismatch(tensors, 'vdsr', 2).problems] == [
    f'conv_{i}/bias' for i in range(3)
  ]


def test_without_its_first_layer_a_network_is_not_clear(edsr):
  _, theirs = edsr
  del theirs['conv_first.weight']
  assert mismatch(theirs).problems == ['the variant of the network is not clear: it has no head']


@pytest.mark.parametrize('model', ['rdn', 'rcan', 'srresnet', 'swinir', 'fsrcnn', 'vdsr'])
def test_another_networks_file(model, edsr):
  found = mismatch(edsr[1], model)
  assert found.problems == []
  assert f'the names of 18 tensors, such as {next(iter(edsr[1]))}, match no known' in str(found)
  assert f'implementation of {model}' in str(found)
  assert 'this project' in str(found) and 'docs/importing.md' in str(found)


@pytest.mark.parametrize(
  ('wrong', 'line'),
  [
    (2, r'upsample\.2\.weight \(32, 8, 3, 3\): has no place'),
    (3, r'upsample\.0\.weight \(32, 8, 3, 3\): should be \(72, 8, 3, 3\)'),
    (8, r'upsampler/conv_2/kernel \(32, 8, 3, 3\): is missing'),
  ],
)
def test_another_scales_file(wrong, line, edsr):
  found = mismatch(edsr[1], scale=wrong)
  assert any(re.match(line, problem) for problem in found.problems)
  assert f'does not fit edsr for scale {wrong}' in str(found)


def test_images_of_other_channels_are_refused(rng):
  assert '4 channels' in str(mismatch(named(small(rng, 'edsr', 2, 4)), scale=2))


def test_options_are_set_over_what_was_read(edsr):
  given = {'residual_scaling': 0.3, 'image_range': 1.0, 'mean': (0.5, 0.5, 0.5)}
  options = interop.read(edsr[1], model='edsr', scale=4, options=given).options
  assert options.items() >= given.items() and options['features'] == 8
  assert interop.read(edsr[1], model='edsr', scale=4).options['image_range'] == 255


@pytest.mark.parametrize(
  ('change', 'text'),
  [
    ({'model': 'esdr'}, "did you mean 'edsr'"),
    ({'model': 'bicubic'}, 'choose one of: edsr'),
    ({'scale': 5}, 'scale 5'),
    ({'options': {'padding': 'zeros'}}, "no option 'padding'"),
    ({'tensors': {}}, 'no tensors'),
  ],
)
def test_what_is_not_understood(change, text, edsr):
  arguments = {'tensors': edsr[1], 'model': 'edsr', 'scale': 4} | change
  with pytest.raises(UserError, match=text):
    interop.read(arguments.pop('tensors'), **arguments)


@pytest.mark.parametrize('own', [True, False])
def test_an_options_bad_value_is_named(own, rng, edsr):
  tensors = named(small(rng, 'edsr')) if own else edsr[1]
  found = mismatch(tensors, options={'upsampler': 'shuffled'})
  assert "upsampler 'shuffled' is not one of 'shuffle', 'direct'" in str(found)


def test_swift_srgan_reproduces_its_authors_sample(shared):
  """The authors' weights and their sample, which was truncated to 8 bit."""
  found = interop.read(stored(shared, 'swift_srgan_nih'), model='swift_srgan', scale=4)
  network = models.build('swift_srgan', found.options, scale=4, channels=3)
  assert models.count_parameters(found.variables) == 201_209
  samples = shared / 'reference' / 'swift_srgan_sample'
  lr = np.asarray(Image.open(samples / 'sample_lr_input.png').convert('RGB'), np.float32) / 255
  expected = np.asarray(Image.open(samples / 'sample_sr_output.png').convert('RGB'), int)
  sr = quick(lambda v, x: network.apply(v, x, train=False))(found.variables, lr[None])
  found_image = np.clip(np.asarray(sr[0]) * 255, 0, 255).astype(int)  # truncated
  assert np.abs(found_image - expected).max() <= 1
  assert (found_image == expected).mean() > 0.999


@pytest.mark.parametrize(
  ('name', 'model', 'scale', 'psnr', 'ssim'),
  [
    pytest.param('vdsr_official', 'vdsr', 2, 37.53, 0.9587, marks=pytest.mark.slow),
    pytest.param('vdsr_official', 'vdsr', 3, 33.66, 0.9213, marks=pytest.mark.slow),
    pytest.param('vdsr_official', 'vdsr', 4, 31.34, 0.8838, marks=pytest.mark.slow),
    pytest.param('peers/rlfn_x4', 'rlfn', 4, 32.24, 0.8952, marks=pytest.mark.slow),
    ('peers/fsrcnn_yjn870_x4', 'fsrcnn', 4, 30.50, None),  # published without SSIM
  ],
)
def test_published_weights_give_their_published_metrics(shared, name, model, scale, psnr, ssim):
  found = interop.read(stored(shared, name), model=model, scale=scale)
  network = models.build(model, found.options, scale=scale, channels=found.channels)
  source = sources.Folder(shared / 'reference' / 'set5', channels=3)
  evaluator = Evaluator(network, source, scale=scale, protocol='luma')
  summary = summarize([row for row, _ in evaluator.measure_all(found.variables)])
  assert summary['n'] == 5
  assert summary['psnr'] == pytest.approx(psnr, abs=0.01)
  assert ssim is None or summary['ssim'] == pytest.approx(ssim, abs=1e-4)


@pytest.mark.parametrize(
  ('name', 'model', 'naming', 'gain'),
  [
    ('srgan_leftthomas_x4', 'srresnet', 'leftthomas, as published', 0.5),
    ('rlfn_ntire22_team04_x4', 'rlfn', 'RLFN of NTIRE 2022', 1.5),
    ('rlfn_ntire24_team16_light_x4', 'rlfn', 'LightRLFN', 1.5),
  ],
)
def test_published_weights_are_better_than_bicubic(shared, name, model, naming, gain):
  """Networks with the same tensor names are distinguished by a trial on a phantom."""
  film = phantom(0, 0, size=128).astype(np.float32) / 255
  found = interop.read(stored(shared, f'peers/{name}'), model=model, scale=4, image=film)
  assert found.naming == naming
  network = models.build(model, found.options, scale=4, channels=found.channels)
  film = phantom(0, 0, size=256).astype(np.float32) / 255
  result = trial.run(network, found.variables, film)
  assert result.psnr > result.bicubic + gain and not result.is_bicubic


def test_swift_srgan_reproduces_what_spandrel_makes_of_it(shared):
  found = interop.read(stored(shared, 'peers/swift_srgan_x4'), model='swift_srgan', scale=4)
  network = models.build('swift_srgan', found.options, scale=4, channels=found.channels)
  peers = shared / 'reference' / 'peers'
  for size in ('16x16', '32x32', '64x64'):
    lr = np.asarray(Image.open(peers / f'spandrel_in_{size}.png').convert('RGB'), np.float32) / 255
    expected = np.asarray(Image.open(peers / f'spandrel_swift_srgan_4x_{size}.png'), int)
    sr = quick(lambda v, x: network.apply(v, x, train=False))(found.variables, lr[None])
    assert np.abs(np.rint(np.clip(np.asarray(sr[0]), 0, 1) * 255) - expected).max() <= 1


def stored(shared, name):
  path = shared / 'reference' / f'{name}.safetensors'
  if not path.is_file():
    pytest.skip(f'{path} is absent')
  return pytest.importorskip('safetensors.numpy', reason='published weights').load_file(path)
