"""RRDB, the generator of ESRGAN, for PSNR (Wang et al., ECCVW 2018), 16.7 million parameters.

python main.py --config=configs/rrdb.py --workdir=runs/rrdb \
    --config.data.train=DIR --config.data.val=DIR

The paper, before its adversarial training: l1 on patches of 32 pixels, batches of 16, Adam with
2x10^-4 halved every 200,000 steps, a million of them. Here the loss is what the protocol measures,
with a warm-up, a cosine and the bicubic skip. For an accelerator with little memory:
    --config.model.remat=True
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('rrdb', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 500_000
  config.eval = config.save = 5_000
  config.data.patch = 32  # the paper's
  config.optimizer.learning_rate = 2e-4
  config.optimizer.warmup = 2_000  # 345 convolutions deep
  config.precision = 'float32'  # 'bfloat16' on accelerators that are fast at it
  return finish(config, arg)
