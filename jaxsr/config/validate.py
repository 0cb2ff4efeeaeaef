"""The rules that a config's values keep."""

from collections.abc import Iterable
from typing import Any

from jaxsr import perceptual
from jaxsr.config import Config, build_network, make_plan
from jaxsr.data.sources import of_records
from jaxsr.errors import UserError, nearest
from jaxsr.losses import adversarial, needing
from jaxsr.losses import perceptual as content
from jaxsr.losses.schedule import Plan
from jaxsr.metrics import WINDOW
from jaxsr.models import PRECISIONS
from jaxsr.models.discriminator import Discriminator

ALARM_ACTIONS = ('warn', 'lower', 'stop')  # of an adversary that has collapsed
OPTIMIZERS = ('adamw', 'muon')

CACHES = ('none', 'host', 'device')
_OPTIMIZERS = ('optimizer', 'discriminator.optimizer')
LEAST = {
  'steps batch_size log eval save max_skipped data.threads': 1,
  'data.phantom.count data.phantom.val_count': 1,
  'data.patch': 4,
  'seed devices data.margin data.workers data.val_count data.by_error data.cache_gib': 0,
  'data.edges': 0,
  'data.phantom.seed pretrain.steps adversarial.noise adversarial.noise_steps adversarial.r1': 0,
  'adversarial.generator_every adversarial.discriminator_every adversarial.alarm.evaluations': 1,
  'discriminator.features discriminator.hidden teacher.points': 1,
  ' '.join(f'{o}.{n}' for o in _OPTIMIZERS for n in ('warmup', 'weight_decay', 'clip_norm')): 0,
}


def check(config: Config) -> None:
  """Raise UserError for the first value that breaks a rule."""
  for names, least in LEAST.items():
    for name in names.split():
      value = get(config, name)
      _rule(value >= least, name, value, f'is less than {least}')
  for name in ('ema', *(f'{o}.{n}' for o in _OPTIMIZERS for n in ('b1', 'b2'))):
    value = get(config, name)
    _rule(0 <= value < 1, name, value, 'is not in [0, 1)')
  for section in ('loss', 'pretrain.loss', 'start', 'ramp'):
    for name, value in get(config, section).items():
      _rule(0 <= value < float('inf'), f'{section}.{name}', value, 'is less than 0 or infinite')
  for section in (*_OPTIMIZERS, 'pretrain'):
    rate = get(config, section).learning_rate
    _rule(0 < rate < float('inf'), f'{section}.learning_rate', rate, 'is not positive')
  for section in _OPTIMIZERS:
    _choice(OPTIMIZERS, f'{section}.name', get(config, section).name)
  data, steps = config.data, config.pretrain.steps
  for name in ('by_error', 'edges'):
    _rule(data[name] <= 1, f'data.{name}', data[name], 'is more than 1')
  _rule(config.channels in (1, 3), 'channels', config.channels, 'is neither 1 nor 3')
  _rule(steps < config.steps, 'pretrain.steps', steps, f'leaves none of {config.steps} to the rest')
  _check_data(config)
  _check_gan(config)
  _check_teacher(config, make_plan(config))
  build_network(config)


def _check_data(config: Config) -> None:
  data = config.data
  _choice(CACHES, 'data.cache', data.cache)
  drawn = data.edges and (data.cache == 'device' or config.teacher.cache)
  why = 'needs crops that the host cuts: no config.data.cache=device, no config.teacher.cache'
  _rule(not drawn, 'data.edges', data.edges, why)
  if data.edges:
    _rule(data.margin >= 2, 'data.margin', data.margin, 'is less than the 2 that edges need')
  for name in ('train', 'val'):
    if of_records(data[name]) and not data.records:
      raise UserError(
        f'config.data.{name}={data[name]} needs config.data.records, a folder that '
        'jaxsr data prepare made; a folder that is named so is ./nih'
      )


def _check_gan(config: Config) -> None:
  options, alarm = config.adversarial, config.adversarial.alarm
  _choice(adversarial.FORMS, 'adversarial.form', options.form)
  _choice(Discriminator.NORMS, 'discriminator.norm', config.discriminator.norm)
  _choice(ALARM_ACTIONS, 'adversarial.alarm.action', alarm.action)
  _rule(alarm.low < alarm.high, 'adversarial.alarm.low', alarm.low, f'is not below {alarm.high}')
  for name, options in config.content.items():
    _choice(content.DISTANCES, f'content.{name}.distance', options.distance)
    _choice(('auto', *perceptual.VARIANTS), f'content.{name}.variant', options.variant)
    perceptual.check(name, options.layer)
  if config.loss.ssim or config.pretrain.loss.ssim:
    side = config.data.patch * config.scale
    _rule(side >= WINDOW, 'data.patch', config.data.patch, f'is too small for SSIM: {side} pixels')


def _check_teacher(config: Config, plan: Plan) -> None:
  options, slim = config.teacher, config.slimmable
  _choice(('auto', *PRECISIONS), 'teacher.precision', options.precision)
  _choice(('hr', 'teacher'), 'adversarial.real', config.adversarial.real)
  wants = sorted(plan.terms & {*needing('teacher')})
  if plan.adversarial is not None and config.adversarial.real == 'teacher':
    wants.append('adversarial.real=teacher')
  if wants and not options.checkpoint:
    raise UserError(f'{wants[0]} needs a teacher: set config.teacher.checkpoint')
  if options.checkpoint and not wants:
    raise UserError(
      f'config.teacher.checkpoint={options.checkpoint} is asked by no term: weigh one of '
      f'{", ".join(needing("teacher"))}'
    )
  if 'smaller' in plan.needs:
    for name, values in slim.items():
      bad = next((v for v in values if not 0 < v <= 1), None)
      _rule(bad is None, f'slimmable.{name}', bad, 'is not in (0, 1]')
    _rule(len(slim.widths) * len(slim.depths) > 1, 'slimmable.widths', slim.widths, 'is one size')


def get(config: Config, name: str) -> Any:
  for part in name.split('.'):
    config = config[part]
  return config


def _rule(holds: bool, name: str, value: Any, what: str) -> None:
  if not holds:
    raise UserError(f'config.{name}={value} {what}')


def _choice(known: Iterable[str], name: str, value: Any) -> None:
  if value not in known:
    raise UserError(f'config.{name}={value!r} is unknown: {nearest(str(value), known)}')
