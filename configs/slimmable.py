"""One network for several budgets: EDSR at widths from 1/4 to 1 and depths of 1/2 and 1.

  jaxsr train --config=slimmable --workdir=runs/slimmable \
      --config.data.train=DIR --config.data.val=DIR

Paper: Slimmable Neural Networks (Yu et al., ICLR 2019) and their universal form (Yu and Huang, ICCV
  2019), for classification.
Here: EDSR; at each step the smallest size and one in between learn from the output of the full size
  (docs/distill.md).
Evaluate one of its sizes:
  jaxsr evaluate --checkpoint runs/slimmable --width 0.5 --depth 0.5 --data DIR --output DIR
Hardware: a CPU is enough.
Result: Not run at full length.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.loss.slimmable = 1.0
  config.steps = 15_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3
  config.eval = config.save = 1_500
  config.data.val_count = 10
  return finish(config, arg)
