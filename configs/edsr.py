"""EDSR baseline (Lim et al., CVPRW 2017), 1.5 million parameters.

  jaxsr train --config=edsr --workdir=runs/edsr \
      --config.data.train=DIR --config.data.val=DIR

Paper: L1 loss, patches of 48 pixels, batch size 16, Adam with learning rate 1e-4, 300,000 steps or
  more.
Here: mean squared error, which is what PSNR measures, a learning rate of 2e-4 with warm-up and
  cosine decay, and a bicubic skip connection.
For the full EDSR with 43 million parameters, add
  --config.model.features=256 --config.model.blocks=32 --config.model.residual_scaling=0.1
Hardware: one GPU (129 GMACs, 2.1 s per 1024x1024 image on two CPU cores).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.765 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('edsr', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 2e-4
  config.precision = 'float32'  # 'bfloat16' is faster on recent GPUs and TPUs
  return finish(config, arg)
