"""`jaxsr phantom`: write artificial chest X-rays."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxsr.commands import report
from jaxsr.commands.options import Phantom
from jaxsr.data import image_files, sources
from jaxsr.errors import ImageError, UserError, count
from jaxsr.files import make_folder


def run(options: Phantom) -> int:
  """Draw and write the images; returns the exit code."""
  if options.count < 1:
    raise UserError(f'--count {options.count} is less than 1')
  source = sources.Phantoms(
    seed=options.seed,
    start=options.start,
    count=options.count,
    size=options.size,
    bits=options.bits,
  )
  make_folder(options.output)
  for i, name in enumerate(report.progress(source.names, len(source), 'phantom')):
    _write(options.output / name, source[i])
  print(
    f'wrote {count(len(source), "image")} of {options.size}x{options.size} pixels, '
    f'{options.bits} bit, to {options.output}'
  )
  return 0


def _write(target: Path, image: UInt[np.ndarray, 'h w c']) -> None:
  """Write an image unless it is there; raises UserError if another file is in its place."""
  if not os.path.lexists(target):
    image_files.write(target, image)
    return
  try:
    is_same = np.array_equal(image_files.read(target), image)
  except ImageError:
    is_same = False
  if not is_same:
    raise UserError(f'{target}: is another file and is not replaced; choose another --output')
