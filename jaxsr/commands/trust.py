"""The options `--trust` and `--lesions` of `jaxsr evaluate` and `jaxsr compare`."""

import functools

from jaxsr import report
from jaxsr.commands.options import Compare, Evaluate
from jaxsr.errors import UserError
from jaxsr.evaluation.page import Parts
from jaxsr.trust import parts as trust_parts


def parts(options: Evaluate | Compare) -> Parts | None:
  """Returns what computes the trust parts of the page; None if no option asks for it."""
  if not (options.trust or options.lesions):
    return None
  report.check()
  if options.protocol != 'xray':
    raise UserError(f'--trust and --lesions need the protocol xray, not {options.protocol}')
  if isinstance(options, Evaluate) and options.lr is not None:
    raise UserError('--trust and --lesions reduce the films themselves; leave --lr out')
  return functools.partial(
    trust_parts.measure,
    with_audit=options.trust,
    with_lesions=options.lesions,
    ensemble=options.ensemble,
  )
