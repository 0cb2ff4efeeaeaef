"""FSRCNN(56, 12, 4) (Dong et al., ECCV 2016), 12,809 parameters.

  jaxsr train --config=fsrcnn --workdir=runs/fsrcnn \
      --config.data.train=DIR --config.data.val=DIR

Paper: mean squared error on small crops of gray images, SGD with momentum, learning rate 1e-3 for
  the convolutions and 1e-4 for the deconvolution.
Here: the same loss, AdamW with warm-up and cosine decay, crops of 48 pixels, and a bicubic skip
  connection.
Hardware: a CPU is enough (0.06 s per 1024x1024 image for the forward pass on two cores).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.504 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('fsrcnn', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 100_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 1e-3
  return finish(config, arg)
