"""SRDenseNet_All (Tong et al., ICCV 2017), 2.7 million parameters.

python main.py --config=configs/srdensenet.py --workdir=runs/srdensenet \
    --config.data.train=DIR --config.data.val=DIR

The paper: mean squared error on patches of 25 pixels from 50,000 images of ImageNet, batches of
32, Adam with 10^-4 and 10^-5 in the second half. Here: the same loss, AdamW with a cosine, and the
result added to a bicubic upsampling. For the public variant of 2,003,467 parameters, closer to the
paper's 2,015 K, add
    --config.model.variant=prelu --config.model.bicubic_skip=False
and for one whose layers all see their block's input
    --config.model.variant=dense
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('srdensenet', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 200_000
  config.eval = config.save = 5_000
  config.data.patch = 25  # the paper's
  config.batch_size = 32  # the paper's
  config.optimizer.learning_rate = 1e-4
  return finish(config, arg)
