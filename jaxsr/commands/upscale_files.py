"""The images that `jaxsr upscale` is given, and the files that their results are written to."""

import glob
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxsr.commands.options import Upscale
from jaxsr.data import dicom, image_files
from jaxsr.errors import UserError, brief
from jaxsr.inference import provenance

# Suffixes of images that Pillow does not know.
_OTHER_SUFFIXES = (*dicom.SUFFIXES, '.exr', '.mha', '.mhd', '.nii', '.npy', '.nrrd', '.raw')


class Job(NamedTuple):
  """An image, the file that its result is written to, and the output that this file belongs to."""

  source: Path
  target: Path
  place: Path


def jobs(options: Upscale, scale: int) -> list[Job]:
  """Returns the images to enlarge and where their results are written.

  Raises UserError if two images would become one file, or a file that jaxsr did not write would be
  replaced. Without --output, images that are results of others are left out: a pattern also matches
  the results of the last time.
  """
  found = []
  for given, place in _places(options, scale):
    for path in image_files.find(given):
      below = image_files.written_as(path.relative_to(given)) if given.is_dir() else ''
      found.append(Job(path, place / below, place))
  if options.output is None:
    results = {job.target.resolve() for job in found}
    found = [job for job in found if job.source.resolve() not in results]
  targets = Counter(job.target for job in found)
  if twice := [str(target) for target, times in targets.items() if times > 1]:
    raise UserError(f'two images would be written to {brief(twice)}: rename one of them')
  existing = [job.target for job in found if job.target.exists()]
  if foreign := [str(target) for target in existing if not provenance.is_from_jaxsr(target)]:
    raise UserError(
      f'{brief(foreign)}: not written by jaxsr, and would be replaced; choose another --output'
    )
  return found


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
