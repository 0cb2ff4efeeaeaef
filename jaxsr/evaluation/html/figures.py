"""Figures for pages: SVG that takes the colors of the page's text and background."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsr.errors import shown

COLORS = ('#2a7fc1', '#d1495b', '#2e9b63', '#b8860b', '#8a5fb0', '#808080')
_MOST = 400  # dots of a distribution
TEXT = '#123457'  # a color that no figure uses; pages replace it


def new(width: float = 4.6, height: float = 3.2) -> tuple[Any, Any]:
  """Returns a figure and its axes, for `svg`."""
  import matplotlib as mpl
  from matplotlib.figure import Figure

  colors = ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color')
  with mpl.rc_context(dict.fromkeys(colors, TEXT)):
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25)
  axes.patch.set_alpha(0)
  return figure, axes


def legend(axes: Any, **options: Any) -> None:
  """Add a legend in the colors of the page; matplotlib's own leaves names like '_small' out."""
  drawn = [x for x in (*axes.lines, *axes.containers) if not _is_unnamed(x.get_label())]
  labels = [shown(x.get_label()) for x in drawn]
  axes.legend(drawn, labels, fontsize=8, frameon=False, labelcolor=TEXT, **options)


def _is_unnamed(label: str) -> bool:
  return label.startswith(('_child', '_nolegend'))


def svg(figure: Any) -> str:
  """Returns a figure as an SVG element with selectable text, the same for equal figures."""
  import matplotlib as mpl
  from matplotlib.text import Text

  for each in figure.findobj(Text):
    each.set_parse_math(False)  # a name may contain a dollar sign
  text = io.StringIO()
  with mpl.rc_context({
    'svg.hashsalt': 'jaxsr', 'svg.fonttype': 'none', 'text.parse_math': False
  }):  # fmt: skip
    figure.savefig(text, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  found = text.getvalue()
  found = found[found.index('<svg') :]
  found = re.sub(r'<metadata>.*?</metadata>', '', found, flags=re.DOTALL)
  found = re.sub(r'<g id="[^"]*"', '<g', found)  # every figure has the same ones
  return found.replace(TEXT, 'currentColor')


def distribution(title: str, groups: Mapping[str, Sequence[float]]) -> str:
  """Draw a box and the single values of each group.

  Args:
    title: of the axis.
    groups: values by the names of networks.
  """
  figure, axes = new(height=0.9 + 0.5 * len(groups))
  rng = np.random.default_rng(0)
  places = range(len(groups), 0, -1)
  for place, values, color in zip(places, groups.values(), COLORS * 9, strict=False):
    values = np.asarray(values, np.float64)
    axes.boxplot(
      values,
      positions=[place],
      orientation='horizontal',
      widths=0.6,
      showfliers=False,
      **{f'{part}props': {'color': color} for part in ('box', 'whisker', 'cap', 'median')},
    )
    some = values if len(values) <= _MOST else rng.choice(values, _MOST, replace=False)
    height = place + rng.uniform(-0.2, 0.2, len(some))
    axes.plot(some, height, '.', color=color, alpha=0.6, markersize=4)
  axes.set_yticks(list(places), [shown(name) for name in groups])
  axes.set(xlabel=title, ylim=(0.5, len(groups) + 0.5))
  return svg(figure)


def intervals(
  title: str,
  rows: Sequence[str],
  series: Mapping[str, Sequence[tuple[float, Sequence[float] | None]]],
) -> str:
  """Draw means with their intervals: one row per label, one color per series.

  Args:
    title: of the axis.
    rows: the labels.
    series: for each name, the mean and the interval or None of each row.
  """
  figure, axes = new(height=1.0 + (0.15 + 0.1 * len(series)) * len(rows))
  for number, (name, found) in enumerate(series.items()):
    color = COLORS[number % len(COLORS)]
    places = np.arange(len(rows), 0, -1) + 0.6 * ((len(series) - 1) / 2 - number) / len(series)
    for place, (_, ends) in zip(places, found, strict=True):
      if ends is not None:
        axes.plot(ends, [place, place], color=color, linewidth=1.5)
    axes.plot([mean for mean, _ in found], places, 'o', color=color, markersize=4, label=name)
  axes.set_yticks(range(len(rows), 0, -1), [shown(row) for row in rows], fontsize=8)
  axes.set(xlabel=title, ylim=(0.4, len(rows) + 0.6))
  if len(series) > 1:
    legend(axes)
  return svg(figure)
