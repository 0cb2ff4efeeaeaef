"""Checks of the values of a config before a run starts."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from jaxsr import perceptual
from jaxsr.config import Config, build_network, make_plan
from jaxsr.data import bit_depth
from jaxsr.data.acquisition.crops import Mixture
from jaxsr.data.sources import of_records
from jaxsr.errors import UserError, nearest
from jaxsr.losses import adversarial, needing
from jaxsr.losses import perceptual as content
from jaxsr.losses.schedule import Plan
from jaxsr.metrics import WINDOW
from jaxsr.models import PRECISIONS
from jaxsr.models.discriminator import Discriminator

SPIKE_ACTIONS = ('warn', 'rollback', 'stop')
COLLAPSE_ACTIONS = ('warn', 'lower', 'stop')
OPTIMIZERS = ('adamw', 'muon')

CACHES = ('none', 'host', 'device')
_OPTIMIZERS = ('optimizer', 'discriminator.optimizer')
MINIMA = {
  'steps batch_size log eval save max_skipped data.threads': 1,
  'data.phantom.count data.phantom.val_count': 1,
  'data.patch': 4,
  'seed devices data.margin data.workers data.val_count data.by_error data.cache_gib': 0,
  'data.edges data.timeout': 0,
  'data.phantom.seed pretrain.steps adversarial.noise adversarial.noise_steps adversarial.r1': 0,
  'adversarial.generator_every adversarial.discriminator_every adversarial.alarm.evaluations': 1,
  'discriminator.features discriminator.hidden teacher.points': 1,
  ' '.join(f'{o}.{n}' for o in _OPTIMIZERS for n in ('warmup', 'weight_decay', 'clip_norm')): 0,
}


DEGRADATIONS = ('bicubic', 'acquisition')
_SHARES = [field.name for field in dataclasses.fields(Mixture) if isinstance(field.default, float)]
DEGRADATION_LIMITS = {
  **dict.fromkeys(_SHARES, (0, 1)),
  'blur': (0, 4),
  'tail': (0, 0.5),
  'dose': (1e-4, 100),
  'electronic': (0, 1000),
  'correlation': (0, 1),
  'noise': (0.01, 64),
  'sharpen': (0, 1),
  'jpeg': (1, 100),
}


def check(config: Config) -> None:
  """Raise UserError for the first value that is not valid."""
  for names, minimum in MINIMA.items():
    for name in names.split():
      value = get(config, name)
      _rule(value >= minimum, name, value, f'must be at least {minimum}')
  for name in ('ema', *(f'{o}.{n}' for o in _OPTIMIZERS for n in ('b1', 'b2'))):
    value = get(config, name)
    _rule(0 <= value < 1, name, value, 'must be at least 0 and less than 1')
  for section in ('loss', 'pretrain.loss', 'start', 'ramp'):
    for name, value in get(config, section).items():
      _rule(0 <= value < float('inf'), f'{section}.{name}', value, 'must be finite and at least 0')
  for section in (*_OPTIMIZERS, 'pretrain'):
    rate = get(config, section).learning_rate
    _rule(0 < rate < float('inf'), f'{section}.learning_rate', rate, 'must be finite and positive')
  for section in _OPTIMIZERS:
    _choice(OPTIMIZERS, f'{section}.name', get(config, section).name)
  data, steps = config.data, config.pretrain.steps
  for name in ('by_error', 'edges'):
    _rule(data[name] <= 1, f'data.{name}', data[name], 'must be at most 1')
  _rule(config.channels in (1, 3), 'channels', config.channels, 'must be 1 (gray) or 3 (RGB)')
  _rule(
    steps < config.steps,
    'pretrain.steps',
    steps,
    f'must be less than config.steps={config.steps}, so that the main stage has steps left; raise '
    'config.steps or lower config.pretrain.steps',
  )
  _choice(SPIKE_ACTIONS, 'on_spike', config.on_spike)
  _check_data(config)
  _check_gan(config)
  _check_teacher(config, make_plan(config))
  build_network(config)


def _check_data(config: Config) -> None:
  data = config.data
  _choice(CACHES, 'data.cache', data.cache)
  bit_depth.check(data.bits, 'config.data.bits')
  drawn = data.edges and (data.cache == 'device' or config.teacher.cache)
  why = 'cannot be combined with config.data.cache=device or config.teacher.cache'
  _rule(not drawn, 'data.edges', data.edges, why)
  if data.edges:
    _rule(data.margin >= 2, 'data.margin', data.margin, 'must be at least 2 for config.data.edges')
  _check_degradation(config)
  _check_pairs(data)
  for name in ('train', 'val'):
    if of_records(data[name]) and not data.records:
      raise UserError(
        f'config.data.{name}={data[name]} needs config.data.records, the folder that jaxsr data '
        'prepare wrote; for a folder of images called nih write ./nih'
      )


def _check_pairs(data: Config) -> None:
  for name in ('train', 'val'):
    key, value = f'data.{name}_lr', data[f'{name}_lr']
    files = data[name] != 'phantom'
    _rule(files or not value, key, value, f'needs images or records as config.data.{name}')
  key, value = 'data.train_lr', data.train_lr
  computed = data.edges or data.degradation.kind != 'bicubic'
  why = 'cannot be combined with config.data.edges or config.data.degradation.kind=acquisition'
  _rule(not (value and computed), key, value, why)


def _check_degradation(config: Config) -> None:
  options, margin = config.data.degradation, config.data.margin
  _choice(DEGRADATIONS, 'data.degradation.kind', options.kind)
  for name, limits in DEGRADATION_LIMITS.items():
    key, value = f'data.degradation.{name}', options[name]
    if isinstance(value, (int, float)):
      _rule(0 <= value <= 1, key, value, 'must be a share from 0 to 1')
      continue
    lowest, highest = limits
    valid = len(value) == 2 and lowest <= value[0] <= value[1] <= highest
    _rule(valid, key, value, f'must be (low, high) between {lowest} and {highest}')
  if options.kind == 'acquisition':
    why = 'must be at least 4 for config.data.degradation.kind=acquisition'
    _rule(margin >= 4, 'data.margin', margin, why)


def _check_gan(config: Config) -> None:
  options, alarm = config.adversarial, config.adversarial.alarm
  _choice(adversarial.FORMS, 'adversarial.form', options.form)
  _choice(Discriminator.NORMS, 'discriminator.norm', config.discriminator.norm)
  _choice(COLLAPSE_ACTIONS, 'adversarial.alarm.action', alarm.action)
  low, high = alarm.low, alarm.high
  _rule(low < high, 'adversarial.alarm.low', low, f'must be less than alarm.high={high}')
  for name, options in config.content.items():
    _choice(content.DISTANCES, f'content.{name}.distance', options.distance)
    _choice(('auto', *perceptual.VARIANTS), f'content.{name}.variant', options.variant)
    perceptual.check(name, options.layer)
  if config.loss.ssim or config.pretrain.loss.ssim:
    side = config.data.patch * config.scale
    why = f'is too small for config.loss.ssim: {side} pixels, SSIM needs {WINDOW}'
    _rule(side >= WINDOW, 'data.patch', config.data.patch, why)


def _check_teacher(config: Config, plan: Plan) -> None:
  options, slim = config.teacher, config.slimmable
  _choice(('auto', *PRECISIONS), 'teacher.precision', options.precision)
  _choice(('hr', 'teacher'), 'adversarial.real', config.adversarial.real)
  wants = sorted(plan.terms & {*needing('teacher')})
  if plan.adversarial is not None and config.adversarial.real == 'teacher':
    wants.append('adversarial.real=teacher')
  if wants and not options.checkpoint:
    raise UserError(
      f'{wants[0]} needs a teacher: set config.teacher.checkpoint to a run or a package'
    )
  if options.checkpoint and not wants:
    raise UserError(
      f'config.teacher.checkpoint={options.checkpoint} is not used by any term; weight one of '
      f'{", ".join(needing("teacher"))}'
    )
  if 'smaller' in plan.needs:
    for name, values in slim.items():
      bad = next((v for v in values if not 0 < v <= 1), None)
      _rule(bad is None, f'slimmable.{name}', bad, 'must be greater than 0 and at most 1')
    one = len(slim.widths) * len(slim.depths) == 1
    _rule(not one, 'slimmable.widths', slim.widths, 'must hold several sizes')


def get(config: Config, name: str) -> Any:
  """Returns a value by its dotted path."""
  for part in name.split('.'):
    config = config[part]
  return config


def _rule(holds: bool, name: str, value: Any, what: str) -> None:
  if not holds:
    raise UserError(f'config.{name}={value} {what}')


def _choice(known: Iterable[str], name: str, value: Any) -> None:
  if value not in known:
    raise UserError(f'config.{name}={value!r} is unknown: {nearest(str(value), known)}')
