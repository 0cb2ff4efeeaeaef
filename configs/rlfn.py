"""RLFN (Kong et al., CVPRW 2022), 0.54 million parameters.

  jaxsr train --config=rlfn --workdir=runs/rlfn \
      --config.data.train=DIR --config.data.val=DIR

Paper: three stages of L1 loss, the last with a contrastive loss, Adam with learning rate 5e-4,
  halved every 200,000 steps.
Here: one stage of mean squared error, which is what PSNR measures, with warm-up and cosine decay,
  and a bicubic skip connection.
For the entry that won the NTIRE 2022 challenge:
  --config.model.features=46 --config.model.middle=48 --config.model.blocks=4
Hardware: one GPU (0.53 s per 1024x1024 image for the forward pass on two CPU cores).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.628 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('rlfn', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup = 1_000
  return finish(config, arg)
