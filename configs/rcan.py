"""RCAN (Zhang et al., ECCV 2018), 15.6 million parameters.

python main.py --config=configs/rcan.py --workdir=runs/rcan \
    --config.data.train=DIR --config.data.val=DIR

The paper: l1 on patches of 48 pixels, batches of 16, Adam with 10^-4 halved every 200,000 steps.
Here the same but for the loss, which is what the protocol measures, the warm-up, the cosine and the
bicubic skip. Without channel attention, which was reported to hurt on chest radiographs:
    --config.model.attention=False
and for an accelerator with little memory
    --config.model.remat=True
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('rcan', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 1e-4
  config.optimizer.warmup = 2_000  # 400 convolutions deep
  config.precision = 'float32'  # 'bfloat16' on accelerators that are fast at it
  return finish(config, arg)
