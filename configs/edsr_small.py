"""EDSR of 162,160 parameters, for a first result on real films in half an hour on two cores.

python main.py --config=configs/edsr_small.py --workdir=runs/edsr \
    --config.data.train=DIR --config.data.val=DIR

On 300 films of NIH ChestX-ray14, in half an hour on one core: README has the table.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the experiment."""
  config = base()
  # Eight narrow blocks, not sixteen wide ones: one convolution makes the image ('direct'), and the
  # bicubic skip lets training begin at bicubic instead of at zero.
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  # Each chosen on held-out training images (docs/notebooks/recipe.md): 0.2 dB over the squared
  # error, 0.1 over half of the crops by error, 0.35 over AdamW.
  config.loss.l1 = 1.0
  config.data.by_error = 0.8
  config.optimizer.name = 'muon'
  # Many small steps beat few large ones: at equal time, crops of 24 in batches of 8 came out
  # 0.5 dB above crops of 48 in batches of 12, and a margin of 4 0.2 dB above one of 8.
  config.steps = 12_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3  # 2e-3 was 0.1 dB worse
  config.eval = config.save = 1_500
  config.data.val_count = 10  # on the way; `jaxsr evaluate` measures all of them
  return finish(config, arg)
