"""The two ways a person starts a run, as a person does: in a process of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.errors import UserError
from runs import environment, rows

ROOT = Path(__file__).resolve().parents[1]
GANS = ['srgan', 'swift_srgan']
GOES_ON = 'edsr_gan'  # from a network that is trained
CONFIGS = sorted({path.stem for path in (ROOT / 'configs').glob('*.py')} - {*GANS, GOES_ON})
LONG = [
  'compress',
  'edsr',
  'fsrcnn',
  'msrresnet',
  'rcan',
  'rdn',
  'rlfn',
  'rrdb',
  'slimmable',
  'span',
  'srcnn',
  'srdensenet',
  'srresnet',
  'swinir',
  'vdsr',
]


def start(*arguments, **options):
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'main.py'), *map(str, arguments)],
    env=environment(),
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
    **options,
  )


def main(*arguments):
  """Run main.py; return exit code, output, errors and seconds."""
  begun = time.perf_counter()
  process = start(*arguments)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err, time.perf_counter() - begun


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """Train what the student is a half of; returns its folder, exit code, output and errors."""
  folder = tmp_path_factory.mktemp('edsr_small') / 'run'
  code, out, err, _ = main('--config=configs/edsr_small.py:smoke', f'--workdir={folder}')
  return folder, code, out, err


@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in CONFIGS],
)
def test_every_config_learns_something(name, tmp_path, request):
  """Train for 40 steps: the error falls, and none ends further below bicubic than it began."""
  if name == 'edsr_small':
    folder, code, out, err = request.getfixturevalue('small')
  else:
    folder, flags = tmp_path / 'run', []
    if name == 'distill':
      teacher, *_ = request.getfixturevalue('small')
      flags = [f'--config.init_from={teacher}', f'--config.teacher.checkpoint={teacher}']
    code, out, err, _ = main(f'--config=configs/{name}.py:smoke', f'--workdir={folder}', *flags)
  assert code == 0, err
  assert 'finished at step 40' in out
  assert 'Warning' not in err
  first, *_, last = rows(folder)
  below = [max(0.0, float(row['bicubic_psnr']) - float(row['psnr'])) for row in (first, last)]
  assert float(last['psnr']) > float(first['psnr'])
  assert below[1] <= below[0]


@pytest.mark.slow
def test_a_gan_goes_on_from_a_trained_network(tmp_path, small):
  trained, *_ = small
  options = (f'--config=configs/{GOES_ON}.py:smoke', f'--workdir={tmp_path}')
  code, out, err, _ = main(*options, f'--config.init_from={trained}')
  assert code == 0, err
  assert 'initialized from' in out and 'finished at step 40' in out and 'Warning' not in err
  first, *_, last = rows(tmp_path)
  assert float(last['psnr']) > float(first['psnr']) - 0.1


@pytest.mark.slow
@pytest.mark.parametrize('name', GANS)
def test_every_gan_runs_both_stages(name, tmp_path):
  """A discriminator and random features lower no error: they may only cost little of it."""
  code, out, err, _ = main(f'--config=configs/{name}.py:smoke', f'--workdir={tmp_path}')
  assert code == 0, err
  assert 'step 20: loss terms are now adversarial, ' in out
  assert 'RANDOM weights' in out
  assert 'finished at step 40' in out
  assert 'Warning' not in err
  _, pixel, last = rows(tmp_path)
  assert float(last['psnr']) > float(pixel['psnr']) - 0.1


def test_sigterm_saves_and_leaves_with_75(tmp_path):
  arguments = (
    '--config=configs/quickstart.py:smoke',
    f'--workdir={tmp_path}',
    '--config.steps=100000',
    '--config.eval=100000',
  )
  process = start(*arguments)
  while not (tmp_path / 'checkpoints').is_dir():
    time.sleep(0.05)
    assert process.poll() is None, process.communicate()
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 75, err
  assert 'stopped by SIGTERM at step' in out
  steps = [p.name for p in (tmp_path / 'checkpoints').iterdir()]
  assert out.split('at step ')[-1].split(',')[0] in steps


BAD = [
  (['--config=configs/gone.py'], 'gone.py'),
  (
    ['--config=configs/quickstart.py', '--config.optimiser.b1=0.1'],
    "config has no 'optimiser': did you mean 'optimizer'",
  ),
  (['--config=configs/quickstart.py', '--config.model.name=edsrr'], "did you mean 'edsr'"),
  (['--config=configs/quickstart.py', '--config.model.blocks=many'], 'blocks'),
  (['--config=configs/quickstart.py', '--config.scale=5'], 'scale 5 is not supported'),
  (['--config=configs/quickstart.py', '--config.steps=0'], 'config.steps=0 must be at least 1'),
  (['--config=configs/quickstart.py:smok'], 'choose one of: smoke'),
  (['--config=configs/quickstart.py', '--config.loss.mse=0.0'], 'config.loss is empty'),
  (['--config=configs/quickstart.py', '--config.data.train={empty}'], 'holds no image'),
  (['--config=configs/quickstart.py', '--config.data.train={gone}'], 'no such file'),
  (
    ['--config=configs/quickstart.py', '--config.data.val={stamps}'],
    '; SSIM needs 30 pixels per side',
  ),
  (['--config=configs/quickstart.py', '--config.model.upsampler=direkt'], 'upsampler'),
  (['--config=configs/quickstart.py', '--config.model.features=0'], 'features 0 is less than 1'),
  (['--config=configs/quickstart.py', '--config.data.phantom.size=1001'], 'phantom: '),
  (['--config=configs/quickstart.py', '--config.devices=99'], 'config.devices=99'),
  (['--config=configs/quickstart.py', '--config.loss.mse=-1.0'], 'config.loss.mse=-1.0'),
  (
    ['--config=configs/quickstart.py', '--config.data.train={small}'],
    '; training crops with margins need',
  ),
  (['--config=configs/quickstart.py', '--config.data.train={color}'], 'in colo'),
  (['--config=configs/quickstart.py', '--config.data.train={damaged}'], 'is truncated'),
  (['--config=configs/quickstart.py', '--confg.steps=3'], 'confg'),
  (['configs/quickstart.py'], 'not understood'),
  ([], '--config is missing'),
]


@pytest.fixture(scope='module')
def folders(tmp_path_factory, film):
  """Make the folders that the mistakes below name; `gone` does not exist."""
  root = tmp_path_factory.mktemp('folders')
  found = {n: root / n for n in ('empty', 'gone', 'small', 'stamps', 'color', 'damaged')}
  for name, folder in found.items():
    if name != 'gone':
      folder.mkdir()
  image_files.write(found['small'] / 'a.png', film[:32, :32])
  image_files.write(found['stamps'] / 'a.png', film[:20, :20])
  image_files.write(found['color'] / 'a.png', np.full((512, 512, 3), (1, 2, 3), np.uint8))
  image_files.write(found['damaged'] / 'a.png', film)
  whole = (found['damaged'] / 'a.png').read_bytes()
  (found['damaged'] / 'a.png').write_bytes(whole[:-100])
  return found


def refused(capsys, *arguments):
  """Call `jaxsr train`, as main.py does, with a mistake; return the exit code and the line."""
  with pytest.raises(SystemExit) as caught:
    cli.main(['train', *arguments])
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('error: '), lines
  return caught.value.code, lines[0]


@pytest.mark.parametrize(('arguments', 'message'), BAD)
def test_a_mistake_is_one_line(arguments, message, tmp_path, folders, capsys):
  filled = [each.format(**folders) for each in arguments]
  code, line = refused(capsys, *filled, f'--workdir={tmp_path / "run"}')
  assert code in (1, 2) and message in line
  assert not (tmp_path / 'run').exists()


def test_a_mistake_ends_the_program_within_seconds(tmp_path):
  code, out, err, seconds = main('--config=configs/gone.py', f'--workdir={tmp_path}')
  assert code == 2 and out == ''
  assert len(err.splitlines()) == 1 and err.startswith('error: --config=configs/gone.py: ')
  assert seconds < 20  # 2 on an idle machine


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  workdir = f'--workdir={tmp_path / "file" / "run"}'
  code, line = refused(capsys, '--config=configs/quickstart.py', workdir)
  assert code == 2 and 'cannot be written' in line


def test_help_lists_the_flags_and_where_the_settings_are():
  code, out, err, _ = main('--help')
  assert code == 0 and err == ''
  for word in ('--config', '--workdir', '--allow-config-change', '--config.KEY=VALUE', 'base()'):
    assert word in out


def test_flags_take_their_value_with_and_without_an_equals_sign(tmp_path, capsys, monkeypatch):
  seen = []

  def train(config, workdir, *, allow_config_change, restart):
    assert not restart
    seen.append((config.steps, config.data.train, config.scale, workdir, allow_config_change))
    return 0

  monkeypatch.setattr('jaxsr.training.train.train', train)
  monkeypatch.setenv('HOME', str(tmp_path))
  joined = ('--config=rdn', '--workdir=~/run', '--config.steps=7', '--config.data.train=~/films')
  apart = ('--config', 'rdn', '--workdir', '~/run', '--config.steps', '7')
  apart += ('--config.data.train', '~/films')
  for arguments in (
    (*joined, '--allow_config_change'),
    (*apart, '--allow-config-change'),
    (*joined, '--allow_config_change=true'),
  ):
    with pytest.raises(SystemExit) as caught:
      cli.main(['train', *arguments])
    assert caught.value.code == 0, capsys.readouterr()
  assert seen == [(7, str(tmp_path / 'films'), 4, tmp_path / 'run', True)] * 3


@pytest.mark.parametrize('debug', [False, True])
def test_a_full_disk_is_one_line_and_code_1(tmp_path, capsys, monkeypatch, debug):
  """The error of a library that a full disk caused ends the run as the disk's own does."""

  def train(*_, **__):
    try:
      raise ValueError('INTERNAL: write failed\n[tensorstore] No space left on device\n...')
    except ValueError as error:
      raise UserError(f'{tmp_path}/checkpoints: cannot save') from error

  monkeypatch.setattr('jaxsr.training.train.train', train)
  arguments = ['train', '--config=quickstart:smoke', f'--workdir={tmp_path}']
  if debug:
    with pytest.raises(UserError):
      cli.main([*arguments, '--debug'])
    return
  with pytest.raises(SystemExit) as caught:
    cli.main(arguments)
  assert caught.value.code == 1
  assert (
    capsys.readouterr().err == f'error: {tmp_path}/checkpoints: cannot save; the disk is full\n'
  )


def test_other_frameworks_are_never_imported():
  code = (
    'import sys, jaxsr.cli, jaxsr.training.train; print({"tensorflow", "torch"} & {*sys.modules})'
  )
  found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, stdout=subprocess.PIPE)
  assert (found.returncode, found.stdout) == (0, 'set()\n')
