"""`jaxsr phantom`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxsr.commands import report
from jaxsr.data import image_files, sources
from jaxsr.errors import UserError
from jaxsr.files import make_folder


@dataclass(frozen=True)
class Phantom:
  """Write procedural chest radiographs, for tests and demonstrations."""

  output: Path
  """The folder to write to."""
  count: int = 8
  """How many."""
  seed: int = 0
  """Which series."""
  start: int = 0
  """The number of the first one."""
  size: int = 1024
  """Pixels of a side, a multiple of 8."""
  bits: Literal[8, 16] = 8
  """Bits a pixel."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Draw and write; return the exit code."""
    if self.count < 1:
      raise UserError(f'--count {self.count} is less than 1')
    source = sources.Phantoms(
      seed=self.seed, start=self.start, count=self.count, size=self.size, bits=self.bits
    )
    make_folder(self.output)
    for i, name in enumerate(report.progress(source.names, len(source), 'phantom')):
      image_files.write(self.output / name, source[i])
    return 0
