"""EDSR baseline (Lim et al., CVPRW 2017), 1.5 million parameters.

python main.py --config=configs/edsr.py --workdir=runs/edsr_baseline \
    --config.data.train=DIR --config.data.val=DIR

The paper: l1 on patches of 48 pixels, batches of 16, Adam with 10^-4, 300,000 steps and more. Here
the same but for the loss, which is what the protocol measures, the warm-up and the cosine. For the
full EDSR of 43 million parameters add
    --config.model.features=256 --config.model.blocks=32 --config.model.residual_scaling=0.1
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('edsr', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 2e-4
  config.precision = 'float32'  # 'bfloat16' on accelerators that are fast at it
  return finish(config, arg)
