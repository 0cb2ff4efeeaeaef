"""Swift-SRGAN (Krishnan and Krishnan, 2021), 0.2 million parameters.

Separable convolutions, a content loss on MobileNetV2 features and a separable discriminator.

  jaxsr train --config=swift_srgan --workdir=runs/swift_srgan \
      --config.data.train=DIR --config.data.val=DIR

Paper: from the first step, mean squared error + 0.001 adversarial (mean of 1 - D) + 0.006
  MobileNetV2 features (last layer) + 2e-8 total variation on patches of 24 pixels, AdamW with
  learning rate 1e-3 for both networks, 100 epochs. Its chest X-ray descendants used full images,
  and of their losses only the mean squared error reached the generator.
Here: all four terms reach the generator, after a stage of mean squared error alone. The weights are
  chosen by the gradients of the terms (see below), the adversarial form is least squares (1 - D has
  no gradient once D is certain), the learning rates are lower, and the generator has a bicubic skip
  connection.
Hardware: one GPU (21 GMACs per 1024x1024 image), or a CPU at a small budget.
Result: Not run at full length. With half of the width and depth (35,923 parameters), 4,000 + 600
  steps in 70 minutes on two CPU cores: 40.454 dB on 40 images of NIH ChestX-ray14, against 39.183
  dB for bicubic (docs/notebooks/gan.md, 2026-11-25, one seed).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('swift_srgan', bicubic_skip=True)  # False in the paper
  config.steps = 100_000
  config.pretrain.update(steps=50_000, learning_rate=1e-3)
  config.pretrain.loss.mse = 1.0
  # With the weights of the paper, the gradient of the features at the image is 1,000 times that of
  # the squared error. With these it is 3 times as large, the adversarial gradient 7 times. A tenth
  # of these weights changed nothing.
  config.loss.update(mse=1.0, mobilenet_v2=2e-3, adversarial=3e-4, tv_squared=2e-8)
  config.content.mobilenet_v2.update(layer='block_5', distance='relative')  # 'head', 'mse'
  config.adversarial.form = 'least_squares'  # 'probability' in the paper
  config.discriminator.separable = True
  config.data.patch = 24  # as in the authors' code
  config.optimizer.learning_rate = 5e-4
  config.discriminator.optimizer.learning_rate = 3e-4
  return finish(config, arg)
