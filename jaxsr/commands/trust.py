"""The options `--trust`, `--lesions` and `--reader` of `jaxsr evaluate` and `jaxsr compare`."""

import functools

from jaxsr.commands.options import Compare, Evaluate
from jaxsr.errors import UserError
from jaxsr.evaluation import html
from jaxsr.evaluation.page import Parts
from jaxsr.trust import parts as trust_parts
from jaxsr.trust import readers


def parts(options: Evaluate | Compare) -> Parts | None:
  """Returns what computes the trust parts of the page; None if no option asks for it."""
  if not (options.trust or options.lesions or options.reader):
    return None
  html.check()
  if options.protocol != 'xray':
    raise UserError(
      f'--trust, --lesions and --reader need the protocol xray, not {options.protocol}'
    )
  if isinstance(options, Evaluate) and options.lr is not None:
    raise UserError('--trust, --lesions and --reader reduce the images themselves; leave --lr out')
  return functools.partial(
    trust_parts.measure,
    with_audit=options.trust,
    with_lesions=options.lesions,
    reader=readers.load(options.reader, options.reader_config) if options.reader else None,
    tables=options.tables,
    ensemble=options.ensemble,
  )
