"""SRDenseNet_All (Tong et al., ICCV 2017), 2.7 million parameters.

  jaxsr train --config=srdensenet --workdir=runs/srdensenet \
      --config.data.train=DIR --config.data.val=DIR

Paper: mean squared error on patches of 25 pixels from 50,000 images of ImageNet, batch size 32,
  Adam with learning rate 1e-4, and 1e-5 in the second half.
Here: the same loss, AdamW with warm-up and cosine decay, and a bicubic skip connection.
For the public variant with 2,003,467 parameters, close to the 2,015 K of the paper, and
for a variant in which each layer sees the input of its block:
  --config.model.variant=prelu --config.model.bicubic_skip=False
  --config.model.variant=dense
Hardware: one GPU (292 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.702 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('srdensenet', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 200_000
  config.eval = config.save = 5_000
  config.data.patch = 25  # as in the paper
  config.batch_size = 32  # as in the paper
  config.optimizer.learning_rate = 1e-4
  return finish(config, arg)
