"""The page of a study: plots, a table and crops in one self-contained HTML file."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsr.config import copy as copy_config
from jaxsr.data import sources
from jaxsr.errors import UserError
from jaxsr.evaluation import evaluator, plots
from jaxsr.files import write_text
from jaxsr.inference.model import load
from jaxsr.study import Trial, checkpoint_of, result
from jaxsr.study.table import TrialRow, faults

PAGE = 'study.html'
PLOTS = {
  'gmacs': 'GMACs per image',
  'parameters': 'parameters',
  'cpu_ms': 'milliseconds on the CPU',
}
_COLORS = ('#1b6ca8', '#d1495b', '#2e8b57', '#b8860b', '#7b4fa3', '#444444')
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem;
  color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem }
td, th { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
.bad td { color: #b00020; font-weight: 600 } img, svg { max-width: 100%; height: auto }
figure { display: inline-block; margin: .25rem; width: 11rem; vertical-align: top }
figure img { width: 100%; image-rendering: pixelated } figcaption { font-size: .75rem }
p.note { color: #555; font-size: .9rem }
"""


def check() -> None:
  """Raise UserError if matplotlib is not installed."""
  try:
    import matplotlib  # noqa: F401
  except ImportError as error:
    raise UserError("plots need matplotlib: pip install 'jaxsr-xray[study]'") from error


def write(
  workdir: Path,
  table: Sequence[TrialRow],
  grouped: Sequence[TrialRow],
  teacher: Trial,
  trials: Sequence[Trial],
) -> None:
  """Write the plots as PNG files, and the page."""
  plots = []
  for axis in PLOTS:
    png, svg = _plot(grouped, axis)
    (workdir / f'pareto_{axis}.png').write_bytes(png)
    plots.append(svg)
  first = next(trial for trial in trials)
  done = sum(row['status'] == 'done' for row in table)
  parts = [
    f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Compression study</title>'
    f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>',
    '<h1>Compression study</h1>',
    f'<p>{html.escape(first.config.model.name)}, x{first.config.scale}: '
    f'{done} of {len(table)} rows are measured, each on {table[0]["films"]} images of '
    f'{html.escape(Path(str(first.config.data.val)).name)}. For research, not for diagnosis.</p>',
    '<h2>Quality against cost</h2>',
    *plots,
    '<p class="note">Each dot is the mean over seeds. Lines join the sizes that no cheaper size '
    'beats. Dashed line: the teacher. Dotted line: bicubic.</p>',
    '<h2>All trials</h2>',
    '<p class="note">Means over seeds, with the standard deviation for several. Red: worse '
    'than bicubic, or than the same student trained without a teacher for as many steps. PSNR in '
    'dB; center: without an eighth of the side on each edge, where the anatomy is.</p>',
    _table(grouped),
    '<h2>Crops</h2>',
    *_crops(workdir, teacher, trials),
    '</html>\n',
  ]
  write_text(workdir / PAGE, '\n'.join(parts))


def _plot(grouped: Sequence[TrialRow], axis: str) -> tuple[bytes, str]:
  """Plot PSNR against a cost; returns PNG and SVG."""
  import matplotlib as mpl
  from matplotlib.figure import Figure
  from matplotlib.ticker import LogLocator, NullFormatter

  students = [r for r in grouped if r['objective'] not in (None, 'teacher') and r['psnr']]
  figure = Figure(figsize=(7, 4.2), layout='constrained')
  axes = figure.add_subplot()
  objectives = list(dict.fromkeys(row['objective'] for row in students))
  for objective, color in zip(objectives, _COLORS * 9, strict=False):
    mine = sorted((r for r in students if r['objective'] == objective), key=lambda r: r[axis])
    x, y = [r[axis] for r in mine], [r['psnr'] for r in mine]
    spread = [r['psnr_sd'] or 0.0 for r in mine]
    axes.errorbar(x, y, spread, fmt='o', color=color, label=objective, capsize=2, markersize=5)
    front = _front(x, y)
    axes.plot([x[i] for i in front], [y[i] for i in front], color=color, linewidth=1)
  for row in grouped:
    if row['psnr'] and row['objective'] in (None, 'teacher'):
      style = '--' if row['objective'] else ':'
      axes.axhline(row['psnr'], color='#444444', linestyle=style, linewidth=1)
      label = row['objective'] or row['network']
      axes.annotate(
        label,
        (1, row['psnr']),
        xycoords=('axes fraction', 'data'),
        ha='right',
        va='bottom',
        fontsize=8,
      )
  axes.set(xscale='log', xlabel=PLOTS[axis], ylabel='PSNR, dB')
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter('{x:,g}')
  axes.xaxis.set_minor_formatter(NullFormatter())
  axes.grid(alpha=0.3)
  if objectives:
    axes.legend(fontsize=8)
  with mpl.rc_context({'svg.hashsalt': 'jaxsr'}):
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format='png', dpi=110, metadata={'Software': None})
    figure.savefig(svg, format='svg', metadata={'Date': None, 'Creator': None})
  text = svg.getvalue()
  return png.getvalue(), text[text.index('<svg') :]


def _front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
  """Returns the indices of the Pareto front: points that no cheaper point beats."""
  front, best = [], -np.inf
  for i in np.lexsort((-np.asarray(values), np.asarray(costs))):
    if values[i] > best:
      front.append(int(i))
      best = values[i]
  return front


_CELLS = (
  ('student', None, ''),
  ('parameters', 'parameters', ',d'),
  ('GMACs', 'gmacs', '.2f'),
  ('ms', 'cpu_ms', '.0f'),
  ('PSNR', 'psnr', '.3f'),
  ('SSIM', 'ssim', '.4f'),
  ('center', 'psnr_centre', '.3f'),
  ('over bicubic', 'gain_bicubic', '+.3f'),
  ('center', 'gain_bicubic_centre', '+.3f'),
  ('over no teacher', 'gain_untaught', '+.3f'),
  ('to teacher', 'gap_teacher', '+.3f'),
  ('images below bicubic', 'films_below_bicubic', ',d'),
)


def _table(grouped: Sequence[TrialRow]) -> str:
  lines = ['<div class="wide"><table><tr>']
  lines += [f'<th>{name}</th>' for name, _, _ in _CELLS] + ['<th></th></tr>']
  for row in grouped:
    found = faults(row)
    lines.append(f'<tr class="{"bad" if found else ""}"><td>{html.escape(_label(row))}</td>')
    for _, key, style in _CELLS[1:]:
      value = row[key]
      spread = row.get(f'{key}_sd') if key in ('psnr', 'gain_untaught') else None
      text = '' if value is None else f'{value:{style}}'
      lines.append(f'<td>{text}{"" if spread is None else f" &plusmn; {spread:.3f}"}</td>')
    note = ', '.join(found) if row['status'] == 'done' else 'not finished'
    lines.append(f'<td>{note}</td></tr>')
  return ''.join([*lines, '</table></div>'])


def _label(row: TrialRow) -> str:
  if row['objective'] is None or row['objective'] == 'teacher':
    return row['objective'] or row['network']
  return f'width {row["width"]:g}, depth {row["depth"]:g}: {row["objective"]}'


def _crops(workdir: Path, teacher: Trial, trials: Sequence[Trial]) -> list[str]:
  """Show the crop with bicubic's largest error, of the median image by the teacher's PSNR."""
  seed = trials[0].seed
  shown = [t for t in [teacher, *trials] if t.seed == seed or t is teacher]
  shown = [t for t in shown if result(workdir, t) is not None]
  if not shown:
    return ['<p>No trial is finished.</p>']
  full = copy_config(shown[0].config)
  full.data.val_count = trials[0].films
  source = sources.validation(full, minimum=evaluator.min_size(full.scale))
  figures, chosen = [], 0
  for trial in shown:
    model = load(checkpoint_of(workdir, trial))
    found = evaluator.Evaluator(model.network, source, scale=model.scale)
    if trial is shown[0]:
      results = [(i, found.measure(model.variables, i)[0]['psnr']) for i in range(len(source))]
      chosen = sorted(results, key=lambda pair: pair[1])[len(results) // 2][0]
    row, example = found.measure(model.variables, chosen)
    top, left, side = plots.detail(example)
    cut = lambda x: x[top : top + side, left : left + side]  # noqa: E731, B023
    if trial is shown[0]:
      name = html.escape(row['file'])
      figures += [_figure(cut(example.hr), f'HR, {name}')]
      figures += [_figure(cut(example.bicubic), f'bicubic, {row["bicubic_psnr"]:.2f} dB')]
    label = trial.objective if trial is teacher else f'{trial.size}, {trial.objective}'
    figures.append(_figure(cut(example.sr), f'{label}, {row["psnr"]:.2f} dB'))
  return figures


def _figure(crop: np.ndarray, caption: str) -> str:
  pixels = np.rint(np.clip(crop, 0, 1) * 255).astype(np.uint8)
  image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  data = io.BytesIO()
  image.save(data, 'PNG', optimize=True)
  encoded = base64.b64encode(data.getvalue()).decode()
  text = html.escape(caption)
  return (
    f'<figure><img alt="{text}" src="data:image/png;base64,{encoded}">'
    f'<figcaption>{text}</figcaption></figure>'
  )
