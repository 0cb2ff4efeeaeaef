"""SPAN (Wan et al., CVPRW 2024), 0.41 million parameters once folded.

  jaxsr train --config=span --workdir=runs/span \
      --config.data.train=DIR --config.data.val=DIR

Paper: L1 loss, patches of 64 pixels, batch size 64, Adam with learning rate 5e-4, halved every
  200,000 of one million steps.
Here: mean squared error, which is what PSNR measures, batch size 16, warm-up and cosine decay, and
  a bicubic skip connection. Training uses 1.8 million parameters; evaluate and upscale fold them
  into the small network.
For the entry in the NTIRE 2024 challenge:
  --config.model.features=28
Hardware: one GPU (0.43 s per 1024x1024 image for the folded forward pass on two CPU cores).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.389 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('span', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup = 1_000
  return finish(config, arg)
