"""Record in an upscaled image how it was made, and read that back."""

import re
from pathlib import Path
from typing import NamedTuple

from jaxsr import __version__, files
from jaxsr.data import image_files
from jaxsr.errors import ImageError
from jaxsr.inference import package
from jaxsr.inference.model import Model

# A result of `jaxsr upscale`; images that a user saved by `jaxsr.write` name no network and scale.
_RESULT = re.compile(r'jaxsr [^;]+; [^;]+ x[\d.]+; (?:weights [^;]+; )?source ([0-9a-f]+)')
AGREES, DISAGREES = ' (made to agree with it)', ' (not made to agree with it)'


class Provenance(NamedTuple):
  """The network, its weights and the source of an upscaled image."""

  network: str
  scale: int | float
  weights: str  # the start of their SHA-256; '' if there are none
  source: str  # the start of the file's SHA-256
  agreement: str = ''  # one of the texts above; '' if it was not asked for
  content: str = ''  # of a by-product: its content and calibration

  @property
  def method(self) -> str:
    """The network and the scale: 'edsr x4'."""
    return f'{self.network} x{self.scale:g}'

  def __str__(self) -> str:
    weights = f'weights {self.weights}; ' if self.weights else ''
    content = f'{self.content}; ' if self.content else ''
    return (
      f'jaxsr {__version__}; {self.method}; {weights}source {self.source}{self.agreement}; '
      f'{content}for research, not for diagnosis'
    )


def of(model: Model, *, ensemble: bool = False, agree: bool | None = None) -> Provenance:
  """Returns the provenance of a model's images, with an empty `source`.

  `ensemble` and `agree` are those of `Model.upscale`.
  """
  weights = ''
  if model.parameters:
    weights = files.digest_arrays([package.to_tensors(model.variables)], model.network)
  name = f'{model.architecture}, self-ensemble' if ensemble else model.architecture
  rule = model.agreement_rule(agree)
  agreement = '' if rule is None else AGREES
  return Provenance(name, model.scale, weights, '', agreement)


def is_done(target: Path, wanted: Provenance) -> bool:
  """Whether a file already holds the image of this provenance, undamaged.

  It may also say that its source was found not to be a reduction that it could agree with.
  """
  notes = {str(wanted)}
  if wanted.agreement:
    notes.add(str(wanted._replace(agreement=DISAGREES)))
  if not target.is_file() or image_files.read_note(target) not in notes:
    return False
  return image_files.is_intact(target)


def source_of(path: Path) -> str:
  """Returns the digest of the file that a result was made from; '' for files of other origin."""
  found = _RESULT.match(image_files.read_note(path))
  return found[1] if found else ''


def digest(path: Path) -> str:
  """Returns the start of a file's SHA-256."""
  return files.sha256(path)[:16]


def digest_image(path: Path) -> str:
  """Returns `digest`; raises ImageError for pipes, broken links and unreadable files."""
  image_files.open_file(path).close()
  try:
    return digest(path)
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error
