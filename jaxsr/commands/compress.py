"""`jaxsr compress`: train a teacher and its students, and compare them."""

from pathlib import Path

import jax

from jaxsr import config as configs
from jaxsr import files, study
from jaxsr.commands.options import Compress
from jaxsr.config.overrides import override
from jaxsr.errors import UserError
from jaxsr.evaluation import html
from jaxsr.files import make_folder
from jaxsr.study import page, table
from jaxsr.training import preemption


def run(options: Compress) -> int:
  """Train the unfinished trials, then write the table and the page; returns the exit code."""
  html.check()
  jax.config.update('jax_platforms', 'cpu')  # the GPUs are for the trials
  config = override(configs.load(options.config), options.overrides)
  if 'study' not in config:
    raise UserError(f'--config={options.config}: has no section `study`; see configs/compress.py')
  make_folder(options.workdir)
  with files.locked(options.workdir):
    return _run(config, options.workdir, options.parallel)


def _run(config: configs.Config, workdir: Path, parallel: int) -> int:
  teacher, students = study.plan(config, workdir)
  trials = [teacher, *students]
  for trial in trials:
    study.result(workdir, trial)  # raises if the finished trial had other settings
  sizes = table.measure_costs(trials, workdir)
  slots = parallel or max(1, len(study.gpus()))
  code = study.run([teacher], workdir, slots=1)
  if not code and study.result(workdir, teacher) is None:
    log = study.folder_of(workdir, teacher) / study.LOG
    raise UserError(f'the teacher failed, so no student can be trained: see {log}')
  code = code or study.run(students, workdir, slots=slots)
  rows = table.rows(teacher, students, workdir, sizes)
  if rows:
    table.write(workdir / table.CSV, rows)
    page.write(workdir, rows, table.group(rows), teacher, students)
    print(f'table: {workdir / table.CSV}, page: {workdir / page.PAGE}')
  failed = sum(row['status'] != 'done' for row in rows)
  return code if code == preemption.EXIT else int(failed > 0)
