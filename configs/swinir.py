"""SwinIR, classical (Liang et al., ICCVW 2021), 11.9 million parameters.

  jaxsr train --config=swinir --workdir=runs/swinir \
      --config.data.train=DIR --config.data.val=DIR

Paper: L1 loss, patches of 48 pixels, batch size 32, Adam with learning rate 2e-4, halved at
  250,000, 400,000, 450,000 and 475,000 of 500,000 steps, stochastic depth 0.1.
Here: mean squared error, which is what PSNR measures, batch size 16, no stochastic depth, warm-up
  and cosine decay, and a bicubic skip connection.
For the light network with 0.9 million parameters, and with less memory:
  --config.model.features=60 --config.model.depths="(6,6,6,6)" --config.model.upsampler=direct
  --config.model.remat=True
Hardware: one large GPU (855 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.630 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('swinir', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 2e-4
  config.optimizer.warmup = 5_000  # transformers train poorly without a long warm-up
  config.precision = 'float32'  # 'bfloat16' is faster on recent GPUs and TPUs
  return finish(config, arg)
