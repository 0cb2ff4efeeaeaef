"""`jaxsr upscale`."""

import glob
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from jaxsr import predictor, provenance
from jaxsr.commands import report
from jaxsr.data import images
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import make_folder


@dataclass(frozen=True)
class Upscale:
  """Enlarge images; names, folders, bit depth and value range stay. DICOM becomes PNG.

  What is there already from the same file by the same network is not made again.
  """

  inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
  """Images, folders that are read recursively, or patterns as 'films/*.png'."""
  checkpoint: str
  """A run's or package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection'."""
  output: Path
  """The file to write for one image (or a folder), else a folder."""
  scale: int | None = None
  """The scale of an interpolation (default 4); a run knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  width: float = 1.0
  """A width that a slimmable network was trained at."""
  depth: float = 1.0
  """A depth that a slimmable network was trained at."""
  ensemble: bool = False
  """Average over the eight flips and turns of each image: better, at eight times the cost."""
  overwrite: bool = False
  """Make again what is there already."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Enlarge and write; return the exit code."""
    pairs = list(self._pairs())
    if twice := [str(t) for t, count in Counter(t for _, t in pairs).items() if count > 1]:
      raise UserError(f'two images would be written to {brief(twice)}: rename one of each')
    model = predictor.load(
      self.checkpoint, scale=self.scale, step=self.step, width=self.width, depth=self.depth
    )
    enlarge = predictor.make_upscale(model, ensemble=self.ensemble)
    made_by = provenance.of(model, ensemble=self.ensemble)
    failed, kept = [], 0
    for path, target in report.progress(pairs, len(pairs), 'upscale'):
      try:
        note = made_by._replace(source=provenance.digest(path))
        if not self.overwrite and provenance.is_done(target, note):
          kept += 1
          continue
        image = images.read(path, model.channels)
        images.check_target(target, image)
        make_folder(target.parent)
        images.write(target, enlarge(image), str(note))
      except ImageError as error:
        failed.append(error)
    there = f'; {kept} were there' if kept else ''
    written = len(pairs) - len(failed) - kept
    print(f'wrote {written} of {len(pairs)} images to {self.output}{there}')
    return report.failures(failed, 'failed')

  def _pairs(self) -> Iterator[tuple[Path, Path]]:
    """List the images with the files that become of them."""
    inputs = [path for pattern in self.inputs for path in _expand(pattern)]
    if not inputs:
      raise UserError('no image is named: jaxsr upscale IN.png --checkpoint RUN --output OUT.png')
    alone = len(inputs) == 1 and not inputs[0].is_dir()
    for given in inputs:
      self._check_output(given, alone=alone)
      for path in images.find(given):
        name = path.relative_to(given) if given.is_dir() else Path(path.name)
        yield path, self._target(name, alone=alone)

  def _target(self, name: Path, *, alone: bool) -> Path:
    is_file = self.output.suffix.lower() in images.SUFFIXES and not self.output.is_dir()
    written = images.written_as(name)
    return self.output if alone and is_file else self.output / written

  def _check_output(self, given: Path, *, alone: bool) -> None:
    """Keep originals from being overwritten, and results from being taken for originals."""
    source, output = given.resolve(), self.output.resolve()
    inside = output.is_relative_to(source) or source.is_relative_to(output)
    overwrites = given.is_file() and self._target(Path(given.name), alone=alone).resolve() == source
    if overwrites or (given.is_dir() and inside):
      raise UserError(f'--output {self.output}: could overwrite {given}; choose another place')
    suffix = self.output.suffix.lower()
    is_image = suffix in Image.registered_extensions()
    if alone and is_image and suffix not in images.SUFFIXES:
      raise UserError(f'--output {self.output}: write one of {", ".join(images.SUFFIXES)}')
    if not alone and is_image and not self.output.is_dir():
      raise UserError(f'--output {self.output}: is a file; give a folder for several images')


def _expand(pattern: Path) -> list[Path]:
  """Find what a pattern stands for, sorted; a name that is there stands for itself."""
  if pattern.exists() or not glob.has_magic(str(pattern)):
    return [pattern]
  if found := sorted(glob.glob(str(pattern), recursive=True)):
    return [Path(path) for path in found]
  raise UserError(f'{pattern}: matches no file')
