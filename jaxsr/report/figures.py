"""Figures for pages: SVG that takes the colors of the page's text and background."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLORS = ('#2a7fc1', '#d1495b', '#2e9b63', '#b8860b', '#8a5fb0', '#808080')
_MOST = 400  # dots of a distribution
_TEXT = '#123457'  # a color that no figure uses; pages replace it


def new(width: float = 4.6, height: float = 3.2) -> tuple[Any, Any]:
  """Returns a figure and its axes, for `svg`."""
  import matplotlib as mpl
  from matplotlib.figure import Figure

  colors = ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color')
  with mpl.rc_context(dict.fromkeys(colors, _TEXT)):
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(alpha=0.25)
  axes.patch.set_alpha(0)
  return figure, axes


def legend(axes: Any, **options: Any) -> None:
  """Add a legend in the colors of the page."""
  axes.legend(fontsize=8, frameon=False, labelcolor=_TEXT, **options)


def svg(figure: Any) -> str:
  """Returns a figure as an SVG element with selectable text, the same for equal figures."""
  import matplotlib as mpl

  text = io.StringIO()
  with mpl.rc_context({'svg.hashsalt': 'jaxsr', 'svg.fonttype': 'none'}):
    figure.savefig(text, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  found = text.getvalue()
  found = found[found.index('<svg') :]
  found = re.sub(r'<metadata>.*?</metadata>', '', found, flags=re.DOTALL)
  found = re.sub(r'<g id="[^"]*"', '<g', found)  # every figure has the same ones
  return found.replace(_TEXT, 'currentColor')


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
    shown = values if len(values) <= _MOST else rng.choice(values, _MOST, replace=False)
    height = place + rng.uniform(-0.2, 0.2, len(shown))
    axes.plot(shown, height, '.', color=color, alpha=0.6, markersize=4)
  axes.set_yticks(list(places), list(groups))
  axes.set(xlabel=title, ylim=(0.5, len(groups) + 0.5))
  return svg(figure)


def intervals(title: str, rows: Sequence[tuple[str, float, tuple[float, float] | None]]) -> str:
  """Draw a mean with its interval per row: a label, the mean, and the interval or None."""
  figure, axes = new(height=1.0 + 0.25 * len(rows))
  places = range(len(rows), 0, -1)
  for place, (_, mean, ends) in zip(places, rows, strict=True):
    if ends is not None:
      axes.plot(ends, [place, place], color=COLORS[0], linewidth=1.5)
    axes.plot([mean], [place], 'o', color=COLORS[0], markersize=4)
  axes.set_yticks(list(places), [label for label, _, _ in rows], fontsize=8)
  axes.set(xlabel=title, ylim=(0.5, len(rows) + 0.5))
  return svg(figure)
