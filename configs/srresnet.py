"""SRResNet, the generator of SRGAN before its GAN stage (Ledig et al., CVPR 2017), 1.5 million.

python main.py --config=configs/srresnet.py --workdir=runs/srresnet \
    --config.data.train=DIR --config.data.val=DIR

The paper: mean squared error on patches of 24 pixels, batches of 16, Adam with 10^-4 for a million
steps; SRGAN starts from the result. Here the same but for the warm-up, the cosine, fewer steps, and
the result added to a bicubic upsampling. Its BatchNorm sees crops in training and whole films
after it: watch that validation follows training.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('srresnet', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.data.patch = 24  # the paper's
  config.optimizer.learning_rate = 1e-4
  return finish(config, arg)
