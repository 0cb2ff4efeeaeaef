"""`jaxsr degrade`: simulate the low resolution of a detector, a low dose or an archive."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxsr.commands import report
from jaxsr.commands.options import Degrade
from jaxsr.data import acquisition, bit_depth, degradation, image_files, image_formats, sources
from jaxsr.data.acquisition.film import acquire
from jaxsr.errors import (
  ImageError,
  UserError,
  brief,
  concerns_one_file,
  count,
  is_disk_full,
  nearest,
  unwritten,
)
from jaxsr.files import make_folder


def run(options: Degrade) -> int:
  """Degrade and write the films; returns the exit code."""
  how = acquisition.CONDITIONS.get(options.condition)
  if how is None:
    known = nearest(options.condition, acquisition.CONDITIONS)
    raise UserError(f'--condition {options.condition} is unknown: {known}')
  if options.scale < 2:
    raise UserError(f'--scale {options.scale} must be at least 2')
  if options.dose is not None:
    if not (how.dose and options.dose > 0):
      needed = ', '.join(name for name, each in acquisition.CONDITIONS.items() if each.dose)
      raise UserError(
        f'--dose {options.dose}: give a positive dose, and --condition one of {needed}'
      )
    how = dataclasses.replace(how, dose=options.dose)
  bit_depth.check(options.bits, '--bits')
  if image_formats.is_raster_name(options.output) and not options.output.is_dir():
    raise UserError(f'--output {options.output}: is the name of an image; give a folder')
  source = sources.Folder(options.data, minimum=options.scale, stored_bits=options.bits)
  targets = [options.output / name for name in _results(source.names)]
  if taken := [str(target) for target in targets if os.path.lexists(target)]:
    raise UserError(f'{brief(taken)}: exists and is not replaced; choose another --output')
  make_folder(options.output)
  failed = [*source.rejected]
  for i, target in enumerate(report.progress(targets, len(source), 'degrade')):
    try:
      image, info = source.load(i)
      hr = degradation.cut(image, options.scale)
      rng = acquisition.generator(source.paths[i].name, options.condition)
      target.parent.mkdir(parents=True, exist_ok=True)
      lr = acquire(hr, how, rng, scale=options.scale)
      image_files.write(target, lr, info=info, scale=1 / options.scale)
    except ImageError as error:
      failed.append(error)
    except OSError as error:
      if is_disk_full(error) and not concerns_one_file(error):
        made, total = i + len(source.rejected) - len(failed), len(source)
        raise report.unfinished(error, made, total, 'choose another --output') from error
      if not concerns_one_file(error):
        raise
      failed.append(unwritten(source.paths[i], target, error))
  written = count(len(source) + len(source.rejected) - len(failed), 'image')
  print(f'wrote {written} in condition {options.condition} to {options.output}')
  if how.blur or how.kernel == 'detector':
    transfer = acquisition.nyquist_transfer(how, options.scale)
    print(f'  modulation transfer function at the Nyquist frequency: {transfer:.2f}')
  return report.failures(failed, 'left out')


def _results(names: Sequence[str]) -> list[Path]:
  """Returns the names of the results; film.bmp beside film.png becomes film.bmp.png."""
  found = [_result(Path(name)) for name in names]
  times = Counter(found)
  return [
    path if times[path] == 1 or Path(name) == path else Path(f'{name}.png')
    for name, path in zip(names, found, strict=True)
  ]


def _result(name: Path) -> Path:
  """Returns the name of a result, which is PNG; numbers at the end of a name are no suffix."""
  if image_formats.has_suffix(name):
    return name.with_suffix('.png')
  return name.with_name(f'{name.name}.png')
