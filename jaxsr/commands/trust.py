"""The options `--trust`, `--lesions` and `--reader` of `jaxsr evaluate` and `jaxsr compare`."""

import functools

from jaxsr import files
from jaxsr.commands.options import Compare, Evaluate
from jaxsr.data import records
from jaxsr.errors import UserError
from jaxsr.evaluation import html
from jaxsr.evaluation.page import TRUST_JSON, Parts
from jaxsr.trust import parts as trust_parts
from jaxsr.trust import readers, text


def print_tables(options: Evaluate | Compare) -> None:
  """Print the results of the trust parts, if an option asks for them."""
  if options.trust or options.lesions or options.reader:
    print('\n' + text.tables(files.read_json(options.output / TRUST_JSON)))


def parts(options: Evaluate | Compare) -> Parts | None:
  """Returns the function that computes the trust parts of the page, or None without an option."""
  if options.reader_config is not None and not options.reader:
    raise UserError(f'--reader-config {options.reader_config}: there is no --reader')
  if not (options.trust or options.lesions or options.reader):
    return None
  html.check()
  if options.protocol != 'xray':
    raise UserError(
      f'--trust, --lesions and --reader need the protocol xray, not {options.protocol}'
    )
  if isinstance(options, Evaluate) and options.lr is not None:
    raise UserError('--trust, --lesions and --reader reduce the images themselves; leave --lr out')
  if isinstance(options, Evaluate) and options.shard:
    raise UserError(
      '--trust, --lesions and --reader cannot be divided; give them to the last command, '
      'without --shard'
    )
  if options.reader and options.tables is None and not records.holds(options.data):
    raise UserError(
      f'--reader {options.reader}: the findings of {options.data} are not known; give --tables, a '
      'folder with the tables of NIH'
    )
  return functools.partial(
    trust_parts.measure,
    with_audit=options.trust,
    with_lesions=options.lesions,
    reader=readers.load(options.reader, options.reader_config) if options.reader else None,
    tables=options.tables,
    ensemble=options.ensemble,
  )
