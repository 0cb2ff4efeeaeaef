"""The tables beside the images: findings, patients, splits and boxes."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data.nih import constants
from jaxsr.data.records import IndexRow
from jaxsr.errors import UserError

_FIRST = 'Image Index'  # the first column of both tables


class Entry(NamedTuple):
  """What is known of an image; `age` in years, `spacing` of the original's pixels in millimetres.

  `findings` is empty where there is none. `width` and `height` are the original's.
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
  """Where a radiologist saw a finding, in pixels of the 1024x1024 image."""

  name: str
  finding: str
  x: float
  y: float
  width: float
  height: float


def read_entries(path: Path) -> dict[str, Entry]:
  """Read Data_Entry_2017*.csv by image name; raises UserError where it is not that."""
  entries = {}
  for number, row in _rows(path):
    try:
      entry = _entry(row)
    except (ValueError, IndexError) as error:
      raise UserError(f'{path}: line {number} is not of this table ({error})') from error
    if entries.setdefault(entry.name, entry) != entry:
      raise UserError(f'{path}: {entry.name} is there twice, with different entries')
  if not entries:
    raise UserError(f'{path}: holds no entry')
  return entries


def _entry(row: list[str]) -> Entry:
  name, found, _, patient, age, sex, view, width, height, *spacing = row
  match = constants.IMAGE_NAME.fullmatch(name)
  if match is None:
    raise ValueError(f'{name!r} is no image of NIH ChestX-ray14')
  if int(match[1]) != int(patient):
    raise ValueError(f'{name} is said to be of patient {patient}')
  findings = tuple(f for f in found.split('|') if f != constants.NO_FINDING)
  if unknown := set(findings) - set(constants.FINDINGS):
    raise ValueError(f'finding {min(unknown)!r} is unknown')
  years = int(age.rstrip('YMD'))  # the older table writes 058Y, 012M and 007D
  years = years if age[-1] not in 'MD' else 0
  horizontal, vertical = (float(x) for x in spacing[:2])
  return Entry(
    name, match[1], findings, years, sex, view, int(width), int(height), (horizontal, vertical)
  )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
  """Yield a table's rows with the numbers of their lines; raises UserError for another table."""
  reader = csv.reader(io.StringIO(read_text(path)))
  header = next(reader, [])
  if not header or header[0].lstrip('\ufeff') != _FIRST:
    raise UserError(f'{path}: is not the table it is named after (no column "{_FIRST}")')
  for row in reader:
    if row:
      yield reader.line_num, row


def check(path: Path, name: str) -> None:
  """Raise UserError where a file is not the table that `name` says."""
  if name in constants.ENTRY_TABLES:
    read_entries(path)
  elif name == constants.BOX_TABLE:
    read_boxes(path)
  elif not read_list(path):
    raise UserError(f'{path}: names no image')


def index_row(entry: Entry, split: str = '') -> IndexRow:
  """Write an entry as the row of an index of records."""
  findings, side = '|'.join(entry.findings), constants.IMAGE_SIDE
  of_patient = (entry.patient, findings, entry.age, entry.sex, entry.view)
  return IndexRow(split, entry.name, *of_patient, side, side)


def read_text(path: Path) -> str:
  """Read a text file, packed with gzip or not; raises UserError where it is none."""
  try:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if raw.startswith(b'\x1f\x8b') else raw).decode('utf-8-sig')
  except (OSError, EOFError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read ({error})') from error


def read_list(path: Path) -> list[str]:
  """Read one of the lists of image names; raises UserError where a line is none."""
  names = read_text(path).split()
  for name in names:
    if not constants.IMAGE_NAME.fullmatch(name):
      raise UserError(f'{path}: {name[:40]!r} is no image of NIH ChestX-ray14')
  return names


def read_boxes(path: Path) -> list[Box]:
  """Read BBox_List_2017.csv."""
  boxes = []
  for number, row in _rows(path):
    try:
      finding = {'Infiltrate': 'Infiltration'}.get(row[1], row[1])
      box = Box(row[0], finding, *(float(x) for x in row[2:6]))
    except (ValueError, TypeError) as error:
      raise UserError(f'{path}: line {number} is not of this table ({error})') from error
    boxes.append(box)
  return boxes
