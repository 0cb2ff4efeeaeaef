"""Training runs on a GPU, in order: the settings of `main.py` and the share of the time."""

from typing import NamedTuple


class Recipe(NamedTuple):
  """A training run: its config and flags, the share of the minutes, and where it starts."""

  config: str
  flags: tuple[str, ...]
  share: float  # of the time that is left for training, relative to the other recipes of a session
  package: bool = False  # write a package of the result
  needs: tuple[str, ...] = ()  # files among the extras, such as weights of a feature network


_FAST = (  # shared by all: films on the device, prepared ahead by processes
  '--config.precision=bfloat16',
  '--config.data.cache=device',
  '--config.data.workers=6',
  '--config.data.threads=1',
  '--config.data.margin=4',
  '--config.log=200',
)
_CROPS = ('--config.batch_size=64', '--config.data.patch=32')
_L1 = ('--config.loss.mse=0.0', '--config.loss.l1=1.0', '--config.data.by_error=0.8')
_MUON = ('--config.optimizer.name=muon', '--config.optimizer.learning_rate=1e-3')
_PIXELS_ONLY = (  # of a config with an adversarial stage
  '--config.pretrain.steps=0',
  *(f'--config.loss.{name}=0.0' for name in ('mobilenet_v2', 'adversarial', 'tv_squared')),
)
_SKIP = ('--config.model.bicubic_skip=True',)

RECIPES = {
  'edsr_x4_large': Recipe(
    'configs/edsr_small.py',
    (*_FAST, *_CROPS, '--config.model.features=128', '--config.model.blocks=12'),
    share=0.7,
    package=True,
  ),
  'edsr_x4': Recipe(
    'configs/edsr_small.py',
    (*_FAST, *_CROPS, '--config.model.features=64', '--config.init_from=checkpoints/edsr_x4'),
    share=0.3,
    package=True,
  ),
  'edsr_x2': Recipe(
    'configs/edsr_small.py',
    (*_FAST, *_CROPS, '--config.scale=2', '--config.init_from=checkpoints/edsr_x2'),
    share=0.2,
    package=True,
  ),
  'srcnn': Recipe('configs/srcnn.py', (*_FAST, *_CROPS, *_L1), share=0.1),
  'vdsr': Recipe(
    'configs/vdsr.py', (*_FAST, *_CROPS, *_L1, *_MUON, '--config.data.margin=5'), share=0.2
  ),
  'srdensenet': Recipe('configs/srdensenet.py', (*_FAST, *_CROPS, *_L1, *_MUON), share=0.3),
  'srresnet': Recipe('configs/srresnet.py', (*_FAST, *_CROPS, *_L1, *_MUON, *_SKIP), share=0.2),
  'swift_srgan': Recipe(
    'configs/swift_srgan.py', (*_FAST, *_CROPS, *_L1, *_MUON, *_PIXELS_ONLY), share=0.2
  ),
  'rdn': Recipe('configs/rdn.py', (*_FAST, *_CROPS, *_L1, *_MUON, *_SKIP), share=0.5),
  'edsr_gan': Recipe(
    'configs/edsr_gan.py',
    (
      *(*_FAST, *_CROPS, '--config.model.features=64', '--config.init_from=checkpoints/edsr_x4'),
      '--config.content.vgg19.weights={extras}/vgg19_conv3_4.safetensors',
    ),
    share=0.3,
    needs=('vgg19_conv3_4.safetensors',),
  ),
}
DEFAULT = ('edsr_x4_large', 'edsr_x4')  # the recipes of a session of ten minutes

TOY = (  # over the flags of a recipe: the same run in seconds on a CPU
  '--config.precision=float32',
  '--config.data.workers=0',
  '--config.log=2',
  '--config.batch_size=2',
  '--config.data.patch=8',
  '--config.data.val_count=1',
  '--config.data.phantom.size=128',
)
_TOY_NETWORK = ('--config.model.features=8', '--config.model.blocks=1')
TOY_RECIPES = {
  'edsr_x4_large': Recipe(
    'configs/edsr_small.py', (*_FAST, *TOY, *_TOY_NETWORK), share=0.5, package=True
  ),
  'edsr_x4': Recipe(
    'configs/edsr_small.py',
    (*_FAST, *TOY, '--config.model.features=16', '--config.init_from=checkpoints/edsr_x4_tiny'),
    share=0.5,
    package=True,
  ),
}
