"""FSRCNN(56, 12, 4) (Dong et al., ECCV 2016), 12,809 parameters.

python main.py --config=configs/fsrcnn.py --workdir=runs/fsrcnn \
    --config.data.train=DIR --config.data.val=DIR

The paper: mean squared error on small crops of gray images, stochastic gradient descent with
momentum, 10^-3 for the convolutions and 10^-4 for the deconvolution. Here the same loss, Adam, and
crops of 48 pixels; the result is added to a bicubic upsampling.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('fsrcnn', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 100_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 1e-3
  return finish(config, arg)
