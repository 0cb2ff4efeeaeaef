"""Options of the commands that simulate images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import Debug, OptionalFloat


@dataclass(frozen=True)
class Phantom:
  """Write computer-drawn chest radiographs for tests and demonstrations."""

  output: Path
  """The folder to write to."""
  count: int = 8
  """The number of images."""
  seed: int = 0
  """The random seed."""
  start: int = 0
  """The number of the first image."""
  size: int = 1024
  """The side of an image in pixels, a multiple of 8."""
  bits: Literal[8, 16] = 8
  """Bits per pixel."""
  debug: Debug = False


@dataclass(frozen=True)
class Degrade:
  """Simulate low-resolution images as a detector, a low dose or an archive produces them.

  The noise of an image depends on its file name and the condition only.
  """

  data: Annotated[Path, tyro.conf.Positional]
  """An image or a folder of images."""
  output: Path
  """The folder to write PNG files to."""
  condition: str = 'low_dose'
  """clean, binned, blurred, low_dose, very_low_dose, jpeg75, jpeg50, archive or mixed."""
  dose: OptionalFloat = None
  """The dose relative to the usual one (default: that of the condition)."""
  scale: int = 4
  """The factor of the reduction."""
  debug: Debug = False
