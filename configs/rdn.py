"""RDN (Zhang et al., CVPR 2018), 22.3 million parameters.

python main.py --config=configs/rdn.py --workdir=runs/rdn \
    --config.data.train=DIR --config.data.val=DIR

The paper: l1 on patches of 32 pixels (48 for scale 2), batches of 16, Adam with 10^-4 halved every
200,000 of a million steps, scales 3 and 4 from the weights of scale 2. Here: mean squared error,
which is what the protocol measures, from scratch, warm-up and cosine, and the result added to a
bicubic upsampling. At 1,488 GMACs for a film of 1024x1024 it wants a large GPU; with less memory
add
    --config.model.remat=True
For the small one of 395,841 parameters, 33 GMACs, add
    --config.model.blocks=5 --config.model.layers=3
    --config.model.features=32 --config.model.growth=32
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  config.model = network('rdn', bicubic_skip=True)  # False is the paper's
  config.loss.mse = 1.0
  config.steps = 300_000
  config.eval = config.save = 5_000
  config.data.patch = 32  # the paper's
  config.optimizer.learning_rate = 1e-4
  config.precision = 'float32'  # 'bfloat16' on accelerators that are fast at it
  return finish(config, arg)
