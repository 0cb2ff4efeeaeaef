"""Distillation: a quarter of edsr_small, cut from its teacher and trained on its output.

  jaxsr train --config=edsr_small --workdir=runs/teacher \
      --config.data.train=DIR --config.data.val=DIR
  jaxsr train --config=distill --workdir=runs/student \
      --config.init_from=runs/teacher --config.teacher.checkpoint=runs/teacher \
      --config.teacher.cache=runs/labels --config.data.train=DIR --config.data.val=DIR

Paper: docs/distill.md lists the papers of the distillation terms.
Here: the student has half of the width and 7/8 of the depth (37,280 parameters). It starts from the
  channels of the teacher that carry the most energy and learns from the output of the teacher and
  the images in equal parts.
Hardware: a CPU is enough; a quarter of an hour for 9,000 steps on two cores, after the teacher.
Result: 41.777 dB on 40 images of NIH ChestX-ray14 after 9,000 of the 15,000 steps (mean of three
  seeds), 0.126 dB below its teacher of 6,000 steps and 0.218 dB above the same student without a
  teacher (docs/notebooks/distillation.md, 2026-11-26).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the experiment."""
  config = base()
  config.model = network(
    'edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True, width=0.5, depth=0.875
  )
  config.loss.mse = 1.0
  config.loss.distill_output_mse = 1.0
  config.steps = 15_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3
  config.eval = config.save = 1_500
  config.data.val_count = 10
  return finish(config, arg)
