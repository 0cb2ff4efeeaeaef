"""Self-contained HTML pages of tables, figures and films, from one template.

A page is a list of sections, and a section a list of parts: tables, figures, pictures and films. A
film is shown under a slider between any two of its versions. All of it is inside the file: a
content security policy forbids the page to load anything. A term is a metric with a definition,
which opens at its name and is printed at the end of the page.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsr.errors import UserError, decodable
from jaxsr.evaluation.html import pictures
from jaxsr.files import write_text

PAGE = 'report.html'
GENERATOR = '<meta name="generator" content="jaxsr">'  # in the template; marks own pages
NEEDED = ('jinja2', 'matplotlib')
INSTALL = "pip install 'jaxsr-xray[report]'"


class Term(NamedTuple):
  """A cell of a table that is a metric: the key of its definition, and its title."""

  key: str
  title: str


class Row(NamedTuple):
  """A row of a table; `is_bad` marks it."""

  cells: Sequence[str | Term]
  is_bad: bool = False


class Table(NamedTuple):
  """A table, whose first column stays in view."""

  head: Sequence[str | Term]
  rows: Sequence[Row]


class Figures(NamedTuple):
  """Figures as SVG, each with a caption."""

  figures: Sequence[tuple[str, str]]


class Pictures(NamedTuple):
  """Small pictures [h, w, c] in [0, 1], each with a caption."""

  pictures: Sequence[tuple[np.ndarray, str]]


class Film(NamedTuple):
  """The versions of a film under a slider.

  Attributes:
    title: such as 'worst: film.png'.
    versions: images [h, w, c] in [0, 1] of one size, by their names, in the order of the menus. The
      slider begins between the first two.
    captions: a line for each version.
    places: squares (row, column, side) that can be enlarged, by their titles.
    overlays: masks [h, w] that can be switched on, by their titles and the versions that they
      belong to: boolean, or the opacity from 0 to 1.
  """

  title: str
  versions: Mapping[str, np.ndarray]
  captions: Mapping[str, str]
  places: Mapping[str, tuple[int, int, int]]
  overlays: Mapping[str, Mapping[str, np.ndarray]] = {}


class Section(NamedTuple):
  """A heading, a note below it, and the parts."""

  title: str
  note: str
  parts: Sequence[Table | Figures | Pictures | Film]


class Page(NamedTuple):
  """A page; `definitions` are the titles and texts of its terms by their keys."""

  title: str
  lead: str
  sections: Sequence[Section]
  definitions: Mapping[str, tuple[str, str]] = {}


def missing() -> list[str]:
  """Returns which of the packages that pages need are not installed."""
  return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def check() -> None:
  """Raise UserError if a package that pages need is not installed."""
  if absent := missing():
    raise UserError(f'report pages need {" and ".join(absent)}: {INSTALL}')


def write(path: Path, page: Page) -> None:
  """Write a page as one HTML file."""
  write_text(path, render(page))


def render(page: Page) -> str:
  """Returns a page as HTML."""
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['picture'] = pictures.png
  environment.filters['views'] = pictures.views
  environment.tests['term'] = lambda cell: isinstance(cell, Term)
  sections = [(s, [(type(part).__name__, part) for part in s.parts]) for s in page.sections]
  used = {cell.key for s in page.sections for part in s.parts for cell in _terms(part)}
  known = {key: found for key, found in page.definitions.items() if key in used}
  page = page._replace(definitions=known)
  found = environment.get_template('page.html').render(page=page, sections=sections)
  return decodable(found)


def _terms(part: Table | Figures | Pictures | Film) -> list[Term]:
  if not isinstance(part, Table):
    return []
  cells = [cell for row in (part.head, *(row.cells for row in part.rows)) for cell in row]
  return [cell for cell in cells if isinstance(cell, Term)]


def terms(figures: Sequence[Any]) -> dict[str, tuple[str, str]]:
  """Returns the definitions of metrics that have a `name`, a `title` and a `definition`."""
  return {each.name: (each.title, each.definition.replace('`', '')) for each in figures}
