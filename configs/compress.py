"""A compression study: students of EDSR, without a teacher and taught in three ways.

  jaxsr compress --config=compress --workdir=runs/study \
      --config.data.train=DIR --config.data.val=DIR

Here: nine sizes, four objectives, one seed, and the teacher: 37 runs, each of 15,000 steps
  (docs/notebooks/distillation.md).
Hardware: a CPU is enough; half an hour for the largest run on one core.
Result: Not run at full length. At 400 steps per student, students cut from their teacher gained
  0.72 to 2.25 dB over bicubic on ten images of NIH ChestX-ray14, students without a teacher 0.45 to
  0.97 dB (docs/notebooks/distillation.md, one seed).
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Returns the configuration of the teacher and of the study."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.steps = 15_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3
  config.eval = config.save = 5_000
  config.data.val_count = 4  # during training; the final evaluation uses all images
  config.study = dict(
    widths=(0.25, 0.5, 1.0),
    depths=(0.25, 0.5, 1.0),
    seeds=(0,),
    films=0,  # images of `data.val`, evenly spaced, on which each trial is evaluated; 0: all
    teacher='',  # overrides of this config for the teacher, for example steps=30_000
    only='',  # objectives to run, separated by commas; '': all
    # The overrides of each objective; `untaught` has none. {teacher} and {workdir} are folders.
    # The weights give each term about the same gradient at the image as the pixel term.
    objectives=dict(
      output='teacher.checkpoint={teacher} teacher.cache={workdir}/labels loss.distill_output=0.02',
      affinity='teacher.checkpoint={teacher} loss.distill_affinity=0.05',
      sliced='init_from={teacher} teacher.checkpoint={teacher} teacher.cache={workdir}/labels '
      'loss.distill_output_mse=1.0',
    ),
  )
  if arg == 'smoke':
    small: Config = config.study
    small.widths, small.depths = (0.5,), (0.5, 1.0)
  return finish(config, arg)
