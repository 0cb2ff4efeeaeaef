"""The tables beside the images: findings, patients, splits and boxes."""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data.nih import constants
from jaxsr.data.records import IndexRow
from jaxsr.errors import UserError

SEXES, VIEWS = ('F', 'M'), ('AP', 'PA')
_FIRST = 'Image Index'  # the first column of both tables
_MOST = 2**31 - 1  # the largest integer of records


class Entry(NamedTuple):
  """A row of the table of findings.

  Attributes:
    findings: The findings; empty if there is none.
    age: In years.
    width: Of the original image, in pixels.
    height: Of the original image, in pixels.
    spacing: Pixel spacing (x, y) of the original image, in millimeters.
  """

  name: str
  patient: str
  findings: tuple[str, ...]
  age: int
  sex: str
  view: str
  width: int
  height: int
  spacing: tuple[float, float]


class Box(NamedTuple):
  """A radiologist's bounding box of a finding, in pixels of the 1024x1024 image."""

  name: str
  finding: str
  x: float
  y: float
  width: float
  height: float


def read_entries(path: Path) -> dict[str, Entry]:
  """Read Data_Entry_2017*.csv by image name; raises UserError if it is not that table."""
  entries = {}
  for number, row in _rows(path):
    try:
      entry = _entry(row)
    except (ValueError, IndexError) as error:
      raise UserError(
        f'{path}: line {number} does not fit this table ({error}); download it again'
      ) from error
    if entries.setdefault(entry.name, entry) != entry:
      raise UserError(
        f'{path}: {entry.name} occurs twice with different values; download the table again'
      )
  if not entries:
    raise UserError(f'{path}: contains no row; download the table again')
  return entries


def _entry(row: list[str]) -> Entry:
  name, found, _, patient, age, sex, view, width, height, *spacing = row
  match = constants.IMAGE_NAME.fullmatch(name)
  if match is None:
    raise ValueError(f'{name!r} is not an image of NIH ChestX-ray14')
  if int(match[1]) != int(patient):
    raise ValueError(f'{name} is assigned to patient {patient}')
  findings = tuple(f for f in found.split('|') if f != constants.NO_FINDING)
  if unknown := set(findings) - set(constants.FINDINGS):
    raise ValueError(f'finding {min(unknown)!r} is unknown')
  years = _whole('age', age.rstrip('YMD'))  # the older table writes 058Y, 012M and 007D
  years = years if age[-1] not in 'MD' else 0
  for column, value, known in (('sex', sex, SEXES), ('view', view, VIEWS)):
    if value not in known:
      raise ValueError(f'{column} {value!r} is not {" or ".join(known)}')
  sides = _whole('width', width), _whole('height', height)
  horizontal, vertical = (float(x) for x in spacing[:2])
  if not (0 < horizontal < math.inf and 0 < vertical < math.inf):
    raise ValueError(f'pixel spacing {horizontal}, {vertical} is not positive and finite')
  return Entry(name, match[1], findings, years, sex, view, *sides, (horizontal, vertical))


def _whole(column: str, text: str) -> int:
  if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MOST):
    raise ValueError(f'{column} {text[:40]!r} is not an integer from 0 to {_MOST}')
  return int(text)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
  """Yields each line number and row of a table; raises UserError for another table."""
  reader = csv.reader(io.StringIO(read_text(path)))
  try:
    header = next(reader, [])
    if not header or header[0].lstrip('\ufeff') != _FIRST:
      raise UserError(f'{path}: is another table than its name says (no column "{_FIRST}")')
    for row in reader:
      if row:
        yield reader.line_num, row
  except csv.Error as error:  # such as a quotation mark that is never closed
    raise UserError(
      f'{path}: line {reader.line_num} cannot be read ({error}); download it again'
    ) from error


def check(path: Path, name: str) -> None:
  """Raise UserError if a file is not the table `name`."""
  if name in constants.ENTRY_TABLES:
    read_entries(path)
  elif name == constants.BOX_TABLE:
    read_boxes(path)
  elif not read_list(path):
    raise UserError(f'{path}: lists no image; download it again')


def index_row(entry: Entry, split: str = '') -> IndexRow:
  """Returns an entry as a row of the index of records."""
  findings, side = '|'.join(entry.findings), constants.IMAGE_SIDE
  of_patient = (entry.patient, findings, entry.age, entry.sex, entry.view)
  return IndexRow(split, entry.name, *of_patient, side, side)


_MOST_TEXT = 256 * 2**20  # bytes; the largest table of NIH ChestX-ray14 has 8 million


def read_text(path: Path) -> str:
  """Read a text file, compressed with gzip or not; raises UserError if it is not text."""
  try:
    with path.open('rb') as plain, gzip.GzipFile(fileobj=plain) as inflated:
      zipped = plain.peek(2).startswith(b'\x1f\x8b')
      content = (inflated if zipped else plain).read(_MOST_TEXT + 1)
      if len(content) > _MOST_TEXT:
        raise UserError(f'{path}: has more than {_MOST_TEXT >> 20} MiB; no table needs that')
      return content.decode('utf-8-sig')
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read ({error})') from error


def read_list(path: Path) -> list[str]:
  """Read a list of image names; raises UserError if a line is not an image name."""
  names = read_text(path).split()
  for name in names:
    if not constants.IMAGE_NAME.fullmatch(name):
      raise UserError(f'{path}: {name[:40]!r} is not an image of NIH ChestX-ray14')
  return names


def read_boxes(path: Path) -> list[Box]:
  """Read BBox_List_2017.csv."""
  boxes = []
  for number, row in _rows(path):
    try:
      finding = {'Infiltrate': 'Infiltration'}.get(row[1], row[1])
      box = Box(row[0], finding, *(float(x) for x in row[2:6]))
      if not all(map(math.isfinite, box[2:])):
        raise ValueError(f'{row[2:6]} are not four finite numbers')
    except (ValueError, TypeError, IndexError) as error:
      raise UserError(
        f'{path}: line {number} does not fit this table ({error}); download it again'
      ) from error
    boxes.append(box)
  return boxes
