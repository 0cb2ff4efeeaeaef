"""`jaxsr degrade`: simulate the low resolution of a detector, a low dose or an archive."""

import dataclasses
import os
from pathlib import Path

from jaxsr.commands import report
from jaxsr.commands.options import Degrade
from jaxsr.data import acquisition, degradation, image_files, sources
from jaxsr.data.acquisition.film import acquire
from jaxsr.errors import UserError, count, nearest
from jaxsr.files import make_folder


def run(options: Degrade) -> int:
  """Degrade and write the films; return the exit code."""
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
  source = sources.Folder(options.data, minimum=options.scale)
  make_folder(options.output)
  for i, name in enumerate(report.progress(source.names, len(source), 'degrade')):
    target = options.output / f'{name.rpartition(".")[0]}.png'
    if os.path.lexists(target):
      raise UserError(f'{target} exists and is not replaced; choose another --output')
    hr = degradation.cut(source[i], options.scale)
    rng = acquisition.generator(Path(name).name, options.condition)
    target.parent.mkdir(parents=True, exist_ok=True)
    image_files.write(target, acquire(hr, how, rng, scale=options.scale))
  print(f'wrote {count(len(source), "image")} in condition {options.condition} to {options.output}')
  if how.blur or how.kernel == 'detector':
    transfer = acquisition.nyquist_transfer(how, options.scale)
    print(f'  modulation transfer function at the Nyquist frequency: {transfer:.2f}')
  return report.failures(source.rejected, 'degraded')
