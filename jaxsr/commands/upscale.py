"""`jaxsr upscale`."""

import glob
from collections import Counter
from functools import partial
from pathlib import Path

from PIL import Image

from jaxsr import runtime
from jaxsr.commands import report
from jaxsr.commands.options import Upscale
from jaxsr.data import image_files
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import make_folder
from jaxsr.inference import provenance
from jaxsr.inference.model import load

_MOST_THREADS = 16


def run(options: Upscale) -> int:
  """Enlarge and write; return the exit code."""
  if options.tile < 1:
    raise UserError(f'--tile {options.tile} is less than 1')
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  pairs = _pairs(options, model.scale)
  enlarge = partial(model.upscale, ensemble=options.ensemble, tile=options.tile)
  made_by = provenance.of(model, ensemble=options.ensemble)

  def make(pair: tuple[Path, Path]) -> bool | ImageError:
    """Enlarge an image that is not there yet; tell whether it was, or what is wrong with it."""
    path, target = pair
    try:
      note = made_by._replace(source=provenance.digest(path))
      if not options.overwrite and provenance.is_done(target, note):
        return True
      image = image_files.read(path, model.channels)
      image_files.check_target(target, image)
      make_folder(target.parent)
      image_files.write(target, enlarge(image), str(note))
    except ImageError as error:
      return error
    return False

  threads = min(max(2, runtime.cpu_count()), _MOST_THREADS)  # most of the time a film is packed
  results = list(report.progress(runtime.prefetch_map(make, pairs, threads), len(pairs), 'upscale'))
  failed = [result for result in results if isinstance(result, ImageError)]
  kept = results.count(True)
  there = f'; {kept} were there' if kept else ''
  written = len(pairs) - len(failed) - kept
  place = options.output or (pairs[0][1] if len(pairs) == 1 else f'NAME_x{model.scale}')
  print(f'wrote {written} of {len(pairs)} images to {place}{there}')
  return report.failures(failed, 'failed')


def _pairs(options: Upscale, scale: int) -> list[tuple[Path, Path]]:
  """List the images with the files that become of them."""
  inputs = [path for pattern in options.inputs for path in _expand(pattern)]
  if not inputs:
    raise UserError('no image is named: jaxsr upscale IN.png')
  pairs = []
  for given, place in _places(options, inputs, scale):
    for path in image_files.find(given):
      below = image_files.written_as(path.relative_to(given)) if given.is_dir() else ''
      pairs.append((path, place / below))
  pairs = _without_results(pairs) if options.output is None else pairs
  if twice := [str(t) for t, count in Counter(t for _, t in pairs).items() if count > 1]:
    raise UserError(f'two images would be written to {brief(twice)}: rename one of each')
  return pairs


def _places(options: Upscale, inputs: list[Path], scale: int) -> list[tuple[Path, Path]]:
  """Say for each input which file or folder becomes of it."""
  if options.output is None:
    return [(given, _beside(given, scale)) for given in inputs]
  alone = len(inputs) == 1 and not inputs[0].is_dir()
  is_file = options.output.suffix.lower() in image_files.SUFFIXES and not options.output.is_dir()
  places = []
  for given in inputs:
    place = options.output
    if not given.is_dir() and not (alone and is_file):
      place = options.output / image_files.written_as(Path(given.name))
    _check_output(options.output, given, place, alone=alone)
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
