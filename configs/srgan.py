"""SRGAN (Ledig et al., CVPR 2017): SRResNet first, then VGG19 features and a discriminator.

  jaxsr train --config=srgan --workdir=runs/srgan \
      --config.data.train=DIR --config.data.val=DIR --config.content.vgg19.weights=FILE

Paper: SRResNet with mean squared error for 10^6 steps; from it, 10^5 steps at 1e-4 and 10^5 at 1e-5
  with the VGG19 features of conv5_4 (divided by 12.75) and 1e-3 times the adversarial loss, batch
  size 16, patches of 24 pixels.
Here: the same networks and fewer steps. The mean squared error stays in the second stage, because
  the brightness of an image must not drift; the features come from a shallower layer; the weights
  are chosen by the gradients of the terms (see below); total variation is added; each stage has a
  cosine decay; the generator has a bicubic skip connection. One run holds both stages and resumes
  in either.
Hardware: one GPU.
Result: Not run at full length. With half of the width and depth (237,516 parameters), 6,000 + 1,000
  steps in 70 minutes on two CPU cores: 41.390 dB on 40 images of NIH ChestX-ray14, against 39.183
  dB for bicubic (docs/notebooks/gan.md, 2026-11-25, one seed).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('srresnet', bicubic_skip=True)  # False in the paper
  config.steps = 200_000
  config.eval = config.save = 5_000
  config.pretrain.update(steps=100_000, learning_rate=1e-4)
  config.pretrain.loss.mse = 1.0
  # Norms of the gradients at the image after training: 2e-4 (mse), 6e-4 (adversarial) and 1.6e-4
  # (vgg19). With weights of 1e-4 for the last two, the discriminator drove the features away from
  # the true ones: docs/notebooks/gan.md.
  config.loss.update(mse=1.0, vgg19=4e-4, adversarial=3e-5, tv_squared=2e-8)
  config.content.vgg19.update(layer='conv3_4', distance='relative')  # 'conv5_4', 'mse', 1 / 12.75
  config.data.patch = 24  # as in the paper
  config.optimizer.learning_rate = 1e-4
  config.discriminator.optimizer.learning_rate = 1e-4
  return finish(config, arg)
