"""The figures that an interrupted evaluation left, from which the next one continues.

`unfinished.jsonl` in the output folder has a line per image and network. It is removed when all
files of the evaluation are written.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsr.evaluation.shards import Measured

FILE = 'unfinished.jsonl'


class Unfinished:
  """The figures of one network.

  Attributes:
    found: the measurements, by the names of the images.
  """

  def __init__(self, folder: Path | None, options: Mapping[str, Any]):
    """Read the figures that were measured with the same options; None keeps nothing."""
    self._path = folder and folder / FILE
    described = json.dumps(dict(options), sort_keys=True, default=str)
    self._of = hashlib.sha256(described.encode()).hexdigest()[:16]
    self.found: dict[str, Measured] = {}
    if self._path is None or not self._path.is_file():
      return
    for line in self._path.read_text(encoding='utf-8', errors='replace').splitlines():
      try:
        of, name, row, inside = json.loads(line)
      except (ValueError, TypeError):  # the last line may have been cut off
        continue
      if of == self._of:
        self.found[name] = Measured(row, inside)

  def add(self, name: str, measured: Measured) -> None:
    """Keep the figures of an image; images that cannot be measured are tried again."""
    self.found[name] = measured
    if self._path is None or measured.row is None:
      return
    line = json.dumps([self._of, name, measured.row, list(measured.inside)])
    with self._path.open('a', encoding='utf-8') as file:
      file.write(f'\n{line}')  # after a line that was cut off


def remove(folder: Path) -> None:
  """Remove the file of an evaluation that is finished."""
  (folder / FILE).unlink(missing_ok=True)
