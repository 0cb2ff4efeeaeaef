"""The images that `jaxsr upscale` is given, and the files that their results are written to."""

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxsr.commands.options import Upscale
from jaxsr.data import dicom, image_files, image_formats
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import real
from jaxsr.inference import provenance

# Suffixes of images that Pillow does not know.
_OTHER_SUFFIXES = (*dicom.SUFFIXES, '.exr', '.mha', '.mhd', '.nii', '.npy', '.nrrd', '.raw')
_ARCHIVES = ('.7z', '.bz2', '.gz', '.tar', '.xz', '.zip', '.zst')
_WRITTEN = (*image_formats.SUFFIXES, *dicom.SUFFIXES)


class Job(NamedTuple):
  """An image to enlarge.

  Attributes:
    source: the image.
    target: the file that its result is written to.
    place: the output that this file belongs to, for the user to read.
    as_dicom: whether the result is a DICOM file.
    problem: why it cannot be made; '' if it can.
  """

  source: Path
  target: Path
  place: Path
  as_dicom: bool = False
  problem: str = ''


def jobs(options: Upscale, label: str) -> list[Job]:
  """Returns the images to enlarge and where their results are written.

  Without --output, images that are results of others are left out: a pattern also matches the
  results of the last time.

  Args:
    options: of the command.
    label: ends the names of results that lie beside their images: 'x4'.

  Raises:
    UserError: a file would be replaced that is no result of the same image, --output is of the
      wrong kind, or an image cannot be written in the chosen format.
  """
  given = [path for pattern in options.inputs for path in _expand(pattern)]
  inputs = list({_place(path): path for path in given}.values())
  if not inputs:
    raise UserError('no image given: jaxsr upscale IMAGE')
  if options.output is None:
    found = [job for given in inputs for job in _beside(given, label, options.format)]
    results = {real(path) for job in found for path in (job.target, *by_products(job))}
    found = [job for job in found if real(job.source) not in results]
  else:
    alone = len(inputs) == 1 and not inputs[0].is_dir()
    found = [
      job for given in inputs for job in _inside(given, options.output, options.format, alone=alone)
    ]
  found = list({(real(job.source), _place(job.target)): job for job in found}.values())
  found = _check_sources(found, options)
  found = _with_distinct_names(found, confidence=options.confidence)
  _check_existing(found, options)
  return found


def _check_existing(found: list[Job], options: Upscale) -> None:
  """Raise UserError if a file would be replaced that is no result of the same image.

  Results of other images are replaced with --overwrite, and files of others never.
  """
  foreign, of_others = [], []
  for job in found:
    files = () if job.problem else _files(job, options.confidence)
    existing = {path: provenance.source_of(path) for path in files if os.path.lexists(path)}
    foreign += [str(path) for path, source in existing.items() if not source]
    if existing and not options.overwrite:
      with contextlib.suppress(ImageError):  # an image that cannot be read replaces nothing
        digest = provenance.digest_image(job.source)
        of_others += [str(path) for path, source in existing.items() if source not in ('', digest)]
  if foreign:
    raise UserError(
      f'{brief(foreign)}: not written by jaxsr upscale, and would be replaced; choose another '
      '--output'
    )
  if of_others:
    raise UserError(
      f'{brief(of_others)}: made from another image, or before it was changed; give --overwrite to '
      'replace it, or choose another --output'
    )


def _place(path: Path) -> Path:
  """Returns a name in its folder without links, the same for each spelling of a path."""
  return real(path.parent) / path.name


def by_products(job: Job) -> tuple[Path, Path]:
  """Returns the files of the intervals and of the doubt, beside that of the upscaled image."""
  target = job.target
  name = target.stem if image_formats.has_suffix(target) else target.name
  suffix = target.name.removeprefix(name) if job.as_dicom else '.png'
  interval, doubt = (target.with_name(f'{name}_{x}{suffix}') for x in ('interval', 'doubt'))
  return interval, doubt


def _files(job: Job, confidence: bool) -> tuple[Path, ...]:
  """Returns the files that an image becomes."""
  return (job.target, *(by_products(job) if confidence else ()))


def _beside(given: Path, label: str, form: str) -> Iterator[Job]:
  """Yield the images of an input whose results lie in the same folder, or a folder beside it."""
  given = real(given) if given.name in ('', '..') else given
  if not given.name:
    raise UserError(f'{given}: has no folder beside it; give --output')
  if given.is_dir():
    yield from _below(given, given.with_name(f'{given.name}_{label}'), form)
    return
  for path in image_files.find(given):
    name, as_dicom = _written_as(path, path, form)
    stem, suffix = (
      (name.stem, name.suffix) if image_formats.has_suffix(name) else (name.name, '.dcm')
    )
    target = name.with_name(f'{stem}_{label}{suffix}')
    yield Job(path, target, target, as_dicom)


def _inside(given: Path, output: Path, form: str, *, alone: bool) -> Iterator[Job]:
  """Yield the images of an input whose results lie in the output, or are that file."""
  suffix = output.suffix.lower()
  is_file = suffix in _WRITTEN and not output.is_dir()
  if given.is_dir():
    _check_output(output, given, output, alone=alone)
    yield from _below(given, output, form)
    return
  if alone and is_file:
    as_dicom = suffix in dicom.SUFFIXES
    if form != 'same' and as_dicom != (form == 'dicom'):
      raise UserError(f'--output {output}: is not {form.upper()}, which --format asks for')
    target = output
  else:
    name, as_dicom = _written_as(given, Path(given.name), form)
    target = output / name
  _check_output(output, given, target, alone=alone)
  for path in image_files.find(given):
    yield Job(path, target, output, as_dicom)


def _below(folder: Path, root: Path, form: str) -> Iterator[Job]:
  """Yield the images below a folder, whose tree is kept."""
  for path in image_files.find(folder):
    name, as_dicom = _written_as(path, path.relative_to(folder), form)
    yield Job(path, root / name, root, as_dicom)


def _written_as(path: Path, name: Path, form: str) -> tuple[Path, bool]:
  """Returns the name of an image's result, and whether that is DICOM; the content decides."""
  kind = image_formats.kind(path)
  if form == 'dicom' or (form == 'same' and kind == 'DICOM'):
    return (name.with_suffix('.dcm') if image_formats.is_raster_name(name) else name), True
  return image_formats.written_as(name, 'PNG' if form == 'png' else kind), False


def _check_sources(found: list[Job], options: Upscale) -> list[Job]:
  """Returns the images, with the problem that they cannot become DICOM if an option asks for it.

  Raises UserError if none can.
  """
  by_name = options.output is not None and options.output.suffix.lower() in dicom.SUFFIXES
  if options.format != 'dicom' and not by_name:
    return found
  text = 'has no patient or study, which DICOM needs; give DICOM, or write PNG'
  others = {job.source for job in found if job.as_dicom and not dicom.is_dicom(job.source)}
  if others and len(others) == len({job.source for job in found}):
    raise UserError(f'{brief([str(path) for path in sorted(others)])}: {text}')
  return [job._replace(problem=text) if job.source in others else job for job in found]


def _with_distinct_names(found: list[Job], *, confidence: bool) -> list[Job]:
  """Returns the images with results of different names, or with the problem that they have none.

  If film.bmp and film.png would both become film.png, the first becomes film.bmp.png.
  """
  targets = Counter(job.target for job in found)
  found = [
    job._replace(target=_full_name(job)) if targets[job.target] > 1 else job for job in found
  ]
  files = Counter(path for job in found for path in _files(job, confidence))
  shared = [next((p for p in _files(job, confidence) if files[p] > 1), None) for job in found]
  text = 'another image would be written to {} as well: rename one of them'
  return [
    job._replace(problem=job.problem or text.format(path)) if path else job
    for job, path in zip(found, shared, strict=True)
  ]


def _full_name(job: Job) -> Path:
  """Returns the name of a result with the suffix of its image, unless it has the same one."""
  source, target = job.source, job.target
  if source.suffix == target.suffix or not target.name.startswith(source.stem):
    return target
  return target.with_name(source.name + target.name.removeprefix(source.stem))


def _check_output(output: Path, given: Path, target: Path, *, alone: bool) -> None:
  """Raise UserError if an input would be overwritten, or if the output is of the wrong kind."""
  source, place = real(given), real(output)
  inside = place.is_relative_to(source) or source.is_relative_to(place)
  if inside if given.is_dir() else real(target) == source:
    raise UserError(f'--output {output}: could overwrite {given}; choose another place')
  if output.is_dir():
    return
  suffixes = {*_OTHER_SUFFIXES, *_ARCHIVES, *Image.registered_extensions()}
  if output.name.lower() in suffixes:
    text = f'is a suffix without a name; give one, as in sr{output.name}'
    raise UserError(f'--output {output}: {text}')
  suffix = output.suffix.lower()
  if suffix not in suffixes:
    return
  if not alone:
    raise UserError(f'--output {output}: is a file; give a folder for several images')
  if suffix not in _WRITTEN:
    known = ', '.join(_WRITTEN)
    raise UserError(f'--output {output}: {suffix} cannot be written; choose one of {known}')


def _expand(pattern: Path) -> list[Path]:
  """Returns the sorted matches of a pattern; an existing name stands for itself."""
  if pattern.exists() or not glob.has_magic(str(pattern)):
    return [pattern]
  if found := sorted(glob.glob(str(pattern), recursive=True)):
    return [Path(path) for path in found]
  raise UserError(f'{pattern}: matches no file')
