"""RLFN (Kong et al., CVPRW 2022), 0.54 million parameters.

python main.py --config=configs/rlfn.py --workdir=runs/rlfn \
    --config.data.train=DIR --config.data.val=DIR

The paper: three stages of l1, the last with a contrastive loss, Adam with 5x10^-4 halved every
200,000 steps. Here one stage of the loss that the protocol measures, with a warm-up, a cosine and
the bicubic skip. For the entry that won NTIRE 2022:
    --config.model.features=46 --config.model.middle=48 --config.model.blocks=4
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('rlfn', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup = 1_000
  return finish(config, arg)
