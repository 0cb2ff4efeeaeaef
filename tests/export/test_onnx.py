"""Exported files compute what the model computes, and say what they are."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxsr
from jaxsr import cli, models
from jaxsr.commands import export
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.export import drawn, exportable, rounding, stablehlo
from jaxsr.inference.agreement import Reduction, agreement, project
from jaxsr.inference.model import Model, load
from models.small import TRAINABLE, build, draw

onnx = pytest.importorskip('onnx', reason="needs the extra 'export'")
onnx_file = pytest.importorskip('jaxsr.export.onnx_file', reason="needs the extra 'export'")
ort = pytest.importorskip('onnxruntime', reason="needs the extra 'export'")
pytest.importorskip('flatbuffers', reason="needs the extra 'export'")

ROOT = Path(__file__).parents[2]
CLOSE = 2e-5  # of the largest value
QUICK = ('fsrcnn', 'srcnn')  # beside `edsr`, in the tests of pretrained models
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRAINABLE]


def small_model(name, rng):
  """Build a small network with random variables, as it is exported after training."""
  network = build(name, scale=4)
  variables = draw(rng, network, (1, 16, 16, 1), train=False)
  if name == 'span':  # its attention multiplies activations, which would grow to hundreds
    variables = jax.tree.map(lambda x: 0.7 * x, variables)
  network, variables = models.fold(network, variables)
  return Model(name, network, variables, 4, 1)


def prepared(model, **options):
  size = (24, 16) if model.name == 'swinir' else None
  return exportable.prepare(model, size=size, **options)


@pytest.fixture(scope='module')
def tiny():
  """A pretrained network, prepared, and its ONNX file."""
  prepared = exportable.prepare(load('edsr_x4_tiny'))
  return prepared, onnx_file.serialize(prepared)[0]


@pytest.mark.parametrize('name', ALL)
def test_onnx_equals_jax_at_two_sizes(rng, name):
  found = prepared(small_model(name, rng))
  content, difference = onnx_file.serialize(found)
  assert difference <= CLOSE
  shape = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim
  free = ['b', '', '', ''] if name == 'swinir' else ['b', 'h', 'w', '']
  assert [axis.dim_param for axis in shape] == free


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINABLE)
def test_stablehlo_equals_jax_at_two_sizes(rng, name):
  assert stablehlo.serialize(prepared(small_model(name, rng)))[1] <= CLOSE


def test_stablehlo_is_for_three_platforms():
  content, difference = stablehlo.serialize(exportable.prepare(load('bicubic'), agree=True))
  assert difference <= CLOSE
  assert jax.export.deserialize(bytearray(content)).platforms == stablehlo.PLATFORMS


@pytest.mark.parametrize(('precision', 'share', 'levels'), [('float16', 0.55, 1), ('int8', 0.5, 2)])
def test_rounded_kernels_are_smaller_and_close(tiny, film, precision, share, levels):
  prepared, full = tiny
  rounded = exportable.prepare(load('edsr_x4_tiny'), precision=precision)
  assert rounded.weights == prepared.weights
  content, _ = onnx_file.serialize(rounded)
  assert len(content) < share * len(full)
  lr = film[None, 32:96, 32:96].astype(np.float32) / 255
  run = lambda x: ort.InferenceSession(x).run(None, {'lr': lr})[0]
  one, other = (np.rint(255 * run(x).clip(0, 1)) for x in (full, content))
  assert np.abs(one - other).max() <= levels


def test_int8_kernels_are_multiples_of_their_steps_and_keep_their_sums(rng):
  kernel = rng.normal(size=(3, 3, 8, 4)).astype(np.float32)
  variables = {'params': {'block': {'kernel': kernel}, 'tail': {'kernel': kernel}}}
  stored = rounding.store(variables, 'int8')
  step = stored['params/block/kernel:step'].astype(np.float32)
  assert step.shape == (1, 1, 8, 4) and stored['params/tail/kernel'].dtype == np.float16
  rounded = np.asarray(rounding.restore(stored)['params']['block']['kernel'])
  assert np.abs(rounded - kernel).max() <= step.max()
  assert (np.abs((rounded - kernel).sum((0, 1))) <= 0.501 * step[0, 0]).all()
  assert (rounding.steps(rounded, (0, 1)) == step).all()


def test_weights_compensate_for_the_errors_of_those_before_them(rng):
  kernel = rng.normal(size=(3, 3, 8, 4)).astype(np.float32)
  inputs = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 72))  # 12 directions, as in features
  moment = inputs.T @ inputs / len(inputs)
  variables = {'params': {'block': {'kernel': kernel}}}
  name = 'params/block/kernel'
  off = {}
  for kind, moments in (('alone', None), ('in turn', {name: moment})):
    stored = rounding.store(variables, 'int8', moments)
    rounded = np.asarray(rounding.restore(stored)['params']['block']['kernel'])
    assert (rounding.steps(rounded, (0, 1)) == stored[name + ':step']).all()
    rows = (rounded - kernel).transpose(2, 0, 1, 3).reshape(72, 4)
    off[kind] = np.sqrt(np.mean((inputs @ rows) ** 2))
  assert off['in turn'] < 0.5 * off['alone']


def test_weights_close_to_zero_stay_there(rng):
  kernel = rng.normal(size=(3, 3, 8, 4)).astype(np.float32)
  kernel[:, :, 0, 0], kernel[:, :, 1, 1] = 0, 1e-5 * kernel[:, :, 1, 1]
  variables = {'params': {'block': {'kernel': kernel}}}
  stored = rounding.store(variables, 'int8', {'params/block/kernel': np.eye(72)})
  rounded = np.asarray(rounding.restore(stored)['params']['block']['kernel'])
  step = stored['params/block/kernel:step'].astype(np.float32)
  assert (rounding.steps(rounded, (0, 1)) == step).all()
  assert (np.abs(rounded - kernel) <= 0.51 * step).all()


def test_layers_that_read_zeros_are_rounded_too(rng):
  network = build('edsr', scale=4)
  variables = jax.tree.map(jnp.zeros_like, draw(rng, network, (1, 16, 16, 1), train=False))
  moments = drawn.moments(network, variables)
  assert list(moments) == ['params/head/kernel']
  stored = rounding.store(variables, 'int8', moments)
  assert stored['params/block_0/conv_0/kernel'].dtype == np.int8


def test_moments_give_the_mean_squares_of_what_convolutions_return(rng):
  network = build('edsr', scale=4)
  variables = draw(rng, network, (1, 16, 16, 1), train=False)
  full: Any = flatten_dict(variables, sep='/')
  kernels = {name: x for name, x in full.items() if name.endswith('kernel')}
  expected = dict.fromkeys(kernels, 0.0)
  for share, lr in drawn.images(1):
    options = {'train': False, 'capture_intermediates': True, 'mutable': ['intermediates']}
    found: Any = network.apply(variables, jnp.asarray(lr), **options)[1]['intermediates']
    found = flatten_dict(found, sep='/')
    for name in kernels:
      layer = name.removeprefix('params/').removesuffix('/kernel')
      bias = full[name.replace('kernel', 'bias')]
      output = np.asarray(found[f'{layer}/__call__'][0])[:, ::2, ::2] - bias
      expected[name] += share * np.mean(output**2, axis=(0, 1, 2))
  moments = drawn.moments(network, variables)
  assert moments.keys() == kernels.keys()
  for name, kernel in kernels.items():
    rows = np.asarray(kernel).transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    squares = np.einsum('io,ij,jo->o', rows, moments[name], rows)
    np.testing.assert_allclose(squares, expected[name], rtol=1e-3)


def test_layers_that_change_drawn_images_too_much_stay_float16(rng, monkeypatch):
  model = small_model('edsr', rng)
  inner = 'params/block_0/conv_0/kernel'
  for limit, kind in ((1e9, np.int8), (0.0, np.float16)):
    monkeypatch.setattr(drawn, '_LIMIT', limit)
    found = prepared(model, precision='int8')
    assert found.stored[inner].dtype == kind
    content, _ = onnx_file.serialize(found)
    tensors = {x.name: x for x in onnx.load_from_string(content).graph.initializer}
    assert f'block_0/conv_0/kernel:{np.dtype(kind).name}' in tensors
  assert 'int8 in 0 of' in found.facts['precision']


@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
def test_images_of_a_fixed_size_may_be_small(size):
  prepared = exportable.prepare(load('edsr_x4_tiny'), size=size)
  assert onnx_file.serialize(prepared)[1] <= CLOSE


def test_a_size_beyond_memory_is_refused():
  with pytest.raises(UserError, match='megapixels'):
    exportable.prepare(load('bicubic'), size=(10**6, 10**6))


def test_the_file_says_what_it_is(tmp_path, capsys):
  path = tmp_path / 'new' / 'tiny.onnx'
  assert cli.run(['export', 'edsr_x4_tiny', '--to', 'onnx', '--output', str(path)]) == 0
  session = ort.InferenceSession(path)
  facts = session.get_modelmeta().custom_metadata_map
  assert facts['network'] == 'edsr' and facts['scale'] == '4' and len(facts['weights']) == 16
  assert facts['margin'].isdigit() and 'diagnosis' in facts['intended use']
  names = {x.name for x in onnx.load(path).graph.initializer}
  assert 'head/kernel' in names
  assert cli.run(['export', 'edsr_x4_tiny', '--to', 'onnx', '--output', str(path)]) == 2
  assert 'exists already' in capsys.readouterr().err


@pytest.mark.parametrize('size', [None, (40, 48), (3, 5)])
def test_results_are_made_to_agree_inside_the_graph(size):
  model, reduction = load('bicubic'), Reduction(4)
  h, w = size or (40, 48)
  lr = phantom(0, 0, size=192)[::4, ::3][:h, :w, None]
  found = exportable.prepare(model, size=size, agree=True)
  session = ort.InferenceSession(onnx_file.serialize(found)[0])
  inputs = {'lr': lr[None] / np.float32(255), 'levels': np.array(255, np.float32)}
  (sr,) = session.run(None, inputs)
  expected = project(model(inputs['lr']), inputs['lr'], 255, reduction)
  assert np.abs(sr - expected).max() < 1e-5
  assert agreement(np.rint(255 * sr[0]).astype(np.uint8), lr, reduction, white=255).most <= 1


def test_the_snippets_of_the_documentation_run(tiny, tmp_path, monkeypatch):
  prepared, content = tiny
  model = prepared.model
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'edsr_x4.onnx').write_bytes(content)
  (tmp_path / 'edsr_x4.stablehlo').write_bytes(stablehlo.serialize(prepared)[0])
  jaxsr.write('chest.png', phantom(0, 0, size=64))
  text = (ROOT / 'docs/export.md').read_text(encoding='utf-8')
  snippets = re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  assert len(snippets) == 2
  for snippet in snippets:
    exec(snippet, {})
  lr = jaxsr.read('chest.png')[None, :, :, None] / np.float32(255)
  expected = np.rint(255 * np.asarray(model(lr))[0, :, :, 0].clip(0, 1))
  assert np.abs(jaxsr.read('chest_x4.png') - expected).max() <= 1


def test_a_wrong_file_gets_no_name(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(onnx_file._Session, '__call__', lambda self, lr: np.zeros((1, 96, 160, 1)))
  path = tmp_path / 'wrong.onnx'
  assert cli.run(['export', 'bicubic', '--to', 'onnx', '--output', str(path)]) == 1
  assert 'differs from JAX' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('linked', [True, False])
def test_a_file_that_appears_during_the_export_is_kept(tmp_path, capsys, monkeypatch, linked):
  path = tmp_path / 'own.onnx'

  def serialize(*_, **__):
    path.write_text('own')
    return b'model', 0.0

  def fail(*_):
    raise PermissionError(1, 'no hard links')

  monkeypatch.setattr(export, 'serialize', serialize)
  if not linked:
    monkeypatch.setattr(os, 'link', fail)
  assert cli.run(['export', 'bicubic', '--to', 'onnx', '--output', str(path)]) == 2
  assert f'{path}: exists already' in capsys.readouterr().err
  assert path.read_text() == 'own' and list(tmp_path.iterdir()) == [path]
  path.unlink()
  monkeypatch.setattr(export, 'serialize', lambda *_, **__: (b'model', 0.0))
  assert cli.run(['export', 'bicubic', '--to', 'onnx', '--output', str(path)]) == 0
  assert path.read_bytes() == b'model' and list(tmp_path.iterdir()) == [path]


def test_a_missing_flatbuffers_is_named(tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'flatbuffers', None)
  monkeypatch.delitem(sys.modules, 'jax._src.export.serialization', raising=False)
  path = tmp_path / 'model.stablehlo'
  assert cli.run(['export', 'bicubic', '--to', 'stablehlo', '--output', str(path)]) == 2
  assert '--to stablehlo needs flatbuffers' in capsys.readouterr().err


def test_an_unknown_primitive_is_named(tmp_path, capsys, monkeypatch):
  from jaxsr.export import primitives

  monkeypatch.delitem(primitives.RULES, 'conv_general_dilated')
  path = tmp_path / 'tiny.onnx'
  assert cli.run(['export', 'edsr_x4_tiny', '--to', 'onnx', '--output', str(path)]) == 2
  assert "the primitive 'conv_general_dilated' is not known" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_swinir_needs_a_size(rng):
  with pytest.raises(ValueError, match='needs --size HxW'):
    exportable.prepare(small_model('swinir', rng))
