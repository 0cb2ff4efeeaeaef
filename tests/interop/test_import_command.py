"""`jaxsr import`, from a safetensors file to a checkpoint that other commands accept."""

import hashlib
import json
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save, save_file

from jaxsr import cli, models
from jaxsr.data import image_files
from jaxsr.inference.model import load
from models.small import build, draw


def jaxsr(*arguments):
  """Run the console command; returns its exit code."""
  with pytest.raises(SystemExit) as caught:
    cli.main([str(argument) for argument in arguments])
  return caught.value.code


def tensors_of(variables):
  paths = flatten_dict(variables)
  return {'.'.join(path[1:]): np.asarray(x) for path, x in paths.items()}


@pytest.fixture
def weights(rng, tmp_path):
  """A tiny network's variables, and the file that contains them."""
  variables = draw(rng, build('srresnet'), (1, 16, 16, 1), train=False)
  folder = tmp_path / 'weights'
  folder.mkdir()
  save_file(tensors_of(variables), folder / 'tiny.safetensors')
  return variables, folder / 'tiny.safetensors'


@pytest.fixture
def command(weights, tmp_path):
  """The arguments of the import command; the parent of its output is otherwise empty."""
  options = ('--model', 'srresnet', '--scale', 2, '--output', tmp_path / 'runs' / 'new')
  return 'import', *options, '--weights', weights[1]


def left(tmp_path):
  """Returns the files next to the output."""
  return sorted(path.name for path in (tmp_path / 'runs').glob('*'))


def test_the_checkpoint_has_the_variables(weights, command, tmp_path, capsys):
  variables, path = weights
  assert jaxsr(*command) == 0
  loaded = load(str(tmp_path / 'runs' / 'new'), fold=False)
  assert (loaded.architecture, loaded.scale, loaded.channels) == ('srresnet', 2, 1)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
  assert left(tmp_path) == ['new']
  shown = capsys.readouterr().out
  count = models.count_parameters(variables)
  assert f'srresnet x2, gray, {count:,} parameters' in shown and 'this project, HWIO' in shown
  saved = json.loads((tmp_path / 'runs' / 'new' / 'config.json').read_text())
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert saved['origin']['weights'] == 'tiny.safetensors'
  assert saved['origin']['sha256'] == digest
  assert saved['config']['model']['features'] == 8 and saved['config']['model']['blocks'] == 2


def test_upscale_and_evaluate_take_the_checkpoint(weights, command, folder, tmp_path):
  variables, _ = weights
  assert jaxsr(*command) == 0
  run, film = tmp_path / 'runs' / 'new', folder / 'a.png'
  options = ('--checkpoint', run, '--output', tmp_path / 'sr.png', '--no-agree')
  assert jaxsr('upscale', film, *options) == 0
  lr = image_files.read(film)[None].astype(np.float32) / 255
  sr = build('srresnet').apply(variables, jnp.asarray(lr), train=False)[0]
  difference = image_files.read(tmp_path / 'sr.png') - np.clip(np.asarray(sr), 0, 1) * 255
  assert np.abs(difference).max() < 0.51
  options = ('--checkpoint', run, '--data', film, '--output', tmp_path / 'eval')
  assert jaxsr('evaluate', *options) == 0
  assert json.loads((tmp_path / 'eval' / 'summary.json').read_text())['n'] == 1


def test_options_reach_the_checkpoints_config(rng, tmp_path):
  variables = draw(rng, build('edsr', channels=3), (1, 16, 16, 3), train=False)
  save_file(tensors_of(variables), tmp_path / 'edsr.safetensors')
  options = ('--model', 'edsr', '--scale', 2, '--output', tmp_path / 'runs' / 'new')
  override = '--config.model.residual_scaling=0.1'
  assert jaxsr('import', *options, '--weights', tmp_path / 'edsr.safetensors', override) == 0
  saved = json.loads((tmp_path / 'runs' / 'new' / 'config.json').read_text())['config']
  assert saved['model']['residual_scaling'] == 0.1 and saved['channels'] == 3
  assert load(str(tmp_path / 'runs' / 'new')).network.residual_scaling == 0.1


def test_what_only_training_needs_is_folded_where_a_checkpoint_is_used(rng, tmp_path):
  trained, lr = build('span'), jnp.asarray(rng.random((1, 9, 7, 1), dtype=np.float32))
  variables = draw(rng, trained, lr.shape, train=False)
  save_file(tensors_of(variables), tmp_path / 'span.safetensors')
  options = ('--model', 'span', '--scale', 2, '--output', tmp_path / 'new')
  assert jaxsr('import', *options, '--weights', tmp_path / 'span.safetensors') == 0
  loaded = load(str(tmp_path / 'new'))
  assert loaded.network.folded and loaded.parameters < models.count_parameters(variables) / 3
  a = trained.apply(variables, lr, train=False)
  b = loaded.network.apply(loaded.variables, lr, train=False)
  np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * float(jnp.abs(a).max()))


LORNATANG = (  # this project's modules of an SRResNet, and Lornatang's
  (r'head', r'conv1.0'),
  (r'prelu', r'conv1.1'),
  (r'body', r'conv2.0'),
  (r'norm', r'conv2.1'),
  (r'tail', r'conv3'),
  (r'block_(\d)\.conv_0', r'trunk.\1.rcb.0'),
  (r'block_(\d)\.norm_0', r'trunk.\1.rcb.1'),
  (r'block_(\d)\.prelu', r'trunk.\1.rcb.2'),
  (r'block_(\d)\.conv_1', r'trunk.\1.rcb.3'),
  (r'block_(\d)\.norm_1', r'trunk.\1.rcb.4'),
  (r'upsampler_(\d)', r'upsampling.\1.upsample_block.0'),
  (r'prelu_(\d)', r'upsampling.\1.upsample_block.2'),
)
LEAVES = {'mean': 'running_mean', 'var': 'running_var', 'bias': 'bias'}


def test_kinds_of_number_and_counters(weights, command, tmp_path):
  """float16, bfloat16, float64 and integers are read from files."""
  kinds = [np.float16, np.float64, jnp.bfloat16, np.float32]
  mixed = {
    name: x.astype(kinds[i % 4]) for i, (name, x) in enumerate(tensors_of(weights[0]).items())
  }
  theirs = {}
  for name, x in mixed.items():
    module, _, leaf = name.rpartition('.')
    pattern, template = next(rule for rule in LORNATANG if re.fullmatch(rule[0], module))
    module = re.sub(pattern, template, module)
    theirs[f'{module}.{LEAVES.get(leaf, "weight")}'] = np.atleast_1d(x)
    if leaf == 'mean':
      theirs[f'{module}.num_batches_tracked'] = np.array(1000, np.int64)
  save_file(theirs, weights[1])
  assert jaxsr(*command, '--shuffle-order', 'tensorflow') == 0
  loaded = load(str(tmp_path / 'runs' / 'new'), fold=False).variables
  for path, x in flatten_dict(loaded).items():
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, mixed['.'.join(path[1:])].astype(np.float32))


class Bomb:
  """A pickle of this object creates a file when it is loaded."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), 'w'))


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_a_pickle_is_refused_and_not_loaded(name, command, tmp_path, capsys):
  (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / 'harm')))
  assert jaxsr(*command[:-1], tmp_path / name) == 2
  assert 'pickles (.pt, .pth, .bin, .pkl) are never loaded' in capsys.readouterr().err
  assert not (tmp_path / 'harm').exists()
  assert left(tmp_path) == []


@pytest.mark.parametrize('name', ['a.pt', 'a.safetensors'])
def test_what_torch_saves_is_refused(name, command, tmp_path, capsys):
  torch = pytest.importorskip('torch', reason='files of torch.save (pip install torch)')
  torch.save({'conv.weight': torch.zeros(3)}, tmp_path / name)
  assert jaxsr(*command[:-1], tmp_path / name) == 2
  assert 'are never loaded' in capsys.readouterr().err
  assert left(tmp_path) == []


@pytest.mark.parametrize('kept', [0, 4, 100, -1])
def test_a_cut_file_is_refused(kept, weights, command, tmp_path, capsys):
  weights[1].write_bytes(weights[1].read_bytes()[:kept])
  assert jaxsr(*command) == 2
  assert 'is not a complete safetensors file' in one_line(capsys)
  assert left(tmp_path) == []


def one_line(capsys):
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert line.startswith('error: ')
  return line


@pytest.mark.parametrize(
  ('more', 'text'),
  [
    (('--weights', 'gone.safetensors'), 'gone.safetensors: no such file'),
    (('--weights', '.'), 'is not a file'),
    (('--model', 'srrestnet'), "did you mean 'srresnet'"),
    (('--model', 'bicubic'), "weights for 'bicubic'"),
    (('--model', 'rcan'), 'match no known implementation of rcan'),
    (('--config.model.feature=4',), 'feature'),
    (('--config.scale=4',), 'give --scale'),
    (('--config.channels=1',), 'leave it out'),
    (('--config.model.name=rcan',), 'give --model'),
  ],
)
def test_what_is_wrong_is_said_in_one_line(more, text, command, tmp_path, capsys):
  assert jaxsr(*command, *more) == 2
  assert text in one_line(capsys)
  assert left(tmp_path) == []


def test_no_tensors_are_refused(command, tmp_path, capsys):
  (tmp_path / 'empty.safetensors').write_bytes(save({}))
  assert jaxsr(*command[:-1], tmp_path / 'empty.safetensors') == 2
  assert 'holds no tensors' in one_line(capsys)


@pytest.mark.parametrize('kind', ['int8', 'uint8', 'bool', 'complex64', 'float8_e4m3fn'])
def test_numbers_that_weights_do_not_have_are_refused(kind, weights, command, tmp_path, capsys):
  tensors = tensors_of(weights[0])
  tensors['body.kernel'] = tensors['body.kernel'].astype(kind)
  save_file(tensors, weights[1])
  assert jaxsr(*command) == 2
  stored = 'F8_E4M3' if kind.startswith('float8') else kind
  shown = capsys.readouterr().err
  assert re.search(rf'body\.kernel (\(.*\): )?is {stored}', shown) and 'bfloat16' in shown
  assert left(tmp_path) == []


def test_what_does_not_fit_is_listed(weights, command, tmp_path, capsys):
  variables, path = weights
  tensors = tensors_of(variables)
  del tensors['norm.bias']
  save_file(tensors | {'more.bias': np.zeros(3)}, path)
  assert jaxsr(*command) == 2
  lines = capsys.readouterr().err.splitlines()
  assert lines[:2] == [
    '  norm/bias (8,): is missing',
    '  more.bias (3,): has no place in this network',
  ]
  assert lines[2].startswith(f'error: {path}: does not fit srresnet for scale 2')
  assert len(lines) == 3
  assert left(tmp_path) == []


def test_an_output_that_exists_is_kept(command, tmp_path, capsys):
  output = tmp_path / 'runs' / 'new'
  output.mkdir(parents=True)
  (output / 'mine').write_text('kept')
  assert jaxsr(*command) == 2
  assert 'exists already' in one_line(capsys)
  assert [path.name for path in output.iterdir()] == ['mine'] and left(tmp_path) == ['new']


def test_nothing_is_left_where_writing_fails(command, tmp_path, monkeypatch, capsys):
  def fail(*_, **__):
    raise OSError('No space left on device')

  monkeypatch.setattr('jaxsr.checkpoint.Checkpoints.save', fail)
  assert jaxsr(*command) == 1
  assert 'No space left' in one_line(capsys)
  assert left(tmp_path) == []


@pytest.mark.parametrize(
  ('factor', 'message'),
  [
    (0, 'it is bicubic interpolation: the network adds nothing, as if weights are zero'),
    (1, 'it is worse than bicubic'),
    (1e30, 'its output is not finite'),
  ],
)
def test_a_trial_that_does_not_beat_bicubic_is_warned_of(rng, tmp_path, capsys, factor, message):
  network = models.build('vdsr', {'features': 4, 'blocks': 2}, scale=2, channels=1)
  variables = draw(rng, network, (1, 16, 16, 1), train=False)
  tensors = {name: x * np.float32(factor) for name, x in tensors_of(variables).items()}
  save_file(tensors, tmp_path / 'vdsr.safetensors')
  options = ('--model', 'vdsr', '--scale', 2, '--weights', tmp_path / 'vdsr.safetensors')
  assert jaxsr('import', *options, '--output', tmp_path / 'new') == 0
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'  warning: {message}') and line.endswith(': see docs/importing.md')
