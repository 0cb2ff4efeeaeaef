"""The compression study: a teacher, and students of each size taught in each way.

Each trial is a run of its own in a process of its own, below `trials/`. What has a `result.json` is
finished and not run again, so that a study which was stopped goes on where it was.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxsr import config as configs
from jaxsr.config import Config, compatibility, validate
from jaxsr.errors import UserError, nearest
from jaxsr.files import make_folder, write_json
from jaxsr.inference import model
from jaxsr.training import preemption

UNTAUGHT, TEACHER = 'untaught', 'teacher'
RESULT, LOG = 'result.json', 'log.txt'
_HARMLESS = (
  'data.threads',
  'data.workers',
  'data.cache',
  'data.cache_gib',
  'data.records',
  'log',
  'save',
  'teacher.cache',
)


class Trial(NamedTuple):
  """One run of a study; `given` is the folder of a teacher that is not trained here."""

  name: str
  objective: str
  width: float
  depth: float
  seed: int
  config: Config
  films: int  # that it is measured on; 0: all
  given: str = ''

  @property
  def size(self) -> str:
    """Name its size."""
    return TEACHER if self.name == TEACHER else f'w{self.width:g}_d{self.depth:g}'


def plan(config: Config, workdir: Path) -> tuple[Trial, list[Trial]]:
  """Lay out a study: its teacher, and the students.

  Raises UserError for an objective or a size that no run could have.
  """
  study = config.study
  given = config.teacher.checkpoint
  folder = given or str(workdir / TEACHER)
  objectives = _chosen({UNTAUGHT: ''} | dict(study.objectives), study.only)
  base = _without_study(config)
  base.teacher.checkpoint = ''
  trials = []
  for width, depth, seed in product(study.widths, study.depths, study.seeds):
    for objective, overrides in objectives.items():
      one = _set(base, overrides.format(teacher=folder, workdir=workdir))
      one.seed = seed
      for key, value in (('width', width), ('depth', depth)):
        one.model[key] = one.model[key] * value
      name = f'w{width:g}_d{depth:g}_{objective}_s{seed}'
      try:
        validate.check(one)
      except UserError as error:
        raise UserError(f'config.study, trial {name}: {error}') from error
      trials.append(Trial(name, objective, width, depth, seed, one, study.films))
  own = _set(base, study.teacher)
  if given:
    saved = model.read_config(given)
    own.update(steps=saved.get('steps', 0), model=ConfigDict(saved['model']))
  else:
    validate.check(own)
  return Trial(TEACHER, TEACHER, 1.0, 1.0, own.seed, own, study.films, given), trials


def _chosen(objectives: dict[str, str], only: str) -> dict[str, str]:
  names = [name.strip() for name in only.split(',') if name.strip()] or list(objectives)
  for name in names:
    if name not in objectives:
      raise UserError(f'config.study.only: objective {name!r}: {nearest(name, objectives)}')
  return {name: objectives[name] for name in names}


def _set(config: Config, overrides: str) -> Config:
  """Copy a config with what an objective sets."""
  flags = [f'--config.{part}' for part in overrides.split()]
  return configs.override(configs.copy(config), flags)


def _without_study(config: Config) -> Config:
  one = configs.copy(config)
  del one.study
  return one


def folder_of(workdir: Path, trial: Trial) -> Path:
  """Name the folder of a trial's results."""
  return workdir / TEACHER if trial.name == TEACHER else workdir / 'trials' / trial.name


def checkpoint_of(workdir: Path, trial: Trial) -> str:
  """Name a trial's run, which may be that of a given teacher."""
  return trial.given or str(folder_of(workdir, trial))


def result(workdir: Path, trial: Trial) -> dict[str, Any] | None:
  """Read what a trial came to, if it is finished; raises UserError if it was another trial."""
  path = folder_of(workdir, trial) / RESULT
  if not path.exists():
    return None
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    was, now = {**found['config'], 'study.films': found['films']}, configs.to_dict(trial.config)
    differences = compatibility.differences(was, {**now, 'study.films': trial.films})
  except (ValueError, KeyError, OSError) as error:
    raise UserError(f'{path}: cannot be read ({error}); delete it') from error
  told = {name: pair for name, pair in differences.items() if name not in _HARMLESS}
  if told:
    name, (was, now) = next(iter(told.items()))
    raise UserError(
      f'trial {trial.name}: config.{name} was {was}, is now {now}; choose another --workdir'
    )
  return found


def run(trials: Sequence[Trial], workdir: Path, *, slots: int) -> int:
  """Run the trials that are not finished, `slots` side by side; return the exit code.

  75: told to stop, and all that ran has saved. Trials that fail are told, and the others go on.
  """
  waiting = [trial for trial in trials if result(workdir, trial) is None]
  done = len(trials) - len(waiting)
  running: dict[int, tuple[Trial, subprocess.Popen]] = {}
  with preemption.handled() as stop:
    while waiting or running:
      for slot in range(slots):
        if waiting and slot not in running:
          trial = waiting.pop(0)
          running[slot] = trial, _start(trial, workdir, slot)
      time.sleep(0.1)
      for slot, (trial, process) in list(running.items()):
        if process.poll() is not None:
          del running[slot]
          done += 1
          _tell(trial, workdir, process.returncode, done, len(trials))
      if stop.due(together=False):
        for _, process in running.values():
          process.send_signal(signal.SIGTERM)
        for _, process in running.values():
          process.wait()
        print(f'stopped; {done} of {len(trials)} trials are done, the same command goes on')
        return preemption.EXIT
  return 0


def _start(trial: Trial, workdir: Path, slot: int) -> subprocess.Popen:
  folder = folder_of(workdir, trial)
  make_folder(folder)
  described = folder / 'trial.json'
  write_json(described, configs.to_dict(trial.config))
  environment = dict(os.environ)
  if gpus():
    environment['CUDA_VISIBLE_DEVICES'] = gpus()[slot % len(gpus())]
  command = [sys.executable, '-m', 'jaxsr.study.trial', str(described), str(folder)]
  command += [str(trial.films)]
  command += [trial.given] if trial.given else []
  with (folder / LOG).open('ab') as log:
    return subprocess.Popen(
      command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
    )


def gpus() -> list[str]:
  """Name the NVIDIA GPUs that may be used."""
  chosen = os.environ.get('CUDA_VISIBLE_DEVICES')
  if os.environ.get('JAX_PLATFORMS') == 'cpu' or chosen == '':
    return []
  found = len(list(Path('/proc/driver/nvidia/gpus').glob('*')))
  return [name.strip() for name in chosen.split(',')] if chosen else [str(i) for i in range(found)]


def _tell(trial: Trial, workdir: Path, code: int, done: int, total: int) -> None:
  found = result(workdir, trial)
  if found is None:
    log = folder_of(workdir, trial) / LOG
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines() or ['']
    what = f'failed with exit code {code}: {lines[-1]} (all of it: {log})'
  else:
    summary = found['summary']
    what = f'{summary["psnr"]:.3f} dB, {summary["psnr_gain"]:+.3f} over bicubic'
  print(f'{done}/{total} {trial.name}: {what}', flush=True)
