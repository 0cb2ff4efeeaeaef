"""A first run on procedural radiographs: nothing to download.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('edsr', features=24, blocks=4, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.steps = 1200
  config.batch_size = 8
  config.eval = 300
  config.save = 300
  config.ema = 0.99
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup = 50
  config.data.patch = 32
  config.data.phantom.count = 24
  config.data.phantom.val_count = 6
  return finish(config, arg)
