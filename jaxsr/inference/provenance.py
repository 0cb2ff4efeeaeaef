"""Where an enlarged image comes from, written into its file and read back."""

from pathlib import Path
from typing import NamedTuple

from jaxsr import __version__, files
from jaxsr.data import image_files
from jaxsr.errors import ImageError
from jaxsr.inference import package
from jaxsr.inference.model import Model


class Provenance(NamedTuple):
  """What made an image: a network with its weights, and of which file."""

  network: str
  scale: int
  weights: str  # the start of their SHA-256; '' where there are none
  source: str  # the start of the file's SHA-256

  def __str__(self) -> str:
    weights = f'weights {self.weights}; ' if self.weights else ''
    return (
      f'jaxsr {__version__}; {self.network} x{self.scale}; {weights}source {self.source}; '
      'for research, not for diagnosis'
    )


def of(model: Model, *, ensemble: bool = False) -> Provenance:
  """Describe what a network will make; `source` is still missing."""
  weights = ''
  if model.parameters:
    weights = files.digest_arrays([package.to_tensors(model.variables)], model.network)
  name = f'{model.architecture}, self-ensemble' if ensemble else model.architecture
  return Provenance(name, model.scale, weights, '')


def is_done(target: Path, wanted: Provenance) -> bool:
  """Tell whether a file is already what would be written to it."""
  if not target.is_file() or image_files.read_note(target) != str(wanted):
    return False
  try:
    image_files.read(target, channels=3)
  except ImageError:
    return False
  return True


def is_ours(path: Path) -> bool:
  """Tell whether an image was made here."""
  return image_files.read_note(path).startswith('jaxsr ')


def digest(path: Path) -> str:
  """Hash a file."""
  return files.sha256(path)[:16]
