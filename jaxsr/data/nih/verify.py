"""Say what of the data set lies in a folder, what is missing, and what is damaged."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_files
from jaxsr.data.nih import constants, download, local_copy, metadata
from jaxsr.data.nih.local_copy import Holdings
from jaxsr.errors import ImageError, UserError, brief

Tell = Callable[[str], object]


class Found(NamedTuple):
  """What a copy holds: image names, and a line for each thing that is wrong or missing."""

  names: set[str]
  problems: list[str]


def verify(found: Holdings, *, decode: bool, tell: Tell = lambda title: None) -> Found:
  """Look through a copy; `decode` looks at every image, not only at sums and names."""
  problems = [*_tables(found), *_archives(found)]
  names: set[str] = set()
  for part in found.parts:
    tell(part.title)
    try:
      for name, content in local_copy.read(part):
        if name in names:
          problems.append(f'{part.title}: {name} is there twice')
        names.add(name)
        if decode and (error := _broken(name, content)):
          problems.append(f'{part.title}: {error}')
    except UserError as error:
      problems.append(str(error))
  return Found(names, problems + _missing(found, names))


def _broken(name: str, content: bytes | None) -> str | None:
  if content is None:
    return f'{name}: is larger than {local_copy.MAX_IMAGE >> 20} MiB'
  try:
    image_files.decode(io.BytesIO(content), Path(name))
  except ImageError as error:
    return str(error)
  return None


def _archives(found: Holdings) -> Iterable[str]:
  """Compare the publisher's archives with their sums."""
  known = {archive.name: archive.md5 for archive in constants.ARCHIVES}
  for part in found.parts:
    path = Path(part.path)
    if not part.files and path.name in known and download.md5(path) != known[path.name]:
      yield f'{path.name}: its MD5 is not the published one; jaxsr data download nih mends it'


def _tables(found: Holdings) -> Iterable[str]:
  if not any(name in found.tables for name in constants.ENTRIES):
    yield f'{constants.ENTRIES[0]} is missing: {constants.by_hand("it")}'
  for kind, name in constants.LISTS.items():
    if name not in found.tables:
      why = 'without it the published split cannot be used'
      yield f'{name} is missing, {why}: {constants.by_hand("it")}'
    elif (count := len(metadata.read_list(found.tables[name]))) != constants.LISTED[kind]:
      yield f'{name} names {count} images, the published one {constants.LISTED[kind]}'


def _missing(found: Holdings, names: set[str]) -> list[str]:
  """Tell which images of the table are not here, and which here are not of it."""
  table = next((found.tables[n] for n in constants.ENTRIES if n in found.tables), None)
  if table is None:
    short = len(names) != constants.IMAGES
    return [f'{len(names)} of {constants.IMAGES} images are here'] if short else []
  known = metadata.read_entries(table).keys()
  lines = []
  if missing := sorted(known - names):
    lines.append(f'{len(missing)} of {len(known)} images are missing: {brief(missing)}')
  if strange := sorted(names - known):
    lines.append(f'{len(strange)} images are not in {table.name}: {brief(strange)}')
  return lines
