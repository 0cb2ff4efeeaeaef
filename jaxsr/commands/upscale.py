"""`jaxsr upscale`: enlarge image files."""

import glob
from collections import Counter
from functools import partial
from pathlib import Path

from PIL import Image

from jaxsr import runtime
from jaxsr.commands import report
from jaxsr.commands.options import Upscale
from jaxsr.data import dicom, image_files
from jaxsr.errors import ImageError, UserError, brief, count
from jaxsr.files import make_folder
from jaxsr.inference import provenance
from jaxsr.inference.model import load

_MOST_THREADS = 16
# Suffixes of images that Pillow does not know.
_OTHER_SUFFIXES = (*dicom.SUFFIXES, '.exr', '.mha', '.mhd', '.nii', '.npy', '.nrrd', '.raw')


def run(options: Upscale) -> int:
  """Enlarge the images and write the results; return the exit code."""
  if options.tile < 1:
    raise UserError(f'--tile {options.tile} is less than 1')
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  places = _places(options, model.scale)
  pairs = _pairs(places, results_beside=options.output is None)
  enlarge = partial(model.upscale, ensemble=options.ensemble, tile=options.tile)
  made_by = provenance.of(model, ensemble=options.ensemble)
  if options.bits:  # results that were made with another number are made again
    made_by = made_by._replace(network=f'{made_by.network}, {options.bits} bits')

  def make(pair: tuple[Path, Path]) -> bool | ImageError:
    """Returns whether the result existed already, or the error of an image that failed."""
    path, target = pair
    try:
      note = made_by._replace(source=_digest(path))
      if not options.overwrite and provenance.is_done(target, note):
        return True
      image, info = image_files.load(path, model.channels, options.bits)
      image_files.check_target(target, image)
      make_folder(target.parent)
      sr = enlarge(image, bits=8 * image.itemsize)
      image_files.write(target, sr, str(note), info=info, scale=model.scale)
    except ImageError as error:
      return error
    return False

  threads = min(max(2, runtime.cpu_count()), _MOST_THREADS)  # most of the time a PNG is compressed
  results = list(report.progress(runtime.prefetch_map(make, pairs, threads), len(pairs), 'upscale'))
  failed = [result for result in results if isinstance(result, ImageError)]
  kept = results.count(True)
  existed = f'; {kept} existed already' if kept else ''
  written = len(pairs) - len(failed) - kept
  used = [place for _, place in places if any(t.is_relative_to(place) for _, t in pairs)]
  where = options.output or brief([str(place) for place in used], most=3)
  print(f'wrote {written} of {count(len(pairs), "image")} to {where}{existed}')
  return report.failures(failed, 'failed')


def _digest(path: Path) -> str:
  """Returns the hash of a file; raises ImageError for pipes, broken links and unreadable files."""
  if not path.is_file():
    kind = 'a link to a file that does not exist' if path.is_symlink() else 'not a regular file'
    raise ImageError(path, f'is {kind}')
  try:
    return provenance.digest(path)
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error


def _places(options: Upscale, scale: int) -> list[tuple[Path, Path]]:
  """Returns each input with the file or folder that its result is written to."""
  inputs = [path for pattern in options.inputs for path in _expand(pattern)]
  if not inputs:
    raise UserError('no image given: jaxsr upscale IMAGE')
  output = options.output
  if output is None:
    return [(given, _beside(given, scale)) for given in inputs]
  alone = len(inputs) == 1 and not inputs[0].is_dir()
  is_file = output.suffix.lower() in image_files.SUFFIXES and not output.is_dir()
  places = []
  for given in inputs:
    place = output
    if not given.is_dir() and not (alone and is_file):
      place = output / image_files.written_as(Path(given.name))
    _check_output(output, given, place, alone=alone)
    places.append((given, place))
  return places


def _pairs(places: list[tuple[Path, Path]], *, results_beside: bool) -> list[tuple[Path, Path]]:
  """Returns each image with the file that its result is written to.

  Raises UserError if two images would become one file, or a file that jaxsr did not write would be
  replaced. With `results_beside`, images that are results of others are left out: a pattern also
  matches the results of the last time.
  """
  pairs = []
  for given, place in places:
    for path in image_files.find(given):
      below = image_files.written_as(path.relative_to(given)) if given.is_dir() else ''
      pairs.append((path, place / below))
  if results_beside:
    results = {target.resolve() for _, target in pairs}
    pairs = [(path, target) for path, target in pairs if path.resolve() not in results]
  if twice := [str(t) for t, times in Counter(t for _, t in pairs).items() if times > 1]:
    raise UserError(f'two images would be written to {brief(twice)}: rename one of them')
  if foreign := [str(t) for _, t in pairs if t.exists() and not provenance.is_from_jaxsr(t)]:
    raise UserError(
      f'{brief(foreign)}: not written by jaxsr, and would be replaced; choose another --output'
    )
  return pairs


def _beside(given: Path, scale: int) -> Path:
  """Returns the name of an input's result in the same folder."""
  given = given.resolve() if given.name in ('', '..') else given
  if not given.name:
    raise UserError(f'{given}: has no folder beside it; give --output')
  if given.is_dir():
    return given.with_name(f'{given.name}_x{scale}')
  written = image_files.written_as(given)
  return written.with_name(f'{written.stem}_x{scale}{written.suffix}')


def _check_output(output: Path, given: Path, place: Path, *, alone: bool) -> None:
  """Raise UserError if an input would be overwritten, or if the output is of the wrong kind."""
  source = given.resolve()
  inside = output.resolve().is_relative_to(source) or source.is_relative_to(output.resolve())
  if inside if given.is_dir() else place.resolve() == source:
    raise UserError(f'--output {output}: could overwrite {given}; choose another place')
  suffix = output.suffix.lower()
  is_image = suffix in _OTHER_SUFFIXES or suffix in Image.registered_extensions()
  if output.is_dir() or not is_image:
    return
  if not alone:
    raise UserError(f'--output {output}: is a file; give a folder for several images')
  if suffix not in image_files.SUFFIXES:
    known = ', '.join(image_files.SUFFIXES)
    raise UserError(f'--output {output}: {suffix} cannot be written; choose one of {known}')


def _expand(pattern: Path) -> list[Path]:
  """Returns the sorted matches of a pattern; an existing name stands for itself."""
  if pattern.exists() or not glob.has_magic(str(pattern)):
    return [pattern]
  if found := sorted(glob.glob(str(pattern), recursive=True)):
    return [Path(path) for path in found]
  raise UserError(f'{pattern}: matches no file')
