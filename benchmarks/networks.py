"""Comparison of all networks: python -m benchmarks.networks --train DIR --val DIR --output DIR.

Each network is trained by its own config, on the same crops for the same number of steps, and then
evaluated on the same films, together with interpolation. Only the budget and the warm-up of a
config are changed; the warm-up is at most a tenth of the steps, so that the learning rate reaches
the config's peak. Finally, the time per film of 1024x1024 is measured, on an otherwise idle
machine; `--no-latency` skips it, and a later run without it adds it.

Runs resume and finished parts are kept, so the same command continues after an interruption. The
table is `table.md` in the output.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

from benchmarks import latency as timing
from jaxsr import analysis, models, runtime
from jaxsr.config import Config
from jaxsr.data import sources
from jaxsr.evaluation import evaluator as evaluate
from jaxsr.files import make_folder, write_json, write_text
from jaxsr.inference import model
from jaxsr.inference.model import Model
from jaxsr.training.train import train

TRAINABLE = tuple(name for name in models.MODELS if name not in models.PARAMETER_FREE)
SCALE = 4


def main(
  train_on: Path,
  val: Path,
  output: Path,
  networks: tuple[str, ...] = (*models.PARAMETER_FREE, *TRAINABLE),
  steps: int = 500,
  batch_size: int = 1,
  patch: int = 12,
  margin: int = 4,
  films: int = 4,
  seed: int = 0,
  latency: bool = True,
) -> None:
  """Train, evaluate and time networks; crops have `patch` + 2 `margin` low-resolution pixels."""
  source: sources.Source = sources.Folder(val)
  source = sources.Subset(source, films) if films else source
  budget = {'steps': steps, 'batch_size': batch_size, 'seed': seed, 'train': str(train_on)}
  budget |= {'patch': patch, 'margin': margin}
  for name in networks:
    folder = output / name
    make_folder(folder)
    if name in TRAINABLE and train(_config(name, budget), folder):
      sys.exit(f'{name} was stopped; run the same command to go on')
    _once(folder / 'quality.json', lambda name=name: _quality(_load(output, name), source))
  for name in networks if latency else ():
    _once(output / name / 'latency.json', lambda name=name: timing.measure(_load(output, name)))
  table = _table(output, networks)
  write_text(output / 'table.md', table)
  print(table)


def _config(name: str, budget: dict[str, Any]) -> Config:
  """Returns a network's own config with the common budget."""
  config = import_module(f'configs.{name}').get_config()
  config.seed, config.steps, config.batch_size = (
    budget[key] for key in ('seed', 'steps', 'batch_size')
  )
  if config.pretrain.steps:  # for a GAN, the stage before it
    config.loss, config.optimizer.learning_rate = (
      config.pretrain.loss,
      config.pretrain.learning_rate,
    )
    config.pretrain.steps = 0
  config.optimizer.warmup = config.steps // 10
  config.save = max(1, config.steps // 5)
  config.data.update({key: budget[key] for key in ('train', 'patch', 'margin')})
  config.eval, config.data.val = config.steps, 'phantom'  # only the end counts
  config.data.phantom.update(size=128, val_count=1)
  return config


def _load(output: Path, name: str) -> Model:
  return model.load(name if name in models.PARAMETER_FREE else str(output / name))


def _once(path: Path, compute: Any) -> None:
  """Compute and write a result, unless the file exists."""
  if not path.exists():
    write_json(path, compute())


def _quality(model: Model, source: sources.Source) -> dict[str, Any]:
  evaluator = evaluate.Evaluator(model.network, source, scale=SCALE)
  results = [evaluator.measure(model.variables, i)[0] for i in range(len(source))]
  return evaluate.summarize(results)


def _table(output: Path, networks: tuple[str, ...]) -> str:
  head = ('Network', 'Parameters', 'GMACs', 'Seconds per film', 'PSNR', 'SSIM', 'PSNR, center')
  rows = [head, ('---',) * len(head)]
  for name in networks:
    cost = analysis.measure(_load(output, name).network)
    quality = json.loads((output / name / 'quality.json').read_text())
    timed = output / name / 'latency.json'
    seconds = f'{json.loads(timed.read_text())["median"]:.2f}' if timed.exists() else ''
    figures = f'{quality["psnr"]:.3f}', f'{quality["ssim"]:.4f}', f'{quality["psnr_centre"]:.3f}'
    rows.append((f'`{name}`', f'{cost.parameters:,}', f'{cost.macs / 1e9:.2f}', seconds, *figures))
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows) + '\n'


if __name__ == '__main__':
  runtime.keep_freed_memory()
  tyro.cli(main)
