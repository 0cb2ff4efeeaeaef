"""Options of the commands that simulate images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import Bits, Debug, OptionalFloat


@dataclass(frozen=True)
class Phantom:
  """Write phantoms, artificial chest X-rays, for tests and demonstrations.

  Attributes:
    output: The folder to write to.
    count: The number of images.
    seed: The random seed.
    start: The number of the first image.
    size: The side of an image in pixels, a multiple of 8.
    bits: Bits per pixel.
  """

  output: Path
  count: int = 8
  seed: int = 0
  start: int = 0
  size: int = 1024
  bits: Literal[8, 16] = 8
  debug: Debug = False


@dataclass(frozen=True)
class Degrade:
  """Simulate low-resolution images as a detector, a low dose or an archive produces them.

  The noise of an image depends on its file name and the condition only.

  Attributes:
    data: An image or a folder of images.
    output: The folder to write PNG files to.
    condition: clean, binned, blurred, low_dose, very_low_dose, jpeg75, jpeg50, archive or mixed.
    dose: The dose relative to the usual one (default: that of the condition).
    scale: The factor of the reduction.
  """

  data: Annotated[Path, tyro.conf.Positional]
  output: Path
  condition: str = 'low_dose'
  dose: OptionalFloat = None
  scale: int = 4
  bits: Bits = 0
  debug: Debug = False
