"""How a run's config may change from one start to the next."""

from typing import Any

from jaxsr.errors import UserError
from jaxsr.losses import CONTENT
from jaxsr.models.discriminator import Discriminator


def flatten(config: dict, prefix: str = '') -> dict[str, Any]:
  """Name every value by its dotted path."""
  flat = {}
  for key, value in config.items():
    name = f'{prefix}{key}'
    flat.update(flatten(value, f'{name}.') if isinstance(value, dict) else {name: value})
  return flat


# What may change from one start of a run to the next; that it did is said.
FREE = (
  *('steps', 'log', 'eval', 'save', 'max_skipped', 'devices'),
  *('data.val', 'data.val_count', 'data.threads', 'data.workers', 'data.cache', 'data.cache_gib'),
  'data.records',
  *(f'adversarial.alarm.{name}' for name in ('low', 'high', 'evaluations', 'action')),
  *(f'content.{name}.weights' for name in CONTENT),
  'teacher.cache',
)
CONSEQUENCES = {
  'steps': 'the learning rate follows a new cosine from here on',
  'data.val': 'figures from here on do not compare with those before',
  'data.val_count': 'figures from here on do not compare with those before',
} | {f'content.{name}.weights': 'the features are those of that file now' for name in CONTENT}
# What decides the shapes of the state.
FIXED = ('model.', 'scale', 'channels', *(f'discriminator.{n}' for n in Discriminator.OPTIONS))


def differences(old: dict, new: dict) -> dict[str, tuple[Any, Any]]:
  """List the values that differ between two configs: name, old, new."""
  old, new = flatten(old), flatten(new)
  names = sorted(old.keys() | new.keys())
  return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def check_change(old: dict, new: dict, *, allowed: bool) -> list[str]:
  """Describe how a run's config changed; raise UserError where that makes another run of it."""
  lines = []
  for name, (was, now) in differences(old, new).items():
    text = f'config.{name} was {was}, is now {now}'
    if name.startswith(FIXED):
      raise UserError(f'{text}: this is another network; choose another --workdir')
    if name not in FREE and not allowed:
      raise UserError(f'{text}: choose another --workdir, or pass --allow_config_change')
    lines.append(f'{text}: {CONSEQUENCES[name]}' if name in CONSEQUENCES else text)
  return lines
