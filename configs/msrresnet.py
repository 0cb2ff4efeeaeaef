"""MSRResNet: SRResNet without BatchNorm, as in BasicSR, 1.5 million parameters.

  jaxsr train --config=msrresnet --workdir=runs/msrresnet \
      --config.data.train=DIR --config.data.val=DIR

BasicSR: L1 loss, patches of 32 pixels, batch size 16, Adam with learning rate 2e-4 and four cosine
  cycles of 250,000 steps.
Here: one cosine decay with warm-up over 300,000 steps, and a bicubic instead of a bilinear skip
  connection.
Hardware: one GPU (165 GMACs per 1024x1024 image).
Result: Not run.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('msrresnet', bicubic_skip=True)
  config.loss.l1 = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.data.patch = 32  # as in BasicSR
  config.optimizer.learning_rate = 2e-4
  return finish(config, arg)
