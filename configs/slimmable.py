"""One network for several budgets: EDSR at widths of 1/4 to 1 and depths of 1/2 and 1.

python main.py --config=configs/slimmable.py --workdir=runs/slim \
    --config.data.train=DIR --config.data.val=DIR
jaxsr evaluate --checkpoint runs/slim --width 0.5 --depth 0.5 --data DIR --output DIR

It has not been trained on real films yet; how it works: docs/distill.md.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.loss.slimmable = 1.0
  config.steps = 15_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3
  config.eval = config.save = 1_500
  config.data.val_count = 10
  return finish(config, arg)
