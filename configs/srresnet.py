"""SRResNet, the generator of SRGAN before its GAN stage (Ledig et al., CVPR 2017).

1.5 million parameters.

  jaxsr train --config=srresnet --workdir=runs/srresnet \
      --config.data.train=DIR --config.data.val=DIR

Paper: mean squared error on patches of 24 pixels, batch size 16, Adam with learning rate 1e-4 for
  one million steps; SRGAN starts from the result.
Here: the same with warm-up and cosine decay, 300,000 steps, and a bicubic skip connection. Its
  BatchNorm sees crops in training and full images afterward: check that validation follows
  training.
Hardware: one GPU (134 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 35.758 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('srresnet', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.data.patch = 24  # as in the paper
  config.optimizer.learning_rate = 1e-4
  return finish(config, arg)
