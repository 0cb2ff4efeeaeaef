"""What every experiment's config holds, how it is shrunk to a smoke test, and its rules.

A file in `configs/` starts from `base()`, sets what its experiment is about and ends with
`finish(config, arg)`.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl.flags import Error, FlagValues
from flax import linen as nn
from ml_collections import ConfigDict, config_flags

from jaxsr import models, step
from jaxsr.errors import UserError, flat
from jaxsr.losses import TERMS

Config = Any  # an ml_collections.ConfigDict, whose values have no static types


def base() -> Config:
  """Make the config that experiments start from."""
  config: Config = ConfigDict()
  config.seed = 0  # of the parameters, the order of the images and their crops
  config.scale = 4
  config.channels = 1  # 1 gray, 3 RGB
  config.precision = 'float32'  # or 'bfloat16': of the computation; parameters stay float32
  config.devices = 0  # how many share a batch; 0: all
  config.steps = 10_000
  config.batch_size = 16  # of all devices together
  config.log = 50  # steps from one row of TensorBoard scalars to the next
  config.eval = 1_000  # steps from one validation, row of metrics.csv and checkpoint to the next
  config.save = 1_000  # steps from one checkpoint to the next, beside those of validation
  config.max_skipped = 20  # steps in a row that may be not finite before the run stops
  config.ema = 0.999  # decay of the averaged parameters, which are what is evaluated
  config.model = ConfigDict()
  config.loss = {name: 0.0 for name in TERMS}
  config.optimizer = dict(
    learning_rate=1e-3,
    warmup=200,  # steps
    b1=0.9,
    b2=0.999,
    weight_decay=0.0,  # PSNR networks underfit
    clip_norm=1.0,  # of the gradient over all parameters; 0: none
  )
  config.data = dict(
    train='phantom',  # or a folder
    val='phantom',
    val_count=16,  # images of `val`, evenly spaced, that are evaluated on the way; 0: all
    patch=48,  # low-resolution pixels of a crop that the loss sees
    margin=8,  # low-resolution pixels around them that only the network sees
    by_error=0.5,  # share of the crops that are drawn by bicubic's squared error
    threads=2,  # that prepare batches ahead
    workers=0,  # processes that do; for folders larger than `cache_gib`
    cache_gib=4.0,  # decoded films that are kept in memory, in all processes of a host together
    phantom=dict(seed=0, size=1024, bits=8, count=32, val_count=8),
  )
  return config


def network(name: str, **options: Any) -> Config:
  """Write a network's section with all its options, so that each can be overridden."""
  return ConfigDict({'name': name, **models.defaults(name), **options})


def override(config: Config, flags: Sequence[str]) -> Config:
  """Set values of a config by flags `--config.KEY=VALUE`, as on the command line of `main.py`."""
  values, argv = FlagValues(), ['', *flags]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    values(argv)
  except (Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(flat(error)) from error
  return values['config'].value


def finish(config: Config, arg: str | None) -> Config:
  """Apply what stands after the colon of `--config=FILE:ARG`."""
  if arg in (None, ''):
    return config
  if arg != 'smoke':
    raise UserError(f"config argument {arg!r} is unknown: there is only 'smoke'")
  return smoke(config)


def smoke(config: Config) -> Config:
  """Shrink an experiment until it runs in seconds on any machine, and still learns a little."""
  config.steps, config.log, config.eval, config.save = 40, 10, 20, 20
  config.batch_size = 4
  config.optimizer.update(warmup=20, learning_rate=1e-4)  # Adam's first steps are mostly noise
  config.data.update(val_count=2, patch=16, margin=4, by_error=0.0, threads=1)
  config.data.phantom.update(size=256, count=4, val_count=2)
  for name, least in {'groups': 2, 'blocks': 2, 'depths': (2, 2)}.items():
    if name in config.model:
      config.model[name] = least
  return config


LEAST = {
  'steps batch_size log eval save max_skipped data.threads': 1,
  'data.phantom.count data.phantom.val_count': 1,
  'data.patch': 4,
  'seed devices data.margin data.workers data.val_count data.by_error data.cache_gib': 0,
  'data.phantom.seed optimizer.warmup optimizer.weight_decay optimizer.clip_norm': 0,
}


def check(config: Config) -> None:
  """Raise UserError for the first value that breaks a rule."""
  for names, least in LEAST.items():
    for name in names.split():
      value = _get(config, name)
      _rule(value >= least, name, value, f'is less than {least}')
  for name in ('ema', 'optimizer.b1', 'optimizer.b2'):
    value = _get(config, name)
    _rule(0 <= value < 1, name, value, 'is not in [0, 1)')
  for name, weight in config.loss.items():
    _rule(0 <= weight < float('inf'), f'loss.{name}', weight, 'is no weight')
  data, rate = config.data, config.optimizer.learning_rate
  _rule(0 < rate < float('inf'), 'optimizer.learning_rate', rate, 'is not positive')
  _rule(data.by_error <= 1, 'data.by_error', data.by_error, 'is more than 1')
  _rule(config.channels in (1, 3), 'channels', config.channels, 'is neither 1 nor 3')
  step.make_objective(dict(config.loss))
  build_network(config)


def _get(config: Config, name: str) -> Any:
  for part in name.split('.'):
    config = config[part]
  return config


def _rule(holds: bool, name: str, value: Any, what: str) -> None:
  if not holds:
    raise UserError(f'config.{name}={value} {what}')


def build_network(config: Config) -> nn.Module:
  """Build the network that a config describes."""
  options = dict(config['model'])
  name = options.pop('name', None)
  if name is None:
    raise UserError('config.model has no name: set it with jaxsr.config.network')
  return models.build(
    name,
    options,
    scale=config['scale'],
    channels=config['channels'],
    precision=config['precision'],
  )


def to_dict(config: Config) -> dict:
  """Turn a config into what JSON can hold, tuples as lists."""
  return json.loads(config.to_json_best_effort())


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
  *('data.val', 'data.val_count', 'data.threads', 'data.workers', 'data.cache_gib'),
)
CONSEQUENCES = {
  'steps': 'the learning rate follows a new cosine from here on',
  'data.val': 'figures from here on do not compare with those before',
  'data.val_count': 'figures from here on do not compare with those before',
}
# What decides the shapes of the state.
FIXED = ('model.', 'scale', 'channels')


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
