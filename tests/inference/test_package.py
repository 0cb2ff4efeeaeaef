"""Packages: what is shipped is what was trained."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from jaxsr import cli, files
from jaxsr import config as configs
from jaxsr.data import image_files
from jaxsr.errors import UserError
from jaxsr.inference import package
from jaxsr.inference.model import load
from jaxsr.training.train import train
from runs import four_steps, pack

MODEL = {'name': 'edsr', 'features': 8, 'blocks': 2, 'upsampler': 'direct'}


def command(*arguments):
  with pytest.raises(SystemExit) as caught:
    cli.main([str(a) for a in arguments])
  return caught.value.code


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Train a network with BatchNorm for four steps."""
  config = four_steps(configs.base())
  config.model = configs.network('srresnet', features=8, blocks=1, bicubic_skip=True)
  config.loss.mse, config.devices = 1.0, 1
  folder = tmp_path_factory.mktemp('run')
  assert train(config, folder) == 0
  return folder


def test_a_package_gives_the_image_of_its_run(run, tmp_path, folder, capsys):
  output = tmp_path / 'shipped'
  assert command('package', run, '--output', output, '--data', folder) == 0
  assert '/films, ' in capsys.readouterr().out
  run_model, packaged = load(str(run)), load(str(output))
  assert packaged.step == run_model.step and packaged.network == run_model.network
  lr = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 1), dtype=np.float32))
  images = [
    np.asarray(one.network.apply(one.variables, lr, train=False)) for one in (run_model, packaged)
  ]
  np.testing.assert_array_equal(*images)
  metrics = json.loads((output / 'metrics.json').read_text())
  assert metrics['n'] == 4 and metrics['psnr'] > 20
  card = (output / 'README.md').read_text()
  for name in ('model.safetensors', 'config.json', 'metrics.json'):
    assert hashlib.sha256((output / name).read_bytes()).hexdigest() in card
  assert 'Not for diagnosis' in card and '1 mse' in card and '{' not in card
  row = f'| PSNR | {metrics["psnr"]:.3f} | {metrics["bicubic_psnr"]:.3f} |'
  assert row in card and '| LR consistency |' in card
  assert str(run) not in card + (output / 'config.json').read_text()


def test_eight_bits_are_a_fourth_and_their_cost_is_measured(run, tmp_path, folder, capsys):
  assert command('package', run, '--output', tmp_path / 'a', '--int8') == 2
  assert '--int8 needs --data' in capsys.readouterr().err
  assert command('package', run, '--output', tmp_path / 'a', '--int8', '--data', folder) == 0
  assert '8-bit weights cost' in capsys.readouterr().out
  with safe_open(tmp_path / 'a' / 'model.safetensors', framework='numpy') as file:
    assert file.get_tensor('params/body/kernel').dtype == np.int8
  metrics = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
  assert abs(metrics['psnr'] - metrics['float32']['psnr']) < 0.1
  assert load(str(tmp_path / 'a')).parameters == load(str(run)).parameters


def test_without_films_the_figures_are_the_validations(run, tmp_path):
  assert command('package', run, '--output', tmp_path / 'a') == 0
  metrics = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
  assert metrics['of'].startswith('the validation of its run, ') and metrics['step'] == 4


def test_packages_are_found_by_name(tmp_path, monkeypatch, folder):
  pack(tmp_path / 'checkpoints' / 'mine', MODEL)
  monkeypatch.chdir(tmp_path)
  assert 'mine' in package.names()
  assert load('mine').network.features == 8
  assert command('upscale', folder / 'a.png', '--checkpoint', 'mine', '--output', 'large.png') == 0
  assert (tmp_path / 'large.png').exists()
  with pytest.raises(UserError, match='mine.*bicubic'):
    load('yours')
  with pytest.raises(UserError, match='which has only one step'):
    load('mine', step='best')


def test_training_goes_on_from_a_package(tmp_path):
  """Of a network without statistics, which the file holds nothing of."""
  config = four_steps(configs.base())
  config.model, config.loss.mse, config.devices = configs.network(**MODEL), 1.0, 1
  config.init_from = str(pack(tmp_path / 'shipped', MODEL))
  assert train(config, tmp_path / 'run') == 0
  assert load(str(tmp_path / 'run')).step == 4


def test_without_a_name_the_package_of_the_scale_is_taken(tmp_path, monkeypatch, folder, capsys):
  monkeypatch.setattr(package, '_folders', lambda: (tmp_path / 'checkpoints',))
  pack(tmp_path / 'checkpoints' / 'edsr_x4', MODEL)
  shutil.copy(folder / 'a.png', tmp_path / 'film.png')
  assert command('upscale', tmp_path / 'film.png') == 0
  assert image_files.read(tmp_path / 'film_x4.png').shape == (512, 512, 1)
  assert 'edsr x4' in image_files.read_note(tmp_path / 'film_x4.png')
  assert command('evaluate', '--data', folder / 'a.png', '--output', tmp_path / 'eval') == 0
  capsys.readouterr()
  assert command('upscale', tmp_path / 'film.png', '--scale', 3) == 0
  assert image_files.read(tmp_path / 'film_x3.png').shape == (384, 384, 1)
  assert command('upscale', tmp_path / 'film.png', '--scale', 5) == 2
  assert 'scale 5: the pretrained models enlarge up to 4 times' in capsys.readouterr().err


@pytest.mark.parametrize('scale', [2, 4])
def test_the_packages_that_come_along_are_whole(scale):
  model = load(None, scale=scale)
  assert (model.scale, model.channels) == (scale, 1)
  for folder in (p for p in (Path(__file__).parents[2] / 'checkpoints').iterdir() if p.is_dir()):
    card = (folder / package.CARD).read_text()
    for name in (package.WEIGHTS, package.CONFIG, package.METRICS):
      assert files.sha256(folder / name) in card
    metrics = json.loads((folder / package.METRICS).read_text())
    assert metrics['psnr'] > metrics['bicubic_psnr'] and metrics['n'] >= 40
    assert load(folder.name).parameters > 0


def test_an_installed_wheel_enlarges_at_once(tmp_path, folder):
  """Build it as pip does, put it where nothing of this project is, and use its own weights."""
  project = Path(__file__).parents[2]
  pip = (sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '--quiet')
  subprocess.run((*pip, '--target', str(tmp_path / 'lib'), str(project)), check=True, timeout=300)
  shutil.copy(folder / 'a.png', tmp_path / 'film.png')
  code = 'import jaxsr.cli as cli; print(cli.__file__); cli.main()'
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'lib')}
  done = subprocess.run(
    (sys.executable, '-c', code, 'upscale', 'film.png'),
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert str(tmp_path / 'lib') in done.stdout
  assert image_files.read(tmp_path / 'film_x4.png').shape == (512, 512, 1)


def test_nothing_is_overwritten(run, tmp_path, capsys):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'there' / 'file').touch()
  assert command('package', run, '--output', tmp_path / 'there') == 2
  assert 'exists already' in capsys.readouterr().err


def rewrite(folder, change):
  """Change the config, and its SHA-256 in the model card."""
  path, card = folder / 'config.json', folder / 'README.md'
  config, old = json.loads(path.read_text()), files.sha256(path)
  change(config)
  path.write_text(json.dumps(config))
  assert old in card.read_text()
  card.write_text(card.read_text().replace(old, files.sha256(path)))


def spoil_shape(folder):
  rewrite(folder, lambda config: config['config']['model'].update(features=12))


def spoil_name(folder):
  rewrite(folder, lambda config: config['config']['model'].update(blocks=3))


def spoil_config(folder):
  path = folder / 'config.json'
  path.write_text(path.read_text().replace('"blocks": 2', '"blocks": 2, "image_range": 2.0'))


def null_sum(folder):
  rewrite(folder, lambda config: config.update(sha256=None))


def flip_bit(folder):
  """Of the last weight, which stays a finite number."""
  path = folder / 'model.safetensors'
  content = bytearray(path.read_bytes())
  content[-4] ^= 1
  path.write_bytes(content)


def without_sum(folder):
  """As packages were written before `config.json` had it."""
  rewrite(folder, lambda config: config.pop('sha256'))


def flip_bit_of_an_old_package(folder):
  without_sum(folder)
  flip_bit(folder)


def truncate_unsigned(folder):
  without_sum(folder)
  (folder / 'README.md').unlink()
  truncate(folder)


def truncate(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (spoil_shape, 'asks for'),
    (spoil_name, 'only one of them has'),
    (spoil_config, r'config\.json: is damaged or was replaced'),
    (null_sum, 'has no SHA-256 of model'),
    (truncate, 'is damaged or was replaced'),
    (flip_bit, 'is damaged or was replaced'),
    (flip_bit_of_an_old_package, 'is damaged or was replaced'),
    (truncate_unsigned, 'is not a complete safetensors file'),
    (lambda folder: (folder / 'config.json').write_text('{}'), 'is not the config of a package'),
  ],
)
def test_damage_is_said_in_one_line(tmp_path, spoil, message):
  folder = pack(tmp_path / 'a', MODEL)
  spoil(folder)
  with pytest.raises(UserError, match=message) as caught:
    load(str(folder))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('spoil', [without_sum, lambda folder: (folder / 'README.md').unlink()])
def test_a_package_without_one_of_its_sums_is_read(tmp_path, spoil):
  folder = pack(tmp_path / 'a', MODEL)
  spoil(folder)
  assert load(str(folder)).parameters > 0
