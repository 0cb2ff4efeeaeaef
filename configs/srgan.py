"""SRGAN (Ledig et al., CVPR 2017): SRResNet first, then VGG19's features and a discriminator.

python main.py --config=configs/srgan.py --workdir=runs/srgan \
    --config.data.train=DIR --config.data.val=DIR --config.content.vgg19.weights=FILE

The paper: SRResNet under mean squared error for 10^6 steps; from it, 10^5 steps at 10^-4 and 10^5
at 10^-5 on VGG19's conv5_4 (features over 12.75) + 10^-3 adversarial, batches of 16 crops of 24
pixels. Here the same networks, but for: the mean squared error stays in the second stage, since a
film may not drift in brightness; a shallower layer, and weights chosen by the terms' gradients (see
below); total variation; two cosines in fewer steps; the result is added to a bicubic upsampling.
One run holds both stages and resumes in either. Trained on two cores, a small budget: docs/gan.md.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('srresnet', bicubic_skip=True)  # False is the paper's
  config.steps = 200_000
  config.eval = config.save = 5_000
  config.pretrain.update(steps=100_000, learning_rate=1e-4)
  config.pretrain.loss.mse = 1.0
  # Gradients at a film once trained: 2e-4 (mse), 6e-4 (adversarial), 1.6e-4 (vgg19). With 1e-4 for
  # both of the latter the discriminator drove the features away from the true ones: docs/gan.md.
  config.loss.update(mse=1.0, vgg19=4e-4, adversarial=3e-5, tv_squared=2e-8)
  config.content.vgg19.update(layer='conv3_4', distance='relative')  # 'conv5_4', 'mse', 1 / 12.75
  config.data.patch = 24  # the paper's
  config.optimizer.learning_rate = 1e-4
  config.discriminator.optimizer.learning_rate = 1e-4
  return finish(config, arg)
