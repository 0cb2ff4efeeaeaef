"""VDSR (Kim et al., CVPR 2016), 665,921 parameters.

  jaxsr train --config=vdsr --workdir=runs/vdsr \
      --config.data.train=DIR --config.data.val=DIR

Paper: summed squared error on patches of 41 pixels of the enlarged image, SGD with learning rate
  0.1, gradients clipped to the learning rate.
Here: mean squared error and AdamW with clipped gradients, warm-up and cosine decay.
Hardware: one GPU (it computes at high resolution: 697 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.731 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('vdsr')
  config.loss.mse = 1.0
  config.steps = 100_000
  config.data.patch = 24
  config.data.margin = 5  # the receptive field reaches 20 high-resolution pixels to each side
  config.optimizer.learning_rate = 5e-4
  return finish(config, arg)
