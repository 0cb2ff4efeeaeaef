"""`jaxsr compare`: measure several networks on the same images."""

import collections

from jaxsr import files
from jaxsr.commands import report as failed_images
from jaxsr.commands import trust
from jaxsr.commands.options import Compare
from jaxsr.data import bit_depth
from jaxsr.errors import UserError, count
from jaxsr.evaluation import comparison, figures, inputs, page
from jaxsr.evaluation import html as pages
from jaxsr.inference.model import Model, load


def run(options: Compare) -> int:
  """Measure, write and print the results; returns the exit code."""
  pages.check()
  bit_depth.check(options.bits, '--bits')
  models = _load(options)
  parts = trust.parts(options)
  inputs.check_output(options.data, options.output)
  with files.alone_in(options.output):
    results = comparison.compare(models, options, parts=parts)
  print(_table(results))
  trust.print_tables(options)
  failed = dict.fromkeys(error for result in results for error in result.summary['failed'])
  return failed_images.failures(list(failed), 'left out')


def _load(options: Compare) -> dict[str, Model]:
  """Load the models by their names, or by the arguments of those that share a name."""
  if repeated := [k for k, n in collections.Counter(options.checkpoints).items() if n > 1]:
    raise UserError(f'{repeated[0]} is given twice; name each model once')
  if not options.checkpoints:
    raise UserError('no model is named; see jaxsr compare --help')
  found = {typed: load(typed, scale=options.scale) for typed in options.checkpoints}
  names = collections.Counter(model.name for model in found.values())
  return {model.name if names[model.name] == 1 else typed: model for typed, model in found.items()}


def _table(results: list[page.Result]) -> str:
  """Lay out the means of all networks as text: a row per metric, a column per network."""
  first = results[0].summary
  columns = [r for r in results if r.name != page.BICUBIC]
  names = [page.BICUBIC, *(result.name for result in columns)]
  widths = [max(9, len(name)) for name in names]
  rows = [['', *names]]
  for figure in figures.compared(first):
    values = [first[f'bicubic_{figure.name}'], *(r.summary[figure.name] for r in columns)]
    rows.append([figure.title, *(format(value, figure.format) for value in values)])
  lines = [
    ' '.join([f'{row[0]:17s}', *(f'{x:>{w}s}' for x, w in zip(row[1:], widths, strict=True))])
    for row in rows
  ]
  head = f'x{first["scale"]}, protocol {first["protocol"]}, {count(first["n"], "image")}'
  return '\n'.join([head, *lines])
