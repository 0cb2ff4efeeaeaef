"""The generator of Swift-SRGAN without its GAN (Krishnan & Krishnan, 2021), 0.2 million parameters.

python main.py --config=configs/swift_srgan.py --workdir=runs/swift_srgan \
    --config.data.train=DIR --config.data.val=DIR

The paper's recipe, from the first step: mean squared error + 0.001 adversarial + 0.006 MobileNetV2
features + 2e-8 total variation on patches of 24 pixels, AdamW with 10^-3, 100 epochs. Its chest
X-ray descendants used whole films, and of their losses only the mean squared error reached the
generator; the features and the discriminator had no gradient. Here: that error alone, AdamW with
the same rate, warm-up and cosine. It has no skip past the tanh, so it starts far below bicubic.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('swift_srgan')
  config.loss.mse = 1.0
  config.steps = 100_000
  config.data.patch = 24  # the authors'
  config.optimizer.learning_rate = 1e-3
  return finish(config, arg)
