"""The GPU's benchmark and its packer, at toy size on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import pack
from jaxsr.data.phantom import phantom
from runs import environment

ROOT = Path(__file__).resolve().parents[2]


def start(output, *arguments):
  command = [sys.executable, '-m', 'benchmarks.gpu', '--dry-run', '--output', str(output)]
  return subprocess.Popen(
    [*command, *arguments],
    cwd=ROOT,
    env=environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def finished(process):
  text, _ = process.communicate()
  assert process.returncode == 0, text[-3000:]
  return text


def test_films_survive_packing(tmp_path):
  for i in range(5):
    film = phantom(3, i, size=128)
    path = tmp_path / 'films' / f'{i}.png'
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(film).convert('RGB' if i == 2 else 'L').save(path)
  folders = {'train': (tmp_path / 'films',), 'val': (tmp_path / 'films',)}
  size = 40_000 / 2**20
  pack.main(tmp_path / 'loads', **folders, val_films=2, limit_mib=size, wheels=False)
  loads = sorted((tmp_path / 'loads').iterdir())
  assert len(loads) > 1
  for load in loads:
    assert sum(p.stat().st_size for p in load.glob('*.webp')) <= 1.3 * 40_000
  assert pack.unpack_all(tmp_path / 'loads', tmp_path / 'out') == 7
  assert pack.unpack_all(tmp_path / 'loads', tmp_path / 'out') == 0
  assert len(list((tmp_path / 'out' / 'val').iterdir())) == 2
  for i in range(5):
    with Image.open(tmp_path / 'out' / 'train' / f'{i}.png') as image:
      pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, phantom(3, i, size=128))


def test_a_damaged_load_is_refused(tmp_path):
  (tmp_path / 'films').mkdir()
  Image.fromarray(phantom(3, 0, size=128)).save(tmp_path / 'films' / 'a.png')
  pack.main(tmp_path / 'loads', train=(tmp_path / 'films',), wheels=False)
  other = np.repeat(phantom(3, 1, size=128)[..., None], 3, 2)
  Image.fromarray(other).save(tmp_path / 'loads/1/train_a.webp', lossless=True)
  with pytest.raises(SystemExit, match='differs from the packed one'):
    pack.unpack_all(tmp_path / 'loads', tmp_path / 'out')
  assert not (tmp_path / 'out' / 'train' / 'a.png').exists()


@pytest.mark.slow
def test_training_goes_on_after_a_kill(tmp_path):
  stages = ('--stages', 'rates', 'training', '--recipe', 'edsr_x4_large')
  process = start(tmp_path, *stages)
  deadline = time.monotonic() + 240
  while not (tmp_path / 'runs/edsr_x4_large/checkpoints').exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.2)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert (tmp_path / 'rates.json').exists() and not (tmp_path / 'training.json').exists()
  text = finished(start(tmp_path, *stages, '--bundle-to', str(tmp_path / 'back')))
  assert 'rates: done before' in text
  result = json.loads((tmp_path / 'training.json').read_text())['results']['edsr_x4_large']
  assert result['exit_code'] == 0 and result['metrics'][-1]['step'] == str(result['steps'])
  assert (tmp_path / 'runs/packages/edsr_x4_large/model.safetensors').exists()
  assert {p.name for p in (tmp_path / 'back').iterdir()} >= {'results.tar.gz', 'edsr_x4_large.tar'}


@pytest.mark.slow
def test_a_dry_run_does_every_stage(tmp_path):
  finished(start(tmp_path))
  for stage in ('correctness', 'speed', 'rates', 'training'):
    assert not json.loads((tmp_path / f'{stage}.json').read_text()).get('failed'), stage
