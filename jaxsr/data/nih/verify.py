"""Check a local copy for missing and damaged images, archives and tables."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_files
from jaxsr.data.nih import archives, constants, download, local_copy, metadata
from jaxsr.data.nih.local_copy import LocalCopy
from jaxsr.errors import ImageError, UserError, brief


class VerifyResult(NamedTuple):
  """The names of the images in a copy, and a message for each problem."""

  names: set[str]
  problems: list[str]


def verify(
  found: LocalCopy, *, decode: bool, on_shard: Callable[[str], object] = lambda title: None
) -> VerifyResult:
  """Check a local copy.

  Args:
    found: The copy.
    decode: Whether to decode each image, beyond checking checksums and names.
    on_shard: Called with the title of each shard before it is checked.
  """
  problems = [*found.problems, *_tables(found), *_archives(found)]
  names: set[str] = set()
  for shard in found.shards:
    on_shard(shard.title)
    try:
      for name, content in local_copy.read(shard):
        if name in names:
          problems.append(f'{shard.title}: {name} occurs twice')
        if archives.image_name(name):  # else the name of an archive in the archive
          names.add(name)
        if (decode or isinstance(content, ImageError)) and (error := _broken(name, content)):
          problems.append(f'{shard.title}: {error}')
    except UserError as error:
      problems.append(str(error))
  return VerifyResult(names, problems + _missing(found, names))


def _broken(name: str, content: bytes | ImageError) -> str | None:
  if isinstance(content, ImageError):
    return f'{name}: {content.reason}'
  try:
    image_files.decode(io.BytesIO(content), Path(name))
  except ImageError as error:
    return str(error)
  return None


def _archives(found: LocalCopy) -> Iterable[str]:
  """Compare the archives with their published MD5."""
  known = {archive.name: archive.md5 for archive in constants.ARCHIVES}
  for shard in found.shards:
    path = Path(shard.path)
    if not shard.files and path.name in known and download.md5(path) != known[path.name]:
      yield f'{path.name}: its MD5 is not the published one; jaxsr data download nih replaces it'


def _tables(found: LocalCopy) -> Iterable[str]:
  if not any(name in found.tables for name in constants.ENTRY_TABLES):
    yield f'{constants.ENTRY_TABLES[0]} is missing: {constants.manual_download("it")}'
  for kind, name in constants.SPLIT_LISTS.items():
    if name not in found.tables:
      why = 'the published split needs it'
      yield f'{name} is missing, and {why}: {constants.manual_download("it")}'
    elif (count := len(metadata.read_list(found.tables[name]))) != constants.SPLIT_LIST_SIZES[kind]:
      yield f'{name} lists {count} images, the published list {constants.SPLIT_LIST_SIZES[kind]}'


def _missing(found: LocalCopy, names: set[str]) -> list[str]:
  """Returns messages about images that are missing, or that are not in the table."""
  table = next((found.tables[n] for n in constants.ENTRY_TABLES if n in found.tables), None)
  if table is None:
    short = len(names) != constants.IMAGE_COUNT
    return [f'{len(names)} of {constants.IMAGE_COUNT} images are present'] if short else []
  known = metadata.read_entries(table).keys()
  lines = []
  if missing := sorted(known - names):
    lines.append(f'{len(missing)} of {len(known)} images are missing: {brief(missing)}')
  if strange := sorted(names - known):
    lines.append(f'{len(strange)} images are not in {table.name}: {brief(strange)}')
  return lines
