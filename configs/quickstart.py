"""A first run on procedural radiographs: nothing to download, minutes on two cores.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  # A third of edsr_small; see there for the reasons of its sizes.
  config.model = network('edsr', features=24, blocks=4, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.steps = 3_000
  config.batch_size = 8
  config.eval = config.save = 1_000
  config.ema = 0.995
  config.optimizer.warmup = 100
  config.data.patch = 24
  config.data.margin = 4
  config.data.phantom.count = 24
  config.data.phantom.val_count = 8
  return finish(config, arg)
