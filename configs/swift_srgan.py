"""Swift-SRGAN (Krishnan & Krishnan, 2021): separable convolutions, MobileNetV2's features, 0.2 M.

python main.py --config=configs/swift_srgan.py --workdir=runs/swift_srgan \
    --config.data.train=DIR --config.data.val=DIR

The paper's recipe, from the first step: mean squared error + 0.001 adversarial (mean of 1 - D) +
0.006 MobileNetV2 features (the last layer) + 2e-8 total variation on patches of 24 pixels, AdamW
with 10^-3 for both, 100 epochs. Its chest X-ray descendants used whole films, and of their losses
only the mean squared error reached the generator. Here all four do, after a stage of that error
alone, with weights chosen by the terms' gradients (see below), least squares for the
adversarial form, because 1 - D tells nothing once D is sure, lower rates, and the result added to a
bicubic upsampling. Trained on two cores at a small budget: docs/gan.md.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('swift_srgan', bicubic_skip=True)  # False is the paper's
  config.steps = 100_000
  config.pretrain.update(steps=50_000, learning_rate=1e-3)
  config.pretrain.loss.mse = 1.0
  # With the paper's weights the features' gradient at a film is a thousand times that of the error;
  # with these it is 3 times, and the adversarial one 7 times. At a tenth of them nothing changed.
  config.loss.update(mse=1.0, mobilenet_v2=2e-3, adversarial=3e-4, tv_squared=2e-8)
  config.content.mobilenet_v2.update(layer='block_5', distance='relative')  # 'head', 'mse'
  config.adversarial.form = 'least_squares'  # 'probability' is the paper's
  config.discriminator.separable = True
  config.data.patch = 24  # the authors'
  config.optimizer.learning_rate = 5e-4
  config.discriminator.optimizer.learning_rate = 3e-4
  return finish(config, arg)
