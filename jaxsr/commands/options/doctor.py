"""Options of `jaxsr doctor`."""

from dataclasses import dataclass
from pathlib import Path

from jaxsr.commands.options.shared import Debug


@dataclass(frozen=True)
class Doctor:
  """Check the installation: versions, devices, optional packages, pretrained models, disk.

  The exit code is 1 if a check fails.

  Attributes:
    output: The folder in which the write test is made.
  """

  output: Path = Path('.')
  debug: Debug = False
