"""The page of an evaluation: one or several networks beside bicubic interpolation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from jaxsr.data.sources import Source
from jaxsr.errors import count
from jaxsr.evaluation import doubt, figures, html
from jaxsr.evaluation.html import figures as drawing
from jaxsr.evaluation.plots import Example
from jaxsr.inference.model import Model

BICUBIC = 'bicubic'
TRUST_JSON, AUDIT_CSV, AUDIT_PNG = 'trust.json', 'trust.csv', 'trust.png'
LESIONS_CSV, READERS_CSV = 'lesions.csv', 'readers.csv'

# Computes sections from models by their names, the films and the output folder.
Parts = Callable[[Mapping[str, Model], Source, Path], Sequence[html.Section]]
_ZOOM = 8  # a place is an eighth of the film's shorter side


class Result(NamedTuple):
  """The evaluation of one network.

  Attributes:
    name: of the network.
    summary: as `jaxsr.evaluation.evaluate.evaluate` returns it.
    rows: the figures of each film.
    shown: the films on the page and their rows, by their rank: 'best', 'median', 'worst'.
    doubt: the doubtful pixels of these films, if the network has a calibration.
  """

  name: str
  summary: dict[str, Any]
  rows: Sequence[dict[str, Any]]
  shown: Mapping[str, tuple[dict[str, Any], Example]]
  doubt: Mapping[str, np.ndarray] = {}


def write(
  folder: Path,
  results: Sequence[Result],
  more: Sequence[html.Section] = (),
) -> None:
  """Write `report.html` of networks that were measured on the same films.

  Args:
    folder: an existing folder.
    results: of the networks; the films that are shown are those of the first.
    more: further sections.
  """
  first = results[0].summary
  ranks: dict[str, str] = {}  # by file: of few images, one can be the best and the median
  for rank, (row, _) in results[0].shown.items():
    ranks.setdefault(row['file'], rank)
  others = [result for result in results if result.name != BICUBIC]
  note = (
    'Drag the boundary; choose the versions on both sides; double-click to enlarge. Places are '
    'shown without loss.'
  )
  note += f' {doubt.NOTE}' if any(result.doubt for result in results) else ''
  sections = [
    html.Section('Metrics', 'Means over images. Select a name to read its definition.', [
      _metrics(others, first)
    ]),
    html.Section('Films', note, [_film(rank, results[0], others) for rank in ranks.values()]),
    *_by_film(others, results[0]),
    *_strata(others),
    *more,
  ]  # fmt: skip
  names = ', '.join(result.name for result in results)
  lead = (
    f'{names} on {count(first["n"], "image")} of {first["data"]}, x{first["scale"]}, '
    f'protocol {first["protocol"]}, jaxsr {first["version"]}. For research, not for diagnosis.'
  )
  known = html.terms([*figures.FIGURES.values(), *(figures.TRUST.values() if more else ())])
  html.write(folder / html.PAGE, html.Page(f'Evaluation of {names}', lead, sections, known))


def remove_parts(folder: Path) -> None:
  """Remove the files of an earlier audit, lesion study and reader."""
  for name in (TRUST_JSON, AUDIT_CSV, AUDIT_PNG, LESIONS_CSV, READERS_CSV):
    (folder / name).unlink(missing_ok=True)


def _metrics(others: Sequence[Result], first: Mapping[str, Any]) -> html.Table:
  """Returns the table of metrics: bicubic and the networks, and the gain of a single network."""
  head = ['', BICUBIC, *(result.name for result in others)]
  head += ['gain'] if len(others) == 1 else []
  rows = []
  for figure in figures.compared(first):
    values = [first[f'bicubic_{figure.name}'], *(r.summary[figure.name] for r in others)]
    cells = [format(value, figure.format) for value in values]
    cells += [f'{values[1] - values[0]:+{figure.format}}'] if len(others) == 1 else []
    rows.append(html.Row([html.Term(figure.name, figure.title), *cells]))
  if others:
    below = figures.FIGURES['images_below_bicubic']
    cells = ['', *(str(r.summary[below.name]) for r in others)]
    cells += [''] if len(others) == 1 else []
    rows.append(html.Row([html.Term(below.name, below.title), *cells]))
  return html.Table(head, rows)


def _film(rank: str, first: Result, others: Sequence[Result]) -> html.Film:
  row, example = first.shown[rank]
  shown = {result.name: result.shown[rank] for result in others}
  versions = {BICUBIC: example.bicubic} | {name: one.sr for name, (_, one) in shown.items()}
  own = row.get('bicubic_raw_psnr', row['bicubic_psnr'])  # the film shows it without agreement
  captions = {BICUBIC: f'bicubic, {own:.2f} dB'}
  captions |= {name: f'{name}, {one["psnr"]:.2f} dB' for name, (one, _) in shown.items()}
  places = {f'where {name} errs most': place(image, example.hr) for name, image in versions.items()}
  doubts = {result.name: result.doubt[rank] for result in others if rank in result.doubt}
  return html.Film(
    f'{rank}: {row["file"]}',
    versions | {'HR': example.hr},
    captions | {'HR': 'HR, the original'},
    places,
    {'doubt': doubts} if doubts else {},
  )


def place(image: np.ndarray, hr: np.ndarray) -> tuple[int, int, int]:
  """Returns row, column and side of the square in which an image's mean squared error is largest.

  Its side is an eighth of the film's shorter side, at least 16 pixels.
  """
  error = np.square(image.astype(np.float64) - hr).mean(axis=2)
  side = min(max(16, min(error.shape) // _ZOOM), *error.shape)
  means = ndimage.uniform_filter(error, side, mode='constant')
  start = side // 2  # of the square around a pixel, as uniform_filter counts
  rows, columns = (length - side + 1 for length in error.shape)
  inside = means[start : start + rows, start : start + columns]
  row, column = np.unravel_index(int(inside.argmax()), inside.shape)
  return int(row), int(column), side


def _by_film(others: Sequence[Result], first: Result) -> list[html.Section]:
  if len(first.rows) < 2:
    return []
  drawn, definitions = [], html.terms(list(figures.FIGURES.values()))
  for name in (name for name, figure in figures.FIGURES.items() if figure.drawn):
    groups = {BICUBIC: [row[f'bicubic_{name}'] for row in first.rows]}
    groups |= {result.name: [row[name] for row in result.rows] for result in others}
    groups = {key: [x for x in values if x is not None] for key, values in groups.items()}
    if all(groups.values()):
      figure = figures.FIGURES[name]
      drawn.append((drawing.distribution(figure.title, groups), definitions[name][1]))
  note = 'One dot per image; boxes hold the middle half, with the median.'
  return [html.Section('By image', note, [html.Figures(drawn)])]


def _strata(others: Sequence[Result]) -> list[html.Section]:
  """Returns the gain over bicubic by finding, view, sex and age, and inside boxes."""
  if not others:
    return []
  known = {result.name: dict(result.summary.get('strata', {})) for result in others}
  sections = []
  if kinds := [kind for kind in known[others[0].name] if kind != 'all']:
    parts = [
      (_gains({name: strata[kind] for name, strata in known.items()}), f'by {kind}')
      for kind in kinds
    ]
    sections.append(('Subgroups', parts))
  inside = {r.name: r.summary['regions'] for r in others if 'regions' in r.summary}
  if inside:
    sections.append(('Inside boxes', [(_gains(inside), 'by finding')]))
  note = 'Gain in PSNR over bicubic, with 95 % intervals of a bootstrap over patients.'
  return [html.Section(title, note, [html.Figures(parts)]) for title, parts in sections]


def _gains(values: Mapping[str, Mapping[str, Any]]) -> str:
  """Draw the gains of networks, by their names and the values of a kind of stratum."""
  first = next(iter(values.values()))
  rows = [f'{value} ({found["n"]})' for value, found in first.items()]
  series = {
    name: [(found[value]['psnr_gain'], found[value]['psnr_gain_interval']) for value in first]
    for name, found in values.items()
  }
  return drawing.intervals('gain in PSNR, dB', rows, series)
