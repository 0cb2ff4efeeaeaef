"""RDN (Zhang et al., CVPR 2018), 22.3 million parameters.

  jaxsr train --config=rdn --workdir=runs/rdn \
      --config.data.train=DIR --config.data.val=DIR

Paper: L1 loss, patches of 32 pixels (48 for scale 2), batch size 16, Adam with learning rate 1e-4,
  halved every 200,000 of one million steps; scales 3 and 4 start from the weights of scale 2.
Here: mean squared error, which is what PSNR measures, training from scratch, warm-up and cosine
  decay, 300,000 steps, and a bicubic skip connection.
With less memory (activations are recomputed), and a small RDN of 395,841 parameters and 33 GMACs:
  --config.model.remat=True
  --config.model.blocks=5 --config.model.layers=3
  --config.model.features=32 --config.model.growth=32
Hardware: one large GPU (1,488 GMACs per 1024x1024 image).
Result: Not run at full length. 500 steps at a batch size of 1 on two CPU cores gave 36.885 dB on 4
  NIH images, against 36.709 dB for bicubic; this shows only how fast training starts
  (docs/notebooks/networks.md).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network('rdn', bicubic_skip=True)  # False in the paper
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.data.patch = 32  # as in the paper
  config.optimizer.learning_rate = 1e-4
  config.precision = 'float32'  # 'bfloat16' is faster on recent GPUs and TPUs
  return finish(config, arg)
