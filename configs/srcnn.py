"""SRCNN 9-5-5 (Dong et al., TPAMI 2016), 57,281 parameters.

  jaxsr train --config=srcnn --workdir=runs/srcnn \
      --config.data.train=DIR --config.data.val=DIR

Paper: mean squared error on patches of 33 pixels, SGD with learning rate 1e-4, and 1e-5 in the last
  layer.
Here: AdamW with warm-up and cosine decay on this project's crops. The network has no skip
  connection, so it starts far below bicubic and needs thousands of steps to pass it.
Hardware: one GPU (it computes at high resolution: 60 GMACs, 2.9 s per 1024x1024 image on two CPU
  cores).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.974 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('srcnn')
  config.loss.mse = 1.0
  config.steps = 100_000
  config.data.patch = 24
  config.data.margin = 3  # the receptive field reaches 8 high-resolution pixels to each side
  config.optimizer.learning_rate = 3e-4
  return finish(config, arg)
