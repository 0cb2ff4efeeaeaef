"""SwinIR, classical (Liang et al., ICCVW 2021), 11.9 million parameters.

python main.py --config=configs/swinir.py --workdir=runs/swinir \
    --config.data.train=DIR --config.data.val=DIR

The paper: l1 on patches of 48 pixels, batches of 32, Adam with 2x10^-4 halved at 250,000, 400,000,
450,000 and 475,000 of 500,000 steps, stochastic depth 0.1. Here smaller batches, no stochastic
depth, and the loss that the protocol measures, with a warm-up, a cosine and the bicubic skip. For
the light network of 0.9 million parameters add
    --config.model.features=60 --config.model.depths="(6,6,6,6)" --config.model.upsampler=direct
and for an accelerator with little memory
    --config.model.remat=True
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('swinir', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 2e-4
  config.optimizer.warmup = 5_000  # transformers start badly without
  config.precision = 'float32'  # 'bfloat16' on accelerators that are fast at it
  return finish(config, arg)
