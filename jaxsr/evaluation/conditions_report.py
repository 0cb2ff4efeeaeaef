"""The table and the plot of figures by condition."""

import io
import sys
from pathlib import Path
from typing import Any

from jaxsr.errors import shown
from jaxsr.evaluation import own_files
from jaxsr.evaluation.conditions import BICUBIC, DENOISER, PER_IMAGE, Table
from jaxsr.files import atomic, to_csv, write_text

CSV, PLOT = 'conditions.csv', 'conditions.png'
_RED, _PLAIN = '\033[31m', '\033[0m'
_COLORS = ('#1b6ca8', '#2e8b57', '#7b4fa3', '#b8860b')
_BELOW, _GRAY = '#d00000', '#777777'


def write(folder: Path, table: Table) -> None:
  """Write `conditions.csv`, and `conditions.png` if matplotlib is installed."""
  rows = [
    {'condition': condition, 'method': method, **figures}
    for condition, methods in table.items()
    for method, figures in methods.items()
  ]
  write_text(folder / CSV, to_csv(rows))
  try:
    png = plot(table)
  except ImportError:
    (folder / PLOT).unlink(missing_ok=True)
    needed = "matplotlib (pip install 'jaxsr-xray[conditions]')"
    print(f'{PLOT} was not drawn: it needs {needed}', file=sys.stderr, flush=True)
    return
  with atomic(folder / PLOT) as temporary:
    temporary.write_bytes(png)


def remove(folder: Path) -> None:
  """Remove the files of an earlier evaluation."""
  for name in (CSV, PLOT, PER_IMAGE):
    (folder / name).unlink(missing_ok=True)


def table(found: Table, *, color: bool = False) -> str:
  """Lay out PSNR and SSIM, whole and center, as text.

  A figure of a network below bicubic's has an exclamation mark, red with `color`.
  """
  methods = [*next(iter(found.values()))]
  blocks = (('PSNR, whole / center', 'psnr', '.2f'), ('SSIM, whole / center', 'ssim', '.4f'))
  width = max(19, *(len(shown(method)) for method in methods))
  lines, marked = [], False
  for title, name, form in blocks:
    lines.append(f'{title:21s}' + ''.join(f'  {shown(method):>{width}s}' for method in methods))
    for condition, of in found.items():
      line = f'{condition:21s}'
      for method in methods:
        pairs = [(of[method][key], of[BICUBIC][key]) for key in (name, f'{name}_centre')]
        cell = ' / '.join(f'{own:{form}}{"!" if own < other else ""}' for own, other in pairs)
        bad = '!' in cell and method not in (BICUBIC, DENOISER)
        cell = cell if bad else cell.replace('!', '')
        marked |= bad
        text = f'{cell:>{width}s}'
        line += f'  {_RED}{text}{_PLAIN}' if bad and color else f'  {text}'
      lines.append(line)
  return '\n'.join([*lines, *(['! below bicubic'] if marked else [])])


def plot(found: Table) -> bytes:
  """Plot the gain in PSNR over bicubic by condition, whole and center, as a PNG file.

  Figures of networks below bicubic's have a red ring.
  """
  from matplotlib.figure import Figure
  from matplotlib.text import Text

  conditions = [*found]
  methods = [m for m in next(iter(found.values())) if m != BICUBIC]
  figure = Figure(figsize=(11, 1.6 + 0.36 * len(conditions)), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  for panel, key, title in zip(
    panels, ('psnr', 'psnr_centre'), ('whole image', 'center'), strict=True
  ):
    _panel(panel, found, methods, key)
    panel.set(title=title, xlabel='gain in PSNR over bicubic, dB')
  panels[0].set_yticks(range(len(conditions)), conditions)
  panels[0].invert_yaxis()
  handles, labels = panels[0].get_legend_handles_labels()
  columns = min(4, len(labels))
  labels = [shown(label) for label in labels]
  figure.legend(handles, labels, loc='outside lower center', ncols=columns, frameon=False)
  for each in figure.findobj(Text):
    each.set_parse_math(False)  # a name may contain a dollar sign
  png = io.BytesIO()
  own = {'Software': None, 'Comment': own_files.NOTE}
  figure.savefig(png, format='png', dpi=110, metadata=own)
  return png.getvalue()


def _panel(panel: Any, found: Table, methods: list[str], key: str) -> None:
  rows = range(len(found))
  panel.axvline(0, color='black', linewidth=1, label=BICUBIC)
  below = []
  for i, method in enumerate(methods):
    gains = [of[method][key] - of[BICUBIC][key] for of in found.values()]
    places = [row + 0.5 * ((i + 0.5) / len(methods) - 0.5) for row in rows]
    if method == DENOISER:
      panel.plot(gains, places, 's', color=_GRAY, markersize=5, label=method)
      continue
    networks = [m for m in methods if m != DENOISER]
    panel.plot(
      gains, places, 'o', color=_COLORS[networks.index(method) % len(_COLORS)], label=method
    )
    below += [(gain, place) for gain, place in zip(gains, places, strict=True) if gain < 0]
  if below:
    style = {'markeredgecolor': _BELOW, 'markeredgewidth': 1.8, 'markersize': 11}
    label = 'network below bicubic'
    panel.plot(*zip(*below, strict=True), 'o', fillstyle='none', label=label, **style)
  panel.grid(axis='x', alpha=0.3)
  for row in rows:
    panel.axhline(row + 0.5, color='#dddddd', linewidth=0.6)
