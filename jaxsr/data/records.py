"""Images in records: a folder that TFDS reads as well, with an index of its images.

A record holds an image, its low resolution at one scale, and where bicubic errs, so that a crop
costs no decoding (`raw`; `zstd` is the same, packed), or the image's file as it is (`png`).
`index.csv` has a row for each record, in their order, and `facts.json` says how they were made.
"""

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt, UInt8

from jaxsr.data import crops, degradation, image_files, reading
from jaxsr.data.crops import Film
from jaxsr.errors import ImageError, UserError, argument, flat, nearest
from jaxsr.files import write_json, write_text

_PLAIN = 'group_size:1,uncompressed'  # ArrayRecord's options
FORMS = {'raw': _PLAIN, 'zstd': 'group_size:1,zstd:1', 'png': _PLAIN}
INDEX, FACTS = 'index.csv', 'facts.json'
NORMAL = 'normal'  # the label of images without a finding
EXTRA = "pip install 'jaxsr-xray[nih]'"


class IndexRow(NamedTuple):
  """The row of a record in the index; `findings` are joined by |, `age` is in years."""

  split: str
  name: str
  patient: str
  findings: str
  age: int
  sex: str
  view: str
  height: int
  width: int


class Facts(NamedTuple):
  """How records were made, and the images that were left out."""

  form: str
  scale: int
  splits: str
  failed: list[str]
  unlisted: int
  terms: str
  digest: str  # of the settings and of what was there


def write_index(folder: Path, rows: Iterable[IndexRow]) -> None:
  """Write the index."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(IndexRow._fields)
  writer.writerows(rows)
  write_text(folder / INDEX, text.getvalue())


def read_index(folder: Path) -> list[IndexRow]:
  """Read the index; raises UserError where it is not one."""
  path = folder / INDEX
  try:
    with path.open(newline='', encoding='utf-8') as file:
      header, *lines = csv.reader(file)
    if tuple(header) != IndexRow._fields:
      raise ValueError(f'its columns are {", ".join(header)}')
    return [_row(line) for line in lines]
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'{path}: is no index of records ({error}); prepare them again') from error


def _row(line: list[str]) -> IndexRow:
  split, name, patient, findings, age, sex, view, height, width = line
  return IndexRow(split, name, patient, findings, int(age), sex, view, int(height), int(width))


def in_two_splits(rows: Iterable[IndexRow]) -> list[str]:
  """Returns the patients that are in more than one split."""
  pairs = {(row.patient, row.split) for row in rows}
  number = Counter(patient for patient, _ in pairs)
  return sorted(patient for patient in number if number[patient] > 1)


def write_facts(folder: Path, facts: Facts) -> None:
  """Write how records were made."""
  write_json(folder / FACTS, facts._asdict())


def read_facts(folder: Path) -> Facts:
  """Read how records were made; raises UserError where that is not said."""
  path = folder / FACTS
  try:
    facts = json.loads(path.read_text(encoding='utf-8'))
    if 'strangers' in facts:  # the field's name in records written before version 0.1.0
      facts['unlisted'] = facts.pop('strangers')
    return Facts(**facts)
  except (OSError, ValueError, TypeError) as error:
    raise UserError(f'{path}: does not say how records were made ({flat(error)})') from error


def holds(root: Path) -> bool:
  """Whether there are records at or below a folder."""
  return bool(_folders(root))


def find(root: str | Path) -> Path:
  """Find the folder of records at or below another; raises UserError where there is none."""
  if found := _folders(Path(root)):
    return found[-1]
  how = f'jaxsr data prepare nih DATA --output {argument(root)}'
  raise UserError(f'{root}: holds no records; make them: {how}')


def _folders(root: Path) -> list[Path]:
  patterns = (INDEX, f'*/*/{INDEX}')  # TFDS's folders are named by data set and version
  return [path.parent for pattern in patterns for path in sorted(root.glob(pattern))]


class Records:
  """The images of a split, or those of them with a finding, as a source.

  `split` is `SPLIT` or `SPLIT/LABEL`, where the label is a finding or `normal`. A record that is
  damaged raises ImageError. Raises UserError if the split or the label has no images.
  """

  rejected: Sequence[ImageError] = ()
  bits = 8

  def __init__(self, root: str | Path, split: str, *, channels: int = 1):
    self.folder, self.channels = find(root), channels
    self.scale, self.form = (facts := read_facts(self.folder)).scale, facts.form
    self.split, _, label = split.partition('/')
    rows = _of_split(read_index(self.folder), self.split)
    self.places = _places(rows, label)
    self.rows = [rows[place] for place in self.places]
    self.names = [row.name for row in self.rows]
    self.sizes = [(row.height, row.width) for row in self.rows]
    self.identities = [row.patient for row in self.rows]

  @property
  def root(self) -> Path:
    """The folder of the records."""
    return self.folder

  @property
  def paths(self) -> list[Path]:
    """The names of the images, as paths."""
    return [Path(name) for name in self.names]

  def is_away(self) -> bool:
    """Whether the folder cannot be read, as if the disk is not mounted."""
    return not reading.can_be_opened(self.folder)

  def __repr__(self) -> str:
    return f'Records({self.split}, {len(self)})'

  def __len__(self) -> int:
    return len(self.places)

  def __getstate__(self) -> dict[str, Any]:  # files are opened anew in each process
    return {name: value for name, value in vars(self).items() if name != '_source'}

  @functools.cached_property
  def _source(self) -> Any:
    try:
      import tensorflow_datasets as tfds
    except ImportError as error:
      raise UserError(f'{self.folder}: records are read by TFDS: {EXTRA}') from error
    builder: Any = tfds.builder_from_directory(str(self.folder))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(self.split, deserialize_method=raw)

  def _read(self, index: int) -> dict[str, Any]:
    name, source = Path(self.names[index]), self._source
    try:
      found = _parse(source[self.places[index]])
    except Exception as error:  # ArrayRecord and protobuf have kinds of their own
      raise ImageError(name, f'its record is damaged ({type(error).__name__})') from error
    if found['name'] != self.names[index]:
      raise ImageError(name, f'its record is that of {found["name"]}')
    return found

  def __getitem__(self, index: int) -> UInt[np.ndarray, 'h w c']:
    return self._repeat(self._decode(index, self._read(index)))

  def _decode(self, index: int, found: dict[str, Any]) -> UInt8[np.ndarray, 'h w 1']:
    if self.form != 'png':
      return found['hr']
    _, png = _compiled()
    image = png.decode(found['png'], most=image_files.MAX_PIXELS)
    if image is None:
      return image_files.decode(io.BytesIO(found['png']), Path(self.names[index]))
    return image[..., None]

  def film(self, index: int, scale: int) -> Film:
    """Returns a full image; the low resolution of another scale than the records' is computed."""
    found = self._read(index)
    hr = degradation.cut(self._decode(index, found), scale)
    if 'lr' in found and scale == self.scale:
      lr, error = found['lr'], found['error']
    else:
      bicubic, _ = _compiled()
      lr = bicubic.downscale(hr[..., 0], scale)[..., None]
      error = bicubic.map_error(hr[..., 0], lr[..., 0])
    return Film(self._repeat(hr), self._repeat(lr), crops.accumulate(error))

  def _repeat(self, image: UInt[np.ndarray, 'h w 1']) -> UInt[np.ndarray, 'h w c']:
    return np.repeat(image, self.channels, axis=2) if self.channels > 1 else image


def _compiled() -> tuple[ModuleType, ModuleType]:
  """Import what is compiled where it is needed."""
  try:
    from jaxsr.data.fast import bicubic, png
  except ImportError as error:
    raise UserError(f'{error.name} is missing: {EXTRA}') from error
  return bicubic, png


def _parse(record: bytes) -> dict[str, Any]:
  """Take what training needs from a record, without a copy and in half of TFDS's time."""
  from tensorflow_datasets.proto import tf_example_pb2

  kinds: Any = tf_example_pb2
  features = kinds.Example.FromString(record).features.feature
  found: dict[str, Any] = {'name': features['name'].bytes_list.value[0].decode()}
  if 'png' in features:
    return found | {'png': features['png'].bytes_list.value[0]}
  for name in ('hr', 'lr'):
    shape = tuple(features[f'{name}/shape'].int64_list.value)
    found[name] = np.frombuffer(features[f'{name}/value'].bytes_list.value[0], np.uint8).reshape(
      shape
    )
  return found | {'error': np.frombuffer(features['error'].bytes_list.value[0], np.float32)}


def damaged(folder: Path) -> list[ImageError]:
  """Read every record; returns the errors of those that are damaged."""
  found = []
  for split in dict.fromkeys(row.split for row in read_index(folder)):
    source = Records(folder, split)
    for index in range(len(source)):
      try:
        source[index]
      except ImageError as error:
        found.append(error)
  return found


def _of_split(rows: Sequence[IndexRow], split: str) -> list[IndexRow]:
  found = [row for row in rows if row.split == split]
  if not found:
    known = sorted({row.split for row in rows})
    raise UserError(f'split {split!r} has no images: {nearest(split, known)}')
  return found


def _places(rows: Sequence[IndexRow], label: str) -> list[int]:
  """Choose the records of a split that have a label, sorted by name."""
  wanted = label.lower()
  labels = [tuple(row.findings.lower().split('|')) if row.findings else (NORMAL,) for row in rows]
  places = [i for i, found in enumerate(labels) if not wanted or wanted in found]
  if not places:
    known = {name for found in labels for name in found}
    raise UserError(f'label {label!r} has no images in this split: {nearest(wanted, known)}')
  return sorted(places, key=lambda i: rows[i].name)
