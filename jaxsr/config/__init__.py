"""The config of an experiment: its values, and how it is loaded and shortened.

A file in `configs/` starts from `base()`, sets the values of its experiment and ends with
`finish(config, arg)`. `overrides` sets values from the command line, `validate` checks a config,
`compatibility` compares it with that of a run.
"""

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsr import models, perceptual
from jaxsr.config.overrides import expand_paths
from jaxsr.data.acquisition.crops import Mixture
from jaxsr.errors import UserError, flat, nearest
from jaxsr.losses import CONTENT, TERMS, schedule
from jaxsr.losses.schedule import Plan
from jaxsr.models import Network
from jaxsr.perceptual import weights

Config = Any  # an ml_collections.ConfigDict, whose values have no static types


def base() -> Config:
  """Returns the config that every experiment starts from, with its default values."""
  config: Config = ConfigDict()
  config.seed = 0  # of the initial parameters, the order of the images, and the crops
  config.scale = 4  # upsampling factor
  config.channels = 1  # 1: gray, 3: RGB
  config.precision = 'float32'  # or 'bfloat16', of the computation; parameters stay float32
  config.devices = 0  # number of devices that a batch is split over; 0: all
  config.steps = 10_000  # length of the run
  config.batch_size = 16  # crops per step, on all devices together
  config.log = 50  # steps between rows of scalars in the progress output and TensorBoard
  config.eval = 1_000  # steps between validations; each writes metrics.csv and a checkpoint
  config.save = 1_000  # steps between further checkpoints
  config.max_skipped = 20  # steps in a row with NaN or infinity after which the run stops
  config.on_spike = 'warn'  # if PSNR falls by 6 dB or more at once; or 'rollback', 'stop'
  config.ema = 0.999  # decay of the averaged parameters, which are evaluated and shipped
  config.init_from = ''  # run, import or package to start from; a larger network is cut to size
  config.model = ConfigDict()  # the network; see `network`
  config.loss = {name: 0.0 for name in TERMS}  # weights of the loss terms; 0: not used
  config.start = {name: 0 for name in TERMS}  # step of the main stage at which a term starts
  config.ramp = {name: 0 for name in TERMS}  # steps over which it then grows to its weight
  config.pretrain = dict(  # a first stage with a loss and a learning rate schedule of its own
    steps=0,  # its length, part of config.steps; 0: no first stage
    learning_rate=1e-3,
    loss={name: 0.0 for name in TERMS},
  )
  config.optimizer = _optimizer(learning_rate=1e-3, warmup=200)
  config.content = {name: _content(name) for name in CONTENT}
  config.teacher = dict(  # for the terms distill_*
    checkpoint='',  # run, import or package; several, separated by commas, are averaged
    step='latest',  # or 'best', or a number
    precision='auto',  # 'auto': bfloat16 on accelerators, float32 on CPUs
    points=3,  # number of layers of the trunk at which features are compared
    cache='',  # folder for the teacher's full images; '': the teacher runs inside the step
  )
  config.slimmable = dict(  # sizes that the term `slimmable` trains together, as fractions
    widths=(0.25, 0.5, 0.75, 1.0),
    depths=(0.5, 1.0),
  )
  config.adversarial = dict(
    form='bce',  # or 'probability', 'least_squares', 'hinge', 'relativistic'
    real='hr',  # images that the discriminator takes for real; 'teacher': those of the teacher
    generator_every=1,  # steps between updates of the generator
    discriminator_every=1,  # steps between updates of the discriminator
    noise=0.0,  # standard deviation of the noise added to all images the discriminator sees
    noise_steps=10_000,  # steps over which the noise falls to zero
    r1=0.0,  # weight of the R1 gradient penalty on real images
    alarm=dict(  # detection of a collapsed discriminator
      low=0.52,  # accuracy at or below which the discriminator has failed
      high=0.98,  # accuracy at or above which it always wins
      evaluations=3,  # validations in a row outside of these bounds that count as a collapse
      action='warn',  # or 'lower' (halve the adversarial weight), or 'stop'
    ),
  )
  config.discriminator = dict(
    features=64,  # channels of the first convolution
    hidden=1024,  # units of the dense layer
    separable=False,  # True: depthwise separable convolutions, as in Swift-SRGAN
    norm='batch',  # or 'spectral', 'none'
    optimizer=_optimizer(learning_rate=1e-4, warmup=0),
  )
  config.data = dict(
    train='phantom',  # or a folder of images, or nih[/SPLIT[/LABEL]]: records of NIH ChestX-ray14
    val='phantom',  # the same for validation
    train_lr='',  # folder with the low resolution of each image, under equal names; '': computed
    val_lr='',  # the same for validation
    bits=0,  # bits of 16-bit files that do not say it, for example 12; 0: trust the files
    records='',  # folder that `jaxsr data prepare` wrote
    val_count=16,  # images per validation, evenly spaced; 0: all
    patch=48,  # side of a crop that the loss sees, in low-resolution pixels
    margin=8,  # low-resolution pixels around it that only the network sees
    by_error=0.5,  # share of the crops drawn with probability proportional to bicubic's error
    edges=0.0,  # share of the crops that synthetic edges or letters are drawn on
    threads=2,  # threads that prepare batches
    workers=0,  # processes that prepare batches, for folders larger than cache_gib
    cache='host',  # where images are kept: 'none', 'host' (up to cache_gib), or 'device'
    cache_gib=4.0,  # memory for images per host, all worker processes together
    timeout=300.0,  # seconds without a batch after which the run saves and ends; 0: never
    degradation=dict(  # how the low resolution of training crops is made
      kind='bicubic',  # Pillow's, as in validation; or 'acquisition': the mixture that follows
      **dataclasses.asdict(Mixture()),  # ranges and shares, see jaxsr/data/acquisition/crops.py
    ),
    phantom=dict(seed=0, size=1024, bits=8, count=32, val_count=8),  # see jaxsr/data/phantom
  )
  return config


def _optimizer(*, learning_rate: float, warmup: int) -> dict[str, Any]:
  return dict(
    name='adamw',  # or 'muon'
    learning_rate=learning_rate,  # its peak; it falls to zero by a cosine
    warmup=warmup,  # steps of linear warm-up
    b1=0.9,  # of AdamW; the momentum of Muon is 0.95
    b2=0.999,
    weight_decay=0.0,  # 0, since networks that are trained for PSNR underfit
    clip_norm=1.0,  # largest norm of the gradient; 0: no limit
  )


def _content(name: str) -> dict[str, Any]:
  return dict(
    weights='',  # safetensors or npz file; '': published weights; 'random': random weights
    variant='auto',  # preprocessing the weights expect: 'torchvision', 'caffe', 'tf_slim'
    layer='head' if name == 'mobilenet_v2' else perceptual.LAYERS[name][-1],
    activated=True,  # True: features after the activation function of the layer
    distance='mse',  # or 'euclidean', 'l1', 'relative'
    scale=1.0,  # factor that features are multiplied by
  )


def network(name: str, **options: Any) -> Config:
  """Returns the section of a network with all its options, so that each can be overridden."""
  return ConfigDict({'name': name, **models.defaults(name), **options})


def copy(config: Config) -> Config:
  """Returns a copy that can be changed."""
  return ConfigDict(config.to_dict())


def shipped() -> dict[str, Path]:
  """Returns the configs of the project, or of the installed package, by name."""
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


def finish(config: Config, arg: str | None) -> Config:
  """Apply the argument after the colon of `--config=FILE:ARG`."""
  if arg in (None, ''):
    return config
  if arg != 'smoke':
    raise UserError(f'config argument {arg!r} is unknown: choose one of: smoke')
  return smoke(config)


def smoke(config: Config) -> Config:
  """Shorten an experiment so that it runs in seconds on any machine and still learns a little."""
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
  """Build the phases of a run; raises UserError if its stages have no valid loss."""
  return schedule.make_plan(
    dict(config.loss),
    start=dict(config.start),
    ramp=dict(config.ramp),
    pretrain=config.pretrain.steps,
    pretrain_loss=dict(config.pretrain.loss),
    generator_every=config.adversarial.generator_every,
    discriminator_every=config.adversarial.discriminator_every,
  )


def build_network(config: Config) -> Network:
  """Build the network of a config."""
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
  """Returns a config as JSON types, tuples as lists."""
  return json.loads(config.to_json_best_effort())
