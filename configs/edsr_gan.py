"""Texture for `edsr_small`: VGG19's features and a discriminator, from a network that is trained.

python main.py --config=configs/edsr_gan.py --workdir=runs/gan --config.init_from=runs/edsr \
    --config.data.train=DIR --config.data.val=DIR --config.content.vgg19.weights=FILE

SRGAN's second stage (configs/srgan.py) on a lighter network: it pays decibels for detail. This is
how the weights edsr_x4_gan were made, but for their 700 steps, a quarter of an hour on one core.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.steps = 1_200
  config.eval = config.save = 300
  config.ema = 0.995
  config.batch_size = 8
  config.data.update(patch=16, margin=4, val_count=10)
  # Chosen by the terms' gradients at a film, as in configs/srgan.py.
  config.loss.update(mse=1.0, vgg19=4e-4, adversarial=3e-5)
  config.content.vgg19.update(layer='conv3_4', distance='relative')
  config.discriminator.update(features=32, hidden=256)
  config.optimizer.learning_rate = 1e-4
  config.discriminator.optimizer.learning_rate = 1e-4
  return finish(config, arg)
