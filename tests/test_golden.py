"""Golden results: what a change that only moves or renames code must leave as it is.

`golden.json` holds, for each case, a summary that must agree everywhere to a part in 10^5, and a
SHA-256 of the bytes for each machine that has written one. `JAXSR_GOLDEN=write` with `-n 0`
computes both anew.
"""

import hashlib
import json
import os
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from compiled import machine
from jaxsr.data.phantom import phantom
from jaxsr.inference.model import load
from jaxsr.training.train import train
from runs import final, four_steps, pack

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden.json'
EXPERIMENTS = ('quickstart', 'srgan', 'distill')
PACKAGES = sorted(path.parent.name for path in ROOT.glob('checkpoints/*/model.safetensors'))
TOLERANCE = 1e-5


def train_four_steps(name, folder):
  """Return the leaves of a run's state after four steps, in the order of the state's tree."""
  config = four_steps(runpy.run_path(str(ROOT / 'configs' / f'{name}.py'))['get_config']('smoke'))
  config.devices = 1
  config.eval = 4
  if name == 'srgan':
    config.pretrain.steps = 2
    config.content.vgg19.layer = 'conv1_2'  # the deeper ones take long to draw
    config.loss.vgg19 = 4e-2
  if name == 'distill':
    options = {'features': 16, 'blocks': 2, 'upsampler': 'direct', 'bicubic_skip': True}
    config.teacher.checkpoint = str(pack(folder / 'teacher', {'name': 'edsr', **options}))
  assert train(config, folder / 'run') == 0
  return [np.asarray(x) for x in jax.tree.leaves(final(config, folder / 'run'))]


def upscale(name, agree):
  """Return a phantom enlarged by a package, by the smallest one also in windows."""
  model = load(name)
  image = phantom(3, 0, size=64)[..., None]
  tiles = (512, 32) if name == 'edsr_x4_tiny' else (512,)
  return [model.upscale(image, tile=tile, agree=agree) for tile in tiles]


def digest(leaves):
  found = hashlib.sha256()
  for x in leaves:
    found.update(f'{x.dtype} {x.shape}'.encode())
    found.update(np.ascontiguousarray(x).tobytes())
  return found.hexdigest()


def summarize(leaves):
  """Summarize arrays by their count, number of elements, norm, and mean magnitude."""
  flat = [x.astype(np.float64).ravel() for x in leaves]
  norms = [float(np.linalg.norm(x)) for x in flat]
  return {
    'arrays': len(leaves),
    'elements': sum(x.size for x in flat),
    'norm': float(np.linalg.norm(norms)),
    'sum_of_norms': sum(norms),
    'mean_magnitude': sum(float(np.abs(x).sum()) for x in flat) / sum(x.size for x in flat),
  }


def read():
  return json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}


@pytest.mark.parametrize('case', (*EXPERIMENTS, *PACKAGES, 'edsr_x2 agreed', 'edsr_x4_tiny agreed'))
def test_result_is_golden(case, tmp_path):
  if case in EXPERIMENTS:
    leaves = train_four_steps(case, tmp_path)
  else:
    name, _, agreed = case.partition(' ')
    leaves = upscale(name, agree=bool(agreed))
  if os.environ.get('JAXSR_GOLDEN') == 'write':
    found = read()
    entry = found.setdefault(case, {'sha256': {}})
    entry['summary'] = summarize(leaves)
    entry['sha256'][machine()] = digest(leaves)
    GOLDEN.write_text(json.dumps(found, indent=2, sort_keys=True) + '\n')
  expected = read()[case]
  assert summarize(leaves) == pytest.approx(expected['summary'], rel=TOLERANCE)
  if machine() not in expected['sha256']:
    pytest.skip(f'the summary agrees; no hash was written on this machine ({machine()})')
  assert digest(leaves) == expected['sha256'][machine()]
