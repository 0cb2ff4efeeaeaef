"""What every experiment's config holds, and how it is shrunk to a smoke test.

A file in `configs/` starts from `base()`, sets what its experiment is about and ends with
`finish(config, arg)`. `validate.py` checks a config, `compatibility.py` compares it with a run's.
"""

import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl.flags import Error, FlagValues
from flax import linen as nn
from ml_collections import ConfigDict, config_flags

from jaxsr import models, perceptual
from jaxsr.errors import UserError, flat, nearest
from jaxsr.losses import CONTENT, TERMS, schedule
from jaxsr.losses.schedule import Plan
from jaxsr.perceptual import weights

PATHS = (
  'init_from',
  *('data.train', 'data.val', 'data.records'),
  *('teacher.checkpoint', 'teacher.cache'),
  *(f'content.{name}.weights' for name in CONTENT),
)
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
  config.init_from = ''  # what is started from: a run, import or package; cut if it is larger
  config.model = ConfigDict()
  config.loss = {name: 0.0 for name in TERMS}  # weights
  config.start = {name: 0 for name in TERMS}  # steps of the main stage before a term sets in
  config.ramp = {name: 0 for name in TERMS}  # steps over which it then grows to its weight
  config.pretrain = dict(  # a stage before the main one, with a loss and a cosine of its own
    steps=0,  # of config.steps
    learning_rate=1e-3,
    loss={name: 0.0 for name in TERMS},
  )
  config.optimizer = _optimizer(learning_rate=1e-3, warmup=200)
  config.content = {name: _content(name) for name in CONTENT}
  config.teacher = dict(
    checkpoint='',  # a run, import or package that terms `distill_*` learn from; several by commas
    step='latest',
    precision='auto',  # bfloat16 where the device is made for it, else float32
    points=3,  # of the trunks, at which features are compared
    cache='',  # a folder where its images of whole films are kept; '': it runs inside the step
  )
  config.slimmable = dict(  # the sizes that the term `slimmable` trains together
    widths=(0.25, 0.5, 0.75, 1.0),
    depths=(0.5, 1.0),
  )
  config.adversarial = dict(
    form='bce',  # or probability, least_squares, hinge, relativistic
    real='hr',  # what the discriminator takes for real: true images, or those of the 'teacher'
    generator_every=1,  # steps from one update of the generator to the next
    discriminator_every=1,
    noise=0.0,  # standard deviation of what is added to all images that the discriminator sees
    noise_steps=10_000,  # over which it falls to zero
    r1=0.0,  # weight of the squared gradient at true images
    alarm=dict(
      low=0.52,  # the discriminator's accuracy, at or below which it is dead
      high=0.98,  # and at or above which it always wins
      evaluations=3,  # in a row
      action='warn',  # or 'lower': halve the adversarial weight, or 'stop'
    ),
  )
  config.discriminator = dict(
    features=64,
    hidden=1024,
    separable=False,  # Swift-SRGAN's
    norm='batch',  # or 'spectral', 'none'
    optimizer=_optimizer(learning_rate=1e-4, warmup=0),
  )
  config.data = dict(
    train='phantom',  # or a folder, or nih, nih/SPLIT, nih/SPLIT/LABEL: records of that
    val='phantom',
    records='',  # the folder of the records, as `jaxsr data prepare` made it
    val_count=16,  # images of `val`, evenly spaced, that are evaluated on the way; 0: all
    patch=48,  # low-resolution pixels of a crop that the loss sees
    margin=8,  # low-resolution pixels around them that only the network sees
    by_error=0.5,  # share of the crops that are drawn by bicubic's squared error
    edges=0.0,  # share of the crops that film edges or letters are drawn on, at sub-pixel places
    threads=2,  # that prepare batches ahead
    workers=0,  # processes that do; for folders larger than `cache_gib`, and for fast devices
    cache='host',  # where films are kept: 'none', 'host' up to `cache_gib`, or on the 'device'
    cache_gib=4.0,  # of films in memory, in all processes of a host together
    phantom=dict(seed=0, size=1024, bits=8, count=32, val_count=8),
  )
  return config


def _optimizer(*, learning_rate: float, warmup: int) -> dict[str, Any]:
  return dict(
    name='adamw',  # or muon
    learning_rate=learning_rate,
    warmup=warmup,  # steps
    b1=0.9,  # of AdamW; Muon's momentum is 0.95
    b2=0.999,
    weight_decay=0.0,  # PSNR networks underfit
    clip_norm=1.0,  # of the gradient over all parameters; 0: none
  )


def _content(name: str) -> dict[str, Any]:
  return dict(
    weights='',  # a safetensors or npz file; '': the published ones; 'random'
    variant='auto',  # how they want their images: torchvision, caffe, tf_slim
    layer='head' if name == 'mobilenet_v2' else perceptual.LAYERS[name][-1],
    activated=True,  # features behind the layer's ReLU
    distance='mse',  # or 'euclidean', 'l1', 'relative'
    scale=1.0,  # by which features are multiplied
  )


def network(name: str, **options: Any) -> Config:
  """Write a network's section with all its options, so that each can be overridden."""
  return ConfigDict({'name': name, **models.defaults(name), **options})


def copy(config: Config) -> Config:
  """Copy a config, so that the copy can be changed."""
  return ConfigDict(config.to_dict())


def shipped() -> dict[str, Path]:
  """Return the configs of the project, or of the installed package, by name."""
  inside = Path(__file__).resolve().parents[1]
  files = (path for folder in (inside.parent, inside) for path in folder.glob('configs/*.py'))
  return {path.stem: path for path in files}


def load(path: str) -> Config:
  """Load a config.

  Args:
    path: A file, or the name of a shipped config such as `rdn`; `:smoke` may follow. A file that
      does not exist in the current folder is looked for among the shipped ones, so that
      `configs/rdn.py` works from any folder.

  Returns:
    The config, with `~` expanded in paths.

  Raises:
    UserError: There is no such config, or it cannot be executed.
  """
  name, _, argument = path.partition(':')
  file = Path(name).expanduser()
  if not file.is_file():
    known = shipped()
    if str(file) not in (file.stem, str(Path('configs', f'{file.stem}.py'))) or (
      file.stem not in known
    ):
      raise UserError(f'--config={name}: no such file; {nearest(file.stem, known)}')
    file = known[file.stem]
  try:
    return expand_paths(runpy.run_path(str(file))['get_config'](argument or None))
  except (KeyError, SyntaxError, ImportError) as error:
    raise UserError(f'--config={name}: {flat(error)}') from error


def override(config: Config, flags: Sequence[str]) -> Config:
  """Set values of a config by flags `--config.KEY=VALUE`, as on the command line of `main.py`."""
  values, argv = FlagValues(), ['', *expand(flags)]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    values(argv)
  except (Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(flat(error)) from error
  return expand_paths(values['config'].value)


def expand_paths(config: Config) -> Config:
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


def expand(flags: Sequence[str]) -> list[str]:
  """Write `--config.data=NAME` out: train and validate on it."""
  short = '--config.data='
  pairs = [(f, f.removeprefix(short)) for f in flags]
  long = [
    [f] if f == name else [f'--config.data.{k}={name}' for k in ('train', 'val')]
    for f, name in pairs
  ]
  return [flag for each in long for flag in each]


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
  config.pretrain.steps = min(20, config.pretrain.steps)
  for name in TERMS:
    config.start[name], config.ramp[name] = min(5, config.start[name]), min(5, config.ramp[name])
  config.batch_size = 4
  config.optimizer.update(warmup=20, learning_rate=1e-4)  # Adam's first steps are mostly noise
  config.data.update(val_count=2, patch=16, margin=4, by_error=0.0, threads=1)
  config.data.phantom.update(size=256, count=4, val_count=2)
  config.pretrain.learning_rate = config.discriminator.optimizer.learning_rate = 1e-4
  config.discriminator.update(features=8, hidden=16)
  for name in CONTENT:
    config.content[name].weights = config.content[name].weights or weights.RANDOM
  for name, least in {'groups': 2, 'blocks': 2, 'depths': (2, 2)}.items():
    if name in config.model:
      config.model[name] = least
  return config


def make_plan(config: Config) -> Plan:
  """Lay out which terms count when; raises UserError where that is no plan."""
  return schedule.make_plan(
    dict(config.loss),
    start=dict(config.start),
    ramp=dict(config.ramp),
    pretrain=config.pretrain.steps,
    pretrain_loss=dict(config.pretrain.loss),
    generator_every=config.adversarial.generator_every,
    discriminator_every=config.adversarial.discriminator_every,
  )


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
