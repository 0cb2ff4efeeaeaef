"""The figures that an interrupted evaluation left, from which the next one continues.

`unfinished.jsonl` in the output folder has a line per image and network, with a digest by which a
damaged line is noticed: its image is measured again. The file is removed when all files of the
evaluation are written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsr.data import fingerprint
from jaxsr.data.sources import Source
from jaxsr.errors import count, warn
from jaxsr.evaluation.shards import Measured, is_whole
from jaxsr.files import digest_json, named

FILE = 'unfinished.jsonl'


class Unfinished:
  """The figures of one network.

  Attributes:
    found: the measurements, by the names of the images.
  """

  def __init__(self, folder: Path | None, options: Mapping[str, Any]):
    """Read the figures that were measured with the same options; None keeps nothing."""
    self._path = folder and folder / FILE
    self._of = digest_json(dict(options))
    self.found: dict[str, Measured] = {}
    if self._path is None or not self._path.is_file():
      return
    for line in self._path.read_text(encoding='utf-8', errors='replace').splitlines():
      try:
        *fields, digest = json.loads(line)
        of, name, row, inside, content = fields
        measured = Measured(row, inside, content=content)
        whole = is_whole(measured) and measured.row is not None and digest == digest_json(fields)
      except (ValueError, TypeError, OverflowError, RecursionError):
        continue  # the last line may have been cut off
      if of == self._of and isinstance(name, str) and whole:
        self.found[name] = measured
    self._drop_incomplete()

  def _drop_incomplete(self) -> None:
    """Drop rows that lack a figure that others have."""
    names = {name for each in self.found.values() for name in each.row or ()}
    self.found = {k: each for k, each in self.found.items() if names == {*(each.row or ())}}

  def add(self, name: str, measured: Measured) -> None:
    """Keep the figures of an image; images that cannot be measured are tried again."""
    self.found[name] = measured
    if self._path is None or measured.row is None:
      return
    fields = [self._of, name, measured.row, list(measured.inside), measured.content]
    line = json.dumps([*fields, digest_json(fields)])
    with named(self._path), self._path.open('a', encoding='utf-8') as file:
      file.write(f'\n{line}')  # after a line that was cut off


def remove(folder: Path) -> None:
  """Remove the file of an evaluation that is finished."""
  (folder / FILE).unlink(missing_ok=True)


def of_same_images(found: Mapping[str, Measured], source: Source) -> dict[str, Measured]:
  """Returns the measurements of images that are as they were, and print how many are not."""
  places = {name: i for i, name in enumerate(source.names)}
  same = {
    name: each
    for name, each in found.items()
    if name in places and fingerprint.of_image(source, places[name]) == each.content
  }
  if changed := len(found) - len(same):
    warn(f'{count(changed, "image")} not as measured before; measured again')
  return same
