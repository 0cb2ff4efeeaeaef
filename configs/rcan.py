"""RCAN (Zhang et al., ECCV 2018), 15.6 million parameters.

  jaxsr train --config=rcan --workdir=runs/rcan \
      --config.data.train=DIR --config.data.val=DIR

Paper: L1 loss, patches of 48 pixels, batch size 16, Adam with learning rate 1e-4, halved every
  200,000 steps.
Here: mean squared error, which is what PSNR measures, warm-up and cosine decay, and a bicubic skip
  connection.
Without channel attention, and with less memory (activations are recomputed):
  --config.model.attention=False
  --config.model.remat=True
Hardware: one large GPU (1,042 GMACs per 1024x1024 image).
Result: Not run at full length. In 800 steps of a reduced network (one group of 8 blocks of 32
  features, Muon), channel attention cost 0.29 dB: 41.386 dB with it, 41.674 dB without, against
  39.628 dB for bicubic (docs/notebooks/recipe.md, one seed).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('rcan', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 1e-4
  config.optimizer.warmup = 2_000  # a network of 400 convolutions
  config.precision = 'float32'  # 'bfloat16' is faster on recent GPUs and TPUs
  return finish(config, arg)
