"""A compression study: students of EDSR, untaught and taught in three ways.

jaxsr compress --config=configs/compress.py --workdir=runs/study \
    --config.data.train=DIR --config.data.val=DIR

Nine sizes, four objectives, one seed, and the teacher: 37 runs.
"""

from jaxsr.config import Config, base, finish, network


def get_config(arg: str | None = None) -> Config:
  """Describe the teacher, which is what each student is a smaller one of, and the study."""
  config = base()
  config.model = network('edsr', features=32, blocks=8, upsampler='direct', bicubic_skip=True)
  config.loss.mse = 1.0
  config.steps = 15_000
  config.batch_size = 8
  config.data.patch = 24
  config.data.margin = 4
  config.optimizer.learning_rate = 1e-3
  config.eval = config.save = 5_000
  config.data.val_count = 4  # on the way; in the end all are measured
  config.study = dict(
    widths=(0.25, 0.5, 1.0),
    depths=(0.25, 0.5, 1.0),
    seeds=(0,),
    films=0,  # of `data.val`, evenly spaced, that each trial is measured on; 0: all
    teacher='',  # what the teacher sets beside the config above, as steps=30_000
    only='',  # objectives that are run, by commas; '': all of them
    # What each objective sets, beside `untaught`, which sets nothing; {teacher} and {workdir} are
    # folders. Weights are chosen by the gradients at the image: about that of the pixel term.
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
