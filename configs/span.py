"""SPAN (Wan et al., CVPRW 2024), 0.43 million parameters once folded.

python main.py --config=configs/span.py --workdir=runs/span \
    --config.data.train=DIR --config.data.val=DIR

The paper: l1 on patches of 64 pixels, batches of 64, Adam with 5x10^-4 halved every 200,000 steps,
a million of them. Here smaller batches and the loss that the protocol measures, with a warm-up, a
cosine and the bicubic skip. What trains has 1.8 million parameters; `evaluate` and `upscale` fold
them into the small ones. For the entry of NTIRE 2024:
    --config.model.features=28
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('span', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.optimizer.learning_rate = 5e-4
  config.optimizer.warmup = 1_000
  return finish(config, arg)
