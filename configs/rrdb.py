"""RRDB, the generator of ESRGAN (Wang et al., ECCVW 2018), trained for PSNR.

16.7 million parameters.

  jaxsr train --config=rrdb --workdir=runs/rrdb \
      --config.data.train=DIR --config.data.val=DIR

Paper: before its adversarial stage: L1 loss, patches of 32 pixels, batch size 16, Adam with
  learning rate 2e-4, halved every 200,000 of one million steps.
Here: mean squared error, which is what PSNR measures, warm-up and cosine decay, 500,000 steps, and
  a bicubic skip connection.
With less memory (activations are recomputed):
  --config.model.remat=True
Hardware: one large GPU (1,174 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 37.056 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('rrdb', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.data.patch = 32  # as in the paper
  config.optimizer.learning_rate = 2e-4
  config.optimizer.warmup = 2_000  # a network of 345 convolutions
  config.precision = 'float32'  # 'bfloat16' is faster on recent GPUs and TPUs
  return finish(config, arg)
