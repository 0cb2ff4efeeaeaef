"""Which values of a config may change when a run is resumed."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from jaxsr import models
from jaxsr.data.acquisition.crops import Mixture
from jaxsr.errors import UserError
from jaxsr.losses import CONTENT
from jaxsr.models.discriminator import Discriminator


def flatten(config: dict, prefix: str = '') -> dict[str, Any]:
  """Returns all values by their dotted paths."""
  flat = {}
  for key, value in config.items():
    name = f'{prefix}{key}'
    flat.update(flatten(value, f'{name}.') if isinstance(value, dict) else {name: value})
  return flat


# Values that may change when a run is resumed; the change is printed.
FREE = (
  *('steps', 'log', 'eval', 'save', 'max_skipped', 'on_spike', 'devices'),
  *('data.val', 'data.val_lr', 'data.val_count', 'data.records', 'data.timeout'),
  *('data.threads', 'data.workers', 'data.cache', 'data.cache_gib'),
  *(f'adversarial.alarm.{name}' for name in ('low', 'high', 'evaluations', 'action')),
  *(f'content.{name}.weights' for name in CONTENT),
  'teacher.cache',
)
CONSEQUENCES = {
  'steps': 'the learning rate follows a new cosine from here on',
  'data.val': 'metrics from here on cannot be compared with those before',
  'data.val_lr': 'metrics from here on cannot be compared with those before',
  'data.val_count': 'metrics from here on cannot be compared with those before',
} | {
  f'content.{name}.weights': 'features are computed with this file from here on' for name in CONTENT
}
# Values that the configs of older versions lack, as those versions behaved.
ADDED = {
  'on_spike': 'warn',
  'data.bits': 0,
  'data.timeout': 300.0,
  'data.train_lr': '',
  'data.val_lr': '',
  'data.degradation.kind': 'bicubic',
} | {
  f'data.degradation.{name}': json.loads(json.dumps(value))
  for name, value in dataclasses.asdict(Mixture()).items()
}
# Sections with a value per loss term. A version without a term behaves as if its values were 0.
PER_TERM = ('loss.', 'start.', 'ramp.', 'pretrain.loss.')
# Values that decide the shapes of the state.
FIXED = ('model.', 'scale', 'channels', *(f'discriminator.{n}' for n in Discriminator.OPTIONS))
# Values that decide which image a network gives.
_DECIDING = ('model.', 'scale', 'channels', 'precision', 'slimmable.', 'data.degradation.kind')


def describe_network(config: dict) -> dict[str, Any]:
  """Returns the values that decide which image a network gives, by name."""
  return {name: x for name, x in flatten(config).items() if name.startswith(_DECIDING)}


def compare_networks(trained: dict[str, Any], config: dict) -> tuple[list[str], list[str]]:
  """Compare a network with that of a checkpoint.

  Args:
    trained: `describe_network` of the config that the checkpoint was trained with.
    config: the config of the network. If one of both is empty, that is not known, and equal.

  Returns:
    Differences by which it is another network, and those that continuing a run may have made.
  """
  now, lines = describe_network(config), ([], [])
  if not (trained and now):
    return lines
  for name in sorted(trained.keys() | now.keys()):
    known = [(each, each[name]) for each in (trained, now) if name in each]
    if len(known) == 1 and _is_default(config, name, known[0][1]):
      continue  # one of the configs is older than the option
    was, found = (each.get(name, ADDED.get(name)) for each in (trained, now))
    if was != found:
      text = f'was trained with config.{name}={was}, but config.json has {found}'
      lines[not name.startswith(FIXED)].append(text)
  return lines


def differences(old: dict, new: dict) -> dict[str, tuple[Any, Any]]:
  """Returns the values that differ between two configs, old and new, by name.

  Loss terms that only one of the versions has do not count, unless they are used.
  """
  old, new = ADDED | flatten(old), ADDED | flatten(new)
  shared = _feature_networks(old) & _feature_networks(new)
  found = {}
  for name in sorted(old.keys() | new.keys()):
    absent = 0 if name.startswith(PER_TERM) else None
    was, now = old.get(name, absent), new.get(name, absent)
    if was != now and _feature_networks([name]) <= shared:
      found[name] = was, now
  return found


def _feature_networks(names: Iterable[str]) -> set[str]:
  """Returns the feature networks, which are loss terms, that the names of values belong to."""
  return {name.split('.')[1] for name in names if name.startswith('content.')}


def check_change(old: dict, new: dict, *, allowed: bool) -> list[str]:
  """Describe how the config of a run has changed; raises UserError if it may not change so."""
  lines, before = [], flatten(old)
  for name, (was, now) in differences(old, new).items():
    text = f'config.{name} was {was}, is now {now}'
    if name not in before and _is_default(new, name, now):
      continue  # the run is older than the option
    if name.startswith(FIXED):
      raise UserError(f'{text}: this is another network; choose another --workdir')
    if name not in FREE and not allowed:
      raise UserError(f'{text}: choose another --workdir, or pass --allow-config-change')
    lines.append(f'{text}: {CONSEQUENCES[name]}' if name in CONSEQUENCES else text)
  return lines


def _is_default(config: dict, name: str, value: Any) -> bool:
  """Whether a value is an option of the network with its default, which changes nothing."""
  section, _, option = name.partition('.')
  if section != 'model' or config['model']['name'] not in models.MODELS:
    return False
  defaults = models.defaults(config['model']['name'])
  as_list = lambda x: list(x) if isinstance(x, tuple) else x  # noqa: E731
  return option in defaults and as_list(defaults[option]) == as_list(value)
