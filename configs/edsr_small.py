"""EDSR of 0.2 million parameters.

python main.py --config=configs/edsr_small.py --workdir=runs/edsr \
    --config.data.train=DIR --config.data.val=DIR
"""

from ml_collections import ConfigDict

from jaxsr.config import base, finish, network


def get_config(arg: str | None = None) -> ConfigDict:
  """Describe the experiment."""
  config = base()
  config.model = network(
    'edsr', features=32, blocks=10, upsampler='direct', bicubic_skip=True
  )
  config.loss.mse = 1.0
  config.steps = 6_000
  config.batch_size = 12
  return finish(config, arg)
