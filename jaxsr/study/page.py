"""The page of a study: plots, a table and crops."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsr.config import copy as copy_config
from jaxsr.data import sources
from jaxsr.evaluation import evaluator, html, plots
from jaxsr.evaluation.figures import FIGURES
from jaxsr.evaluation.html import figures as drawing
from jaxsr.inference.model import load
from jaxsr.study import Trial, checkpoint_of, result
from jaxsr.study.table import TrialRow, faults

PAGE = 'study.html'
PLOTS = {
  'gmacs': 'GMACs per image',
  'parameters': 'parameters',
  'cpu_ms': 'milliseconds on the CPU',
}


def write(
  workdir: Path,
  table: Sequence[TrialRow],
  grouped: Sequence[TrialRow],
  teacher: Trial,
  trials: Sequence[Trial],
) -> None:
  """Write the plots as PNG files, and the page."""
  drawn = []
  for axis in PLOTS:
    png, svg = _plot(grouped, axis)
    (workdir / f'pareto_{axis}.png').write_bytes(png)
    drawn.append((svg, f'PSNR against {PLOTS[axis]}'))
  first = next(trial for trial in trials)
  done = sum(row['status'] == 'done' for row in table)
  sections = (
    html.Section(
      'Quality against cost',
      'Each dot is the mean over seeds. Lines join the sizes that no cheaper size beats. Dashed '
      'line: the teacher. Dotted line: bicubic.',
      [html.Figures(drawn)],
    ),
    html.Section(
      'All trials',
      'Means over seeds, with the standard deviation for several. Red: worse than bicubic, or '
      'than the same student trained without a teacher for as many steps.',
      [_table(grouped)],
    ),
    html.Section('Crops', '', [html.Pictures(_crops(workdir, teacher, trials))]),
  )
  lead = (
    f'{first.config.model.name}, x{first.config.scale}: {done} of {len(table)} rows are measured, '
    f'each on {table[0]["films"]} images of {Path(str(first.config.data.val)).name}. '
    'For research, not for diagnosis.'
  )
  known = html.terms(list(FIGURES.values()))
  html.write(workdir / PAGE, html.Page('Compression study', lead, sections, known))


def _plot(grouped: Sequence[TrialRow], axis: str) -> tuple[bytes, str]:
  """Plot PSNR against a cost; returns PNG and SVG."""
  from matplotlib.ticker import LogLocator, NullFormatter

  students = [r for r in grouped if r['objective'] not in (None, 'teacher') and r['psnr']]
  figure, axes = drawing.new()
  objectives = list(dict.fromkeys(row['objective'] for row in students))
  for objective, color in zip(objectives, drawing.COLORS * 9, strict=False):
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
  axes.margins(y=0.2)  # room for the legend
  axes.set(xscale='log', xlabel=PLOTS[axis], ylabel='PSNR, dB')
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter('{x:,g}')
  axes.xaxis.set_minor_formatter(NullFormatter())
  if objectives:
    drawing.legend(axes)
  png = io.BytesIO()
  figure.savefig(png, format='png', dpi=160, metadata={'Software': None})
  return png.getvalue(), drawing.svg(figure)


def _front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
  """Returns the indices of the Pareto front: points that no cheaper point beats."""
  front, best = [], -np.inf
  for i in np.lexsort((-np.asarray(values), np.asarray(costs))):
    if values[i] > best:
      front.append(int(i))
      best = values[i]
  return front


def _term(name: str) -> html.Term:
  return html.Term(name, FIGURES[name].title)


_CELLS = (
  ('parameters', 'parameters', ',d'),
  ('GMACs', 'gmacs', '.2f'),
  ('ms', 'cpu_ms', '.0f'),
  (_term('psnr'), 'psnr', '.3f'),
  (_term('ssim'), 'ssim', '.4f'),
  (_term('psnr_centre'), 'psnr_centre', '.3f'),
  ('over bicubic', 'gain_bicubic', '+.3f'),
  ('center', 'gain_bicubic_centre', '+.3f'),
  ('over no teacher', 'gain_untaught', '+.3f'),
  ('to teacher', 'gap_teacher', '+.3f'),
  (_term('images_below_bicubic'), 'films_below_bicubic', ',d'),
)


def _table(grouped: Sequence[TrialRow]) -> html.Table:
  rows = []
  for row in grouped:
    found = faults(row)
    cells = [_label(row)]
    for _, key, style in _CELLS:
      value = row[key]
      spread = row.get(f'{key}_sd') if key in ('psnr', 'gain_untaught') else None
      text = '' if value is None else f'{value:{style}}'
      cells.append(text if spread is None else f'{text} ± {spread:.3f}')
    cells.append(', '.join(found) if row['status'] == 'done' else 'not finished')
    rows.append(html.Row(cells, bool(found)))
  return html.Table(['student', *(title for title, _, _ in _CELLS), ''], rows)


def _label(row: TrialRow) -> str:
  if row['objective'] is None or row['objective'] == 'teacher':
    return row['objective'] or row['network']
  return f'width {row["width"]:g}, depth {row["depth"]:g}: {row["objective"]}'


def _crops(workdir: Path, teacher: Trial, trials: Sequence[Trial]) -> list[tuple[np.ndarray, str]]:
  """Show the crop with bicubic's largest error, of the median image by the teacher's PSNR."""
  seed = trials[0].seed
  shown = [t for t in [teacher, *trials] if t.seed == seed or t is teacher]
  shown = [t for t in shown if result(workdir, t) is not None]
  if not shown:
    return []
  full = copy_config(shown[0].config)
  full.data.val_count = trials[0].films
  source = sources.validation(full, minimum=evaluator.min_size(full.scale))
  pictures, chosen = [], 0
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
      pictures.append((cut(example.hr), f'HR, {row["file"]}'))
      pictures.append((cut(example.bicubic), f'bicubic, {row["bicubic_psnr"]:.2f} dB'))
    label = trial.objective if trial is teacher else f'{trial.size}, {trial.objective}'
    pictures.append((cut(example.sr), f'{label}, {row["psnr"]:.2f} dB'))
  return pictures
