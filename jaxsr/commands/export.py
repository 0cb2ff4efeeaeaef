"""`jaxsr export`: write a model as a file that other programs run."""

import os
import re
import sys
from pathlib import Path

from jaxsr import files
from jaxsr.commands.options import Export
from jaxsr.errors import FAILED, UserError
from jaxsr.export import exportable
from jaxsr.inference.model import load

_SIZE = re.compile(r'(\d+)x(\d+)', re.IGNORECASE)


def run(options: Export) -> int:
  """Export the model, compare the result with JAX and write it; returns the exit code."""
  taken = UserError(f'{options.output}: exists already; choose another name, or delete it')
  if os.path.lexists(options.output):
    raise taken
  model = load(options.checkpoint, step=options.step, width=options.width, depth=options.depth)
  size = None if options.size is None else _size(options.size)
  if options.agree and options.to == 'web':
    raise UserError('--agree is for onnx and stablehlo; the page shows the image of the network')
  prepared = exportable.prepare(model, precision=options.precision, size=size, agree=options.agree)
  try:
    content, difference = serialize(prepared, options.to, libraries=options.runtime)
  except exportable.MismatchError as error:
    print(f'error: {error}', file=sys.stderr)
    return FAILED
  files.make_folder(options.output.parent)
  try:
    with files.atomic(options.output, replace=False) as temporary:
      temporary.write_bytes(content)
  except FileExistsError:  # written by others in the meantime
    raise taken from None
  print(f'wrote {options.output}: {len(content):,} bytes, {options.to}, {options.precision}')
  for name, value in prepared.facts.items():
    print(f'  {name}: {value}')
  print(f'  differs from JAX by {difference:.0e} of the largest value')
  return 0


def serialize(
  prepared: exportable.Exportable, to: str, *, libraries: Path | None = None
) -> tuple[bytes, float]:
  """Export a prepared model.

  Args:
    prepared: The model.
    to: The kind of file: 'onnx', 'stablehlo' or 'web'.
    libraries: A folder with the libraries of the page; see `jaxsr.export.runtime`.

  Returns:
    The content of the file, and the largest relative difference from JAX.

  Raises:
    UserError: The extra `export` is not installed, or the model cannot be exported.
    MismatchError: The file differs from JAX.
  """
  try:
    if to == 'web':
      from jaxsr.export import page

      return page.serialize(prepared, libraries=libraries)
    if to == 'onnx':
      from jaxsr.export import onnx_file

      return onnx_file.serialize(prepared)
    from jaxsr.export import stablehlo

    return stablehlo.serialize(prepared)
  except ImportError as error:
    name = error.name or 'flatbuffers'  # JAX raises an error without a name for this one
    missing = f"--to {to} needs {name}: pip install 'jaxsr-xray[export]'"
    raise UserError(missing) from error


def _size(text: str) -> tuple[int, int]:
  """Parse HxW."""
  found = _SIZE.fullmatch(text)
  if found is None:
    raise UserError(f'--size {text}: give height and width of the image, such as 256x256')
  return int(found[1]), int(found[2])
