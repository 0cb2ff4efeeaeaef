"""Set values of a config by `--config.KEY=VALUE`, and expand its paths."""

import os
from collections.abc import Sequence
from typing import Any

from absl.flags import Error, FlagValues
from ml_collections import ConfigDict, config_flags

from jaxsr.errors import UserError, flat, nearest
from jaxsr.losses import CONTENT

PATHS = (
  'init_from',
  *('data.train', 'data.val', 'data.train_lr', 'data.val_lr', 'data.records'),
  *('teacher.checkpoint', 'teacher.cache'),
  *(f'content.{name}.weights' for name in CONTENT),
)


def override(config: Any, flags: Sequence[str]) -> Any:
  """Set values of a config by flags `--config.KEY=VALUE`, as on the command line."""
  values, argv = FlagValues(), ['', *(_parse(config, flag) for flag in expand(flags))]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    values(argv)
  except (Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(flat(error)) from error
  return expand_paths(values['config'].value)


def expand_paths(config: Any) -> Any:
  """Expand `~` in every path of a config, in place; returns the config."""
  for name in PATHS:
    section, _, key = name.rpartition('.')
    owner = config
    for part in section.split('.') if section else ():
      owner = owner.get(part, {})
    if owner.get(key):
      # Teachers are separated by commas.
      owner[key] = ','.join(os.path.expanduser(each.strip()) for each in owner[key].split(','))
  return config


def _parse(config: Any, flag: str) -> str:
  """Check the name of a flag, and write whole numbers such as 1e3 as ml_collections reads them."""
  name, equals, value = flag.removeprefix('--config.').partition('=')
  if not equals or '[' in name:
    return flag
  current: Any = config
  parts = name.split('.')
  for i, part in enumerate(parts):
    known = list(current) if isinstance(current, ConfigDict) else []
    if part not in known:
      section = '.'.join(['config', *parts[:i]])
      hint = nearest(part, known) if known else 'it is a value, not a section'
      raise UserError(f'{section} has no {part!r}: {hint}')
    current = current[part]
  if isinstance(current, (int, float)) and not isinstance(current, bool):
    value = _number(name, value, whole=isinstance(current, int))
  return f'--config.{name}={value}'


def _number(name: str, value: str, *, whole: bool) -> str:
  """Check a number, and write a whole one without a decimal point or an exponent."""
  try:
    number = float(value.replace('_', ''))
  except ValueError as error:
    raise UserError(f'config.{name}={value}: must be a number') from error
  if whole and not number.is_integer():
    raise UserError(f'config.{name}={value}: must be a whole number')
  return str(int(number)) if whole else value


def expand(flags: Sequence[str]) -> list[str]:
  """Expand `--config.data=NAME` to the training and the validation data."""
  short = '--config.data='
  pairs = [(f, f.removeprefix(short)) for f in flags]
  long = [
    [f] if f == name else [f'--config.data.{k}={name}' for k in ('train', 'val')]
    for f, name in pairs
  ]
  return [flag for each in long for flag in each]
