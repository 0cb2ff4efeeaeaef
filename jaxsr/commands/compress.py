"""`jaxsr compress`."""

from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

from jaxsr import config as configs
from jaxsr import files, study
from jaxsr.errors import UserError
from jaxsr.files import make_folder
from jaxsr.study import page, table
from jaxsr.training import preemption


@dataclass(frozen=True)
class Compress:
  """Train students of several sizes, taught in several ways, and compare them with their teacher.

  Each trial is a run of its own; the same command goes on with what is not finished, and
  `--config.KEY=VALUE` sets what the config has. Writes study.csv, study.html and plots.
  """

  config: str
  """A file of configs/ with a section `study`, as configs/compress.py."""
  workdir: Path
  """Where the study lives."""
  parallel: int = 0
  """Trials that run side by side; by default one for each GPU, or one."""
  overrides: tyro.conf.Suppress[tuple[str, ...]] = ()
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Train what is missing, then write; return the exit code."""
    page.check()
    jax.config.update('jax_platforms', 'cpu')  # the GPUs are the trials'
    config = configs.override(configs.load(self.config), self.overrides)
    if 'study' not in config:
      raise UserError(f'--config={self.config}: has no section `study`; see configs/compress.py')
    make_folder(self.workdir)
    with files.locked(self.workdir):
      return self._run(config)

  def _run(self, config: configs.Config) -> int:
    teacher, trials = study.plan(config, self.workdir)
    whole = [teacher, *trials]
    for trial in whole:
      study.result(self.workdir, trial)  # raises where it was another one
    sizes = table.measure_costs(whole, self.workdir)
    slots = self.parallel or max(1, len(study.gpus()))
    code = study.run([teacher], self.workdir, slots=1)
    if not code and study.result(self.workdir, teacher) is None:
      log = study.folder_of(self.workdir, teacher) / study.LOG
      raise UserError(f'the teacher cannot be had, and so no student be taught: see {log}')
    code = code or study.run(trials, self.workdir, slots=slots)
    rows = table.rows(teacher, trials, self.workdir, sizes)
    if rows:
      table.write(self.workdir / table.CSV, rows)
      page.write(self.workdir, rows, table.group(rows), teacher, trials)
      print(f'table: {self.workdir / table.CSV}, page: {self.workdir / page.PAGE}')
    failed = sum(row['status'] != 'done' for row in rows)
    return code if code == preemption.EXIT else int(failed > 0)
