"""VDSR (Kim et al., CVPR 2016), 665,921 parameters.

python main.py --config=configs/vdsr.py --workdir=runs/vdsr \
    --config.data.train=DIR --config.data.val=DIR

The paper: summed squared error on patches of 41 pixels of the enlarged image, SGD with 0.1,
gradients clipped to the learning rate. Here: mean squared error and AdamW with clipped gradients.
It computes at the high resolution, 697 GMACs for a film of 1024x1024: take a GPU.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('vdsr')
  config.loss.mse = 1.0
  config.steps = 100_000
  config.data.patch = 24
  config.data.margin = 5  # its receptive field reaches 20 pixels of the enlarged image
  config.optimizer.learning_rate = 5e-4
  return finish(config, arg)
