"""Readers: ONNX and Python agree, paired differences, and results that say nothing."""

import json

import numpy as np
import pytest

from jaxsr.errors import UserError
from jaxsr.trust import readers

CONFIG = {'findings': ['Mass', 'Nodule'], 'size': 32}


def brightness(x):
  """A reader: the mean and the spread of a film."""
  return np.stack([x.mean((1, 2, 3)), 2 * x.std((1, 2, 3))], axis=1)


@pytest.fixture
def config(tmp_path):
  path = tmp_path / 'reader.json'
  path.write_text(json.dumps(CONFIG))
  return path


@pytest.fixture
def python_reader(config):
  return readers.load(f'{__name__}:brightness', config)


def onnx_reader(path):
  """Write `brightness` as ONNX."""
  onnx = pytest.importorskip('onnx')
  make, kind = onnx.helper, onnx.TensorProto.FLOAT
  axes = [make.make_tensor('axes', onnx.TensorProto.INT64, [3], [1, 2, 3])]
  axes.append(make.make_tensor('two', kind, [], [2.0]))
  nodes = [
    make.make_node('ReduceMean', ['x', 'axes'], ['mean'], keepdims=1),
    make.make_node('Sub', ['x', 'mean'], ['centered']),
    make.make_node('Mul', ['centered', 'centered'], ['square']),
    make.make_node('ReduceMean', ['square', 'axes'], ['variance'], keepdims=0),
    make.make_node('Sqrt', ['variance'], ['sd']),
    make.make_node('Mul', ['sd', 'two'], ['spread']),
    make.make_node('ReduceMean', ['x', 'axes'], ['flat'], keepdims=0),
    make.make_node('Unsqueeze', ['flat', 'one'], ['a']),
    make.make_node('Unsqueeze', ['spread', 'one'], ['b']),
    make.make_node('Concat', ['a', 'b'], ['y'], axis=1),
  ]
  axes.append(make.make_tensor('one', onnx.TensorProto.INT64, [1], [1]))
  graph = make.make_graph(
    nodes,
    'brightness',
    [make.make_tensor_value_info('x', kind, ['b', 1, 32, 32])],
    [make.make_tensor_value_info('y', kind, ['b', 2])],
    axes,
  )
  model = make.make_model(graph, opset_imports=[make.make_opsetid('', 18)], ir_version=9)
  onnx.save(model, path)


def test_onnx_and_python_readers_agree(tmp_path, config, python_reader, rng):
  pytest.importorskip('onnxruntime')
  onnx_reader(tmp_path / 'reader.onnx')
  loaded = readers.load(str(tmp_path / 'reader.onnx'), config)
  for _ in range(3):
    film = rng.uniform(0, 1, (128, 96))
    np.testing.assert_allclose(loaded(film), python_reader(film), atol=1e-6)


def made(rng, n=120):
  """Scores of HR, a worse bicubic, and labels, of two films per patient."""
  positive = np.arange(n) % 2 == 0
  hr = np.clip(0.4 + 0.2 * positive + rng.normal(0, 0.12, n), 0, 1)[:, None].repeat(2, 1)
  bicubic = np.clip(hr + rng.normal(0, 0.3, hr.shape), 0, 1)
  labels = [{'Mass'} if each else {'No Finding'} for each in positive]
  return {'HR': hr, 'bicubic': bicubic}, labels, [str(i // 2) for i in range(n)]


def test_an_identical_image_differs_by_zero(python_reader, rng):
  scores, labels, patients = made(rng)
  scores['same'] = scores['HR'].copy()
  rows = readers.compare(scores, labels, patients, python_reader, low_side=16)
  assert {row['finding'] for row in rows} == {'Mass'}  # nobody has a nodule
  bicubic, same = rows
  assert (same['to_hr'], same['to_hr_interval'], same['flips']) == (0, [0, 0], 0)
  assert same['non_inferior'] and same['informative'] and not bicubic['non_inferior']
  assert same['to_bicubic'] == same['hr_to_bicubic'] > 0


def test_a_result_that_says_nothing_is_called_so(python_reader, rng):
  scores, labels, patients = made(rng)
  small = python_reader._replace(size=224)
  (row,) = readers.compare(scores, labels, patients, small, low_side=256)
  assert not row['informative']  # its input is no larger than the low resolution
  (row,) = readers.compare(scores, labels, patients, small, low_side=128)
  assert row['informative']
  scores['bicubic'] = scores['HR'] + rng.normal(0, 1e-6, scores['HR'].shape)
  (row,) = readers.compare(scores, labels, patients, python_reader, low_side=16)
  assert not row['informative']  # HR is no better than bicubic
  few = [{'Mass'} if i < 19 else set() for i in range(len(labels))]
  assert readers.compare(scores, few, patients, python_reader, low_side=16) == []


def test_auroc_is_the_share_of_ordered_pairs(rng):
  scores, positive = np.round(rng.normal(size=60), 1), rng.random(60) < 0.4
  weights = rng.integers(0, 3, (5, 60)).astype(float)
  wins = np.sign(np.subtract.outer(scores[positive], scores[~positive])) / 2 + 0.5
  for row, found in zip(weights, readers.auroc(scores, positive, weights), strict=True):
    pairs = np.outer(row[positive], row[~positive])
    assert found == pytest.approx((wins * pairs).sum() / pairs.sum())


@pytest.mark.parametrize(
  ('change', 'text'),
  [
    ({'size': '224'}, "size is '224'; it must be a int"),
    ({'layout': 'chw'}, "layout is 'chw'; choose nchw or nhwc"),
    ({'sizes': 3}, 'sizes is unknown'),
    ({'size': True}, 'size is True; it must be a int'),
    ({'findings': ['Mass', 'Mass']}, 'each name must occur once'),
    ({'findings': [1]}, 'it must have one name or more'),
    ({'range': [0, 'a']}, 'it must have the values of black and white'),
  ],
)
def test_mistakes_in_a_config_are_named(config, change, text):
  config.write_text(json.dumps(CONFIG | change))
  with pytest.raises(UserError, match=text):
    readers.load(f'{__name__}:brightness', config)


def test_a_reader_in_the_current_folder_is_found(tmp_path, config, monkeypatch):
  (tmp_path / 'my_reader.py').write_text('def read(x):\n  return [[0.25, x.mean()]]\n')
  monkeypatch.chdir(tmp_path)
  assert readers.load('my_reader:read', config)(np.full((64, 64), 0.5)) == pytest.approx(
    [0.25, 0.5]
  )


@pytest.mark.parametrize(
  ('returned', 'text'),
  [
    ('1 / 0', r'fails on float32 \[1, 1, 32, 32\]: division by zero'),
    (
      '[0.5, 0.5]',
      r'returns \[2\] for one film; its config has 2 findings, so \[1, 2\] is expected',
    ),
    ('[[0.5] * 3]', r'returns \[1, 3\] for one film'),
    ('None', r'returns \[\] for one film'),
    ("[['a', 'b']]", 'fails on float32'),
    ('x.astype(str)[0, 0, :1, :2]', 'fails on float32'),
    ('x[0, 0, :1, :2] + 1j', 'fails on float32'),
    ('exit(3)', r'fails on float32 \[1, 1, 32, 32\]: 3'),
    ('[[0.5, float("nan")]]', 'returns nan for Nodule; a number is expected'),
    ('[[0.5, -3]]', "returns -3 for Nodule, which is no probability; .* set 'output': 'logit'"),
  ],
)
def test_a_faulty_reader_is_found_before_any_film(tmp_path, config, monkeypatch, returned, text):
  name = f'reader_{abs(hash(returned))}'
  (tmp_path / f'{name}.py').write_text(f'def read(x):\n  return {returned}\n')
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=text) as found:
    readers.load(f'{name}:read', config)
  assert '\n' not in str(found.value)


def test_logits_become_probabilities(config):
  config.write_text(json.dumps(CONFIG | {'output': 'logit'}))
  assert readers.load(f'{__name__}:logits', config)(np.ones((64, 64))) == pytest.approx([0, 1])


def logits(x):
  """A reader that returns large logits."""
  return np.array([[-1000.0, 1000.0]])


def test_a_reader_that_is_missing_is_named(config):
  with pytest.raises(UserError, match='neither an ONNX file nor module:function'):
    readers.load('no_such_module:read', config)
  with pytest.raises(UserError, match='needs --reader-config'):
    readers.load('a:b', None)
