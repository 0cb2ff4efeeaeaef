"""SRCNN 9-5-5 (Dong et al., TPAMI 2016), 57,281 parameters.

python main.py --config=configs/srcnn.py --workdir=runs/srcnn \
    --config.data.train=DIR --config.data.val=DIR

The paper: mean squared error on patches of 33 pixels, SGD, 10^-4 and 10^-5 in the last layer. Here:
AdamW with a cosine, on the project's crops. It has no skip, so it starts far below bicubic and
needs thousands of steps to pass it; at 60 GMACs for a film of 1024x1024 it is not cheap either.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('srcnn')
  config.loss.mse = 1.0
  config.steps = 100_000
  config.data.patch = 24
  config.data.margin = 3  # its receptive field reaches 8 pixels of the enlarged image
  config.optimizer.learning_rate = 3e-4
  return finish(config, arg)
