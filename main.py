"""Train, resume and validate: python main.py --config=configs/quickstart.py --workdir=runs/a."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The experiment, a file of configs/.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run lives; the same one resumes it.')
_ALLOW = flags.DEFINE_bool('allow_config_change', False, 'Resume though the config has changed.')
_DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'Join other hosts (jax.distributed).')
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, where no scheduler tells.'
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many hosts, where no scheduler tells.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which host this is, where no scheduler tells.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error was raised.')


def main(argv: Sequence[str]) -> int:
  """Run the trainer; return its exit code."""
  try:
    _parse(argv)
    from jaxsr.training.train import train

    if _DISTRIBUTED.value:
      import jax

      jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    return train(_CONFIG.value, Path(str(_WORKDIR.value)), allow_config_change=_ALLOW.value)
  except (ValueError, OSError) as error:
    from jaxsr.errors import UserError

    if not isinstance(error, (UserError, OSError)) or _wants_trace(argv):
      raise
    print(f'error: {error}', file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def _wants_trace(argv: Sequence[str]) -> bool:
  return any(a in ('--debug', '--debug=true', '--debug=1') for a in argv)  # flags may not parse


def _parse(argv: Sequence[str]) -> None:
  """Parse the flags, and say in one line what is wrong with them."""
  from jaxsr.errors import UserError, flat, nearest

  for path in (a.removeprefix('--config=').split(':')[0] for a in argv if a[:9] == '--config='):
    if not Path(path).is_file():
      known = [str(p) for p in Path('configs').glob('*.py')]
      raise UserError(f'--config={path}: no such file; {nearest(path, known)}')
  try:
    rest = flags.FLAGS(list(argv))[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, OSError, SyntaxError) as error:
    raise UserError(flat(error)) from error
  if rest:
    raise UserError(f'argument {rest[0]!r} is not understood; flags look like --config=FILE')
  for name in ('config', 'workdir'):
    if flags.FLAGS[name].value is None:
      raise UserError(f'--{name} is missing: python main.py --config=FILE --workdir=DIR')


if __name__ == '__main__':
  from jaxsr import runtime

  runtime.keep_freed_memory()
  from jaxsr.config import expand

  sys.argv[:] = expand(sys.argv)  # where ml_collections looks for --config.KEY=VALUE
  sys.exit(main(sys.argv))
