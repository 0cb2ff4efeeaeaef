"""`jaxsr upscale`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from jaxsr import predictor
from jaxsr.commands import report
from jaxsr.data import images
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import make_folder


@dataclass(frozen=True)
class Upscale:
  """Enlarge images; names, folders, bit depth and value range stay. DICOM becomes PNG."""

  input: Annotated[Path, tyro.conf.Positional]
  """An image, or a folder that is read recursively."""
  checkpoint: str
  """A run's or package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection'."""
  output: Path
  """The file to write for one image (or a folder), the folder for a folder."""
  scale: int | None = None
  """The scale of an interpolation (default 4); a run knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  width: float = 1.0
  """A width that a slimmable network was trained at."""
  depth: float = 1.0
  """A depth that a slimmable network was trained at."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Enlarge and write; return the exit code."""
    paths = images.find(self.input)
    self._check_output()
    targets = [self._target(path) for path in paths]
    if twice := [str(t) for t, count in Counter(targets).items() if count > 1]:
      raise UserError(f'two images would be written to {brief(twice)}: rename one of each')
    model = predictor.load(
      self.checkpoint, scale=self.scale, step=self.step, width=self.width, depth=self.depth
    )
    enlarge = predictor.make_upscale(model)
    failed = []
    for path, target in report.progress(zip(paths, targets, strict=True), len(paths), 'upscale'):
      try:
        image = images.read(path, model.channels)
        images.check_target(target, image)
        make_folder(target.parent)
        images.write(target, enlarge(image))
      except ImageError as error:
        failed.append(error)
    print(f'wrote {len(paths) - len(failed)} of {len(paths)} images to {self.output}')
    return report.failures(failed, 'failed')

  def _target(self, path: Path) -> Path:
    if self.input.is_dir():
      return self.output / images.written_as(path.relative_to(self.input))
    is_file = self.output.suffix.lower() in images.SUFFIXES and not self.output.is_dir()
    return self.output if is_file else self.output / images.written_as(Path(path.name))

  def _check_output(self) -> None:
    """Keep originals from being overwritten, and results from being taken for originals."""
    source, output = self.input.resolve(), self.output.resolve()
    inside = output.is_relative_to(source) or source.is_relative_to(output)
    overwrites = self.input.is_file() and self._target(self.input).resolve() == source
    if overwrites or (self.input.is_dir() and inside):
      raise UserError(f'--output {self.output}: could overwrite {self.input}; choose another place')
    suffix = self.output.suffix.lower()
    is_image = suffix in Image.registered_extensions()
    if self.input.is_file() and is_image and suffix not in images.SUFFIXES:
      raise UserError(f'--output {self.output}: write one of {", ".join(images.SUFFIXES)}')
