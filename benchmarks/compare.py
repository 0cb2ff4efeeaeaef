"""Comparison of networks on the same films: a table, crops, and the curves of a GAN.

python -m benchmarks.compare --data NIH/val --output runs/srgan_page --feature-weights FILE \\
    --runs bicubic=bicubic 'pixel stage=runs/srgan@20000' 'SRGAN=runs/srgan' --curves runs/srgan

A run is `LABEL=CHECKPOINT` or `LABEL=CHECKPOINT@STEP`, with a checkpoint as for `jaxsr evaluate`.
The crops are from the last run's median and worst film by PSNR, at the position of bicubic's
largest error. `--latency` also measures the time per film, on an otherwise idle machine.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.latency import measure
from jaxsr import analysis, runtime
from jaxsr import config as configs
from jaxsr.data import image_files, sources
from jaxsr.evaluation import evaluator as evaluate
from jaxsr.evaluation import figures, plots, report
from jaxsr.files import make_folder, write_json, write_text
from jaxsr.inference.model import Model, load
from jaxsr.training import setup

COLUMNS = {
  'parameters': ('Parameters', ',d'),
  'gmacs': ('GMACs', '.1f'),
  'seconds': ('Seconds per film', '.2f'),
  **{figure.name: (figure.title, figure.format) for figure in figures.FIGURES.values()},
}
SIDE = 160  # pixels of the high resolution in a crop


def main(
  data: Path,
  output: Path,
  runs: tuple[str, ...],
  feature_weights: Path,
  features: str = 'mobilenet_v2',
  layer: str = 'block_5',
  films: int = 0,
  scale: int = 4,
  show: tuple[str, ...] = (),
  latency: bool = False,
  curves: tuple[Path, ...] = (),
) -> None:
  """Evaluate each run on the films of a folder (0: all) and draw the runs in `show` (none: all)."""
  if unknown := sorted(set(show) - {run.partition('=')[0] for run in runs}):
    sys.exit(f'--show {unknown[0]}: is the label of no run')
  make_folder(output)
  options = configs.base().content[features]
  options.update(weights=str(feature_weights), layer=layer)
  perceptual = setup.load_extractor(features, options, 'float32')
  found = {}
  for run in runs:
    label, _, place = run.partition('=')
    checkpoint, _, step = place.partition('@')
    model = load(checkpoint, scale=scale, step=step or 'latest')
    found[label] = _measure(model, data, films, perceptual)
    found[label][0].update(_costs(model, latency=latency))
    print(label, found[label][0], flush=True)
  write_json(output / 'summary.json', {label: summary for label, (summary, _, _) in found.items()})
  write_text(output / 'table.md', _table(found))
  _, rows, _ = list(found.values())[-1]
  ranks = report.ranks(rows)
  strips = []
  for rank in ('median', 'worst'):
    examples = {label: found[label][2](ranks[rank]) for label in show or found}
    name = rows[ranks[rank]]['file']
    psnr = {label: found[label][1][ranks[rank]]['psnr'] for label in examples}
    strips.append(_strip(examples, f'{rank} film, {name}', psnr))
  image_files.write(output / 'crops.png', np.concatenate(strips))
  for folder in curves:
    _draw(folder, output / f'{folder.name}.png')


def _measure(model: Model, data: Path, films: int, perceptual: Any) -> tuple:
  source: sources.Source = sources.Folder(data, channels=model.channels)
  source = sources.Subset(source, films) if films else source
  evaluator = evaluate.Evaluator(model.network, source, scale=model.scale, perceptual=perceptual)
  rows = [evaluator.measure(model.variables, i)[0] for i in range(len(source))]
  return evaluate.summarize(rows), rows, lambda i: evaluator.measure(model.variables, i)[1]


def _costs(model: Model, *, latency: bool) -> dict[str, Any]:
  cost = analysis.measure(model.network)
  timed = {'seconds': measure(model)['median']} if latency else {}
  return {'parameters': model.parameters, 'gmacs': cost.macs / 1e9, **timed}


def _table(found: dict[str, tuple]) -> str:
  columns = {k: v for k, v in COLUMNS.items() if any(k in row for row, _, _ in found.values())}
  heads = ['', *(title for title, _ in columns.values())]
  lines = []
  for label, (summary, _, _) in found.items():
    cells = [format(summary[name], form) for name, (_, form) in columns.items()]
    lines.append([label, *cells])
  return figures.markdown(heads, lines) + '\n'


def _strip(examples: dict[str, plots.Example], title: str, psnr: dict[str, float]) -> np.ndarray:
  """Returns a crop of each run side by side, the original film first, enlarged by 2."""
  first = next(iter(examples.values()))
  row, column, side = plots.detail(first)
  middle = [start + (side - SIDE) // 2 for start in (row, column)]
  window = np.s_[middle[0] : middle[0] + SIDE, middle[1] : middle[1] + SIDE]
  cells = {'HR': first.hr, 'bicubic': first.bicubic}
  cells |= {label: example.sr for label, example in examples.items()}
  gap, line, large = 6, 44, 2 * SIDE
  sheet = Image.new('RGB', (len(cells) * (large + gap) + gap, large + line + gap), 'white')
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
  for i, (label, image) in enumerate(cells.items()):
    crop = np.rint(np.clip(image[window].mean(axis=2), 0, 1) * 255).astype(np.uint8)
    left = gap + i * (large + gap)
    draw.text((left, 2), title if i == 0 else '', fill='black', font=font)
    told = f'{label}, {psnr[label]:.2f} dB' if label in psnr else label
    draw.text((left, 22), told, fill='black', font=font)
    resized = Image.fromarray(crop).resize((large, large), Image.Resampling.NEAREST)
    sheet.paste(resized.convert('RGB'), (left, line))
  return np.asarray(sheet)


def _draw(folder: Path, path: Path) -> None:
  """Plot the training curves of a run from its event files."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  events = EventAccumulator(str(folder), size_guidance={'scalars': 0}).Reload()
  tags = events.Tags()['scalars']
  curve = lambda tag: tuple(zip(*((e.step, e.value) for e in events.Scalars(tag)), strict=True))  # noqa: E731
  panels = {
    "discriminator's accuracy": ['discriminator/accuracy'],
    'logits': ['discriminator/logit_real', 'discriminator/logit_fake'],
    'gradient norm at the image': [t for t in tags if t.startswith('gradient/')],
    'PSNR of validation, dB': ['val/psnr', 'val/bicubic_psnr', 'val/psnr_centre'],
    'high frequencies, relative to the original': [
      'val/high_frequency',
      'val/bicubic_high_frequency',
    ],
    'feature distance': ['val/feature_distance', 'val/bicubic_feature_distance'],
  }
  figure, axes = pyplot.subplots(2, 3, figsize=(15, 7), layout='constrained')
  for axis, (title, names) in zip(axes.flat, panels.items(), strict=True):
    for name in names:
      if name in tags:
        axis.plot(*curve(name), label=name.partition('/')[2])
    axis.set_title(title)
    axis.set_xlabel('step')
    if title.startswith('gradient'):
      axis.set_yscale('log')
    if title.startswith("discriminator's"):
      axis.set_ylim(0.4, 1.02)
      axis.axhspan(0.55, 0.95, alpha=0.1)
    axis.legend(fontsize=8)
  figure.suptitle(folder.name)
  figure.savefig(path, dpi=80)


if __name__ == '__main__':
  runtime.keep_freed_memory()
  tyro.cli(main)
