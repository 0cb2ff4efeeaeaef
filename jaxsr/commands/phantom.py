"""`jaxsr phantom`: write computer-drawn chest radiographs."""

from jaxsr.commands import report
from jaxsr.commands.options import Phantom
from jaxsr.data import image_files, sources
from jaxsr.errors import UserError, count
from jaxsr.files import make_folder


def run(options: Phantom) -> int:
  """Draw and write the images; return the exit code."""
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
    image_files.write(options.output / name, source[i])
  print(
    f'wrote {count(len(source), "image")} of {options.size}x{options.size} pixels, '
    f'{options.bits} bit, to {options.output}'
  )
  return 0
