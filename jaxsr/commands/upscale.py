"""`jaxsr upscale`."""

import glob
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from jaxsr import runtime
from jaxsr.commands import report
from jaxsr.data import image_files
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import make_folder
from jaxsr.inference import provenance, tiling
from jaxsr.inference.model import load

_MOST_THREADS = 16


@dataclass(frozen=True)
class Upscale:
  """Enlarge images; names, folders, bit depth and value range stay. DICOM becomes PNG.

  What is there already from the same file by the same network is not made again.
  """

  inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
  """Images, folders that are read recursively, or patterns as 'films/*.png'."""
  checkpoint: str | None = None
  """A run's or package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection'; by
  default the package that comes along for the scale."""
  output: Path | None = None
  """The file to write for one image (or a folder), else a folder; without, NAME_x4 beside each."""
  scale: int | None = None
  """2, 3, 4 or 8 (default 4); a run or package knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  width: float = 1.0
  """A width that a slimmable network was trained at."""
  depth: float = 1.0
  """A depth that a slimmable network was trained at."""
  ensemble: bool = False
  """Average over the eight flips and turns of each image: better, at eight times the cost."""
  tile: int = tiling.SIDE
  """Images with a longer side are enlarged in windows of about so many low-resolution pixels, with
  the same result but for rounding and in less memory, unless the network must see the whole."""
  overwrite: bool = False
  """Make again what is there already."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Enlarge and write; return the exit code."""
    if self.tile < 1:
      raise UserError(f'--tile {self.tile} is less than 1')
    model = load(
      self.checkpoint, scale=self.scale, step=self.step, width=self.width, depth=self.depth
    )
    pairs = self._pairs(model.scale)
    enlarge = partial(model.upscale, ensemble=self.ensemble, tile=self.tile)
    made_by = provenance.of(model, ensemble=self.ensemble)

    def make(pair: tuple[Path, Path]) -> bool | ImageError:
      """Enlarge an image that is not there yet; tell whether it was, or what is wrong with it."""
      path, target = pair
      try:
        note = made_by._replace(source=provenance.digest(path))
        if not self.overwrite and provenance.is_done(target, note):
          return True
        image = image_files.read(path, model.channels)
        image_files.check_target(target, image)
        make_folder(target.parent)
        image_files.write(target, enlarge(image), str(note))
      except ImageError as error:
        return error
      return False

    threads = min(max(2, runtime.cpu_count()), _MOST_THREADS)  # most of the time a film is packed
    results = list(
      report.progress(runtime.prefetch_map(make, pairs, threads), len(pairs), 'upscale')
    )
    failed = [result for result in results if isinstance(result, ImageError)]
    kept = results.count(True)
    there = f'; {kept} were there' if kept else ''
    written = len(pairs) - len(failed) - kept
    place = self.output or (pairs[0][1] if len(pairs) == 1 else f'NAME_x{model.scale}')
    print(f'wrote {written} of {len(pairs)} images to {place}{there}')
    return report.failures(failed, 'failed')

  def _pairs(self, scale: int) -> list[tuple[Path, Path]]:
    """List the images with the files that become of them."""
    inputs = [path for pattern in self.inputs for path in _expand(pattern)]
    if not inputs:
      raise UserError('no image is named: jaxsr upscale IN.png')
    pairs = []
    for given, place in self._places(inputs, scale):
      for path in image_files.find(given):
        below = image_files.written_as(path.relative_to(given)) if given.is_dir() else ''
        pairs.append((path, place / below))
    pairs = _without_results(pairs) if self.output is None else pairs
    if twice := [str(t) for t, count in Counter(t for _, t in pairs).items() if count > 1]:
      raise UserError(f'two images would be written to {brief(twice)}: rename one of each')
    return pairs

  def _places(self, inputs: list[Path], scale: int) -> list[tuple[Path, Path]]:
    """Say for each input which file or folder becomes of it."""
    if self.output is None:
      return [(given, _beside(given, scale)) for given in inputs]
    alone = len(inputs) == 1 and not inputs[0].is_dir()
    is_file = self.output.suffix.lower() in image_files.SUFFIXES and not self.output.is_dir()
    places = []
    for given in inputs:
      place = self.output
      if not given.is_dir() and not (alone and is_file):
        place = self.output / image_files.written_as(Path(given.name))
      _check_output(self.output, given, place, alone=alone)
      places.append((given, place))
    return places


def _beside(given: Path, scale: int) -> Path:
  """Name what becomes of an input where no output is named."""
  given = given.resolve() if given.name in ('', '..') else given
  if not given.name:
    raise UserError(f'{given}: has no place beside it; give --output')
  if given.is_dir():
    return given.with_name(f'{given.name}_x{scale}')
  written = image_files.written_as(given)
  return written.with_name(f'{written.stem}_x{scale}{written.suffix}')


def _without_results(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
  """Leave out images that others become: a pattern finds what was made before.

  Raises UserError where a file that was not made here would be replaced.
  """
  targets = {target.resolve() for _, target in pairs}
  pairs = [(path, target) for path, target in pairs if path.resolve() not in targets]
  theirs = [str(t) for _, t in pairs if t.is_file() and not provenance.is_ours(t)]
  if theirs:
    raise UserError(f'{brief(theirs)}: not made by jaxsr, and would be replaced; give --output')
  return pairs


def _check_output(output: Path, given: Path, place: Path, *, alone: bool) -> None:
  """Keep originals from being overwritten, and results from being taken for originals."""
  source = given.resolve()
  inside = output.resolve().is_relative_to(source) or source.is_relative_to(output.resolve())
  if inside if given.is_dir() else place.resolve() == source:
    raise UserError(f'--output {output}: could overwrite {given}; choose another place')
  suffix = output.suffix.lower()
  is_image = suffix in Image.registered_extensions()
  if alone and is_image and suffix not in image_files.SUFFIXES:
    raise UserError(f'--output {output}: write one of {", ".join(image_files.SUFFIXES)}')
  if not alone and is_image and not output.is_dir():
    raise UserError(f'--output {output}: is a file; give a folder for several images')


def _expand(pattern: Path) -> list[Path]:
  """Find what a pattern stands for, sorted; a name that is there stands for itself."""
  if pattern.exists() or not glob.has_magic(str(pattern)):
    return [pattern]
  if found := sorted(glob.glob(str(pattern), recursive=True)):
    return [Path(path) for path in found]
  raise UserError(f'{pattern}: matches no file')
