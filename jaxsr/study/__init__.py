"""The compression study: a teacher, and students of each size trained in each way.

Each trial is a run in a process of its own, below `trials/`. A trial that has a `result.json` is
finished and is not run again, so that a study that was stopped continues where it was.
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

from jaxsr.config import Config, compatibility, to_dict, validate
from jaxsr.config import copy as copy_config
from jaxsr.config.overrides import override
from jaxsr.errors import UserError, nearest
from jaxsr.files import digest_json, make_folder, write_json
from jaxsr.inference import stored
from jaxsr.training import preemption

UNTAUGHT, TEACHER = 'untaught', 'teacher'
RESULT, LOG = 'result.json', 'log.txt'
_MAY_CHANGE = (
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
  """One run of a study.

  Attributes:
    name: The name of its folder.
    objective: How it is trained: `teacher`, `untaught` (without a teacher), or a key of
      `config.study.objectives`.
    width: Fraction of the channels.
    depth: Fraction of the blocks.
    seed: Seed of the run.
    config: Its config.
    films: Number of validation images that it is measured on; 0: all.
    given: The folder of a trained teacher, which is only measured.
  """

  name: str
  objective: str
  width: float
  depth: float
  seed: int
  config: Config
  films: int
  given: str = ''

  @property
  def size(self) -> str:
    """The name of its size."""
    return TEACHER if self.name == TEACHER else f'w{self.width:g}_d{self.depth:g}'


def plan(config: Config, workdir: Path) -> tuple[Trial, list[Trial]]:
  """Returns the teacher and the students of a study.

  Raises:
    UserError: An objective or a size is not valid.
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
    saved = stored.read_config(given)
    own.update(steps=saved.get('steps', 0), model=ConfigDict(saved['model']))
  else:
    validate.check(own)
  return Trial(TEACHER, TEACHER, 1.0, 1.0, own.seed, own, study.films, given), trials


def _chosen(objectives: dict[str, str], only: str) -> dict[str, str]:
  names = [name.strip() for name in only.split(',') if name.strip()] or list(objectives)
  for name in names:
    if name not in objectives:
      raise UserError(
        f'config.study.only: objective {name!r} is unknown: {nearest(name, objectives)}'
      )
  return {name: objectives[name] for name in names}


def _set(config: Config, overrides: str) -> Config:
  """Returns a copy of a config with the overrides of an objective."""
  flags = [f'--config.{part}' for part in overrides.split()]
  return override(copy_config(config), flags)


def _without_study(config: Config) -> Config:
  one = copy_config(config)
  del one.study
  return one


def folder_of(workdir: Path, trial: Trial) -> Path:
  """Returns the folder of a trial's results."""
  return workdir / TEACHER if trial.name == TEACHER else workdir / 'trials' / trial.name


def checkpoint_of(workdir: Path, trial: Trial) -> str:
  """Returns the checkpoint of a trial, which may be that of a given teacher."""
  return trial.given or str(folder_of(workdir, trial))


def result(workdir: Path, trial: Trial) -> dict[str, Any] | None:
  """Load the result of a trial, or None; raises UserError if it belongs to another config."""
  path = folder_of(workdir, trial) / RESULT
  if not path.exists():
    return None
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    digest = found.pop('sum', None)  # older versions wrote none
    if digest not in (None, digest_json(found)):
      raise ValueError('it is not as it was written')
    was, now = {**found['config'], 'study.films': found['films']}, to_dict(trial.config)
    differences = compatibility.differences(was, {**now, 'study.films': trial.films})
  except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
    raise UserError(f'{path}: cannot be read ({error}); delete it') from error
  changed = {name: pair for name, pair in differences.items() if name not in _MAY_CHANGE}
  if changed:
    name, (was, now) = next(iter(changed.items()))
    raise UserError(
      f'trial {trial.name}: config.{name} was {was}, is now {now}; choose another --workdir'
    )
  return found


def run(trials: Sequence[Trial], workdir: Path, *, slots: int) -> int:
  """Run the trials that are not finished, `slots` at a time.

  A trial that fails is reported, and the others continue.

  Returns:
    The exit code: 0, or 75 if a signal stopped the study after all running trials were saved.
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
          _report(trial, workdir, process.returncode, done, len(trials))
      if stop.due(together=False):
        for _, process in running.values():
          process.send_signal(signal.SIGTERM)
        for _, process in running.values():
          process.wait()
        print(f'stopped; {done} of {len(trials)} trials are done; run the same command to continue')
        return preemption.EXIT
  return 0


def _start(trial: Trial, workdir: Path, slot: int) -> subprocess.Popen:
  folder = folder_of(workdir, trial)
  make_folder(folder)
  described = folder / 'trial.json'
  write_json(described, to_dict(trial.config))
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
  """Returns the NVIDIA GPUs that may be used."""
  chosen = os.environ.get('CUDA_VISIBLE_DEVICES')
  if os.environ.get('JAX_PLATFORMS') == 'cpu' or chosen == '':
    return []
  found = len(list(Path('/proc/driver/nvidia/gpus').glob('*')))
  return [name.strip() for name in chosen.split(',')] if chosen else [str(i) for i in range(found)]


def _report(trial: Trial, workdir: Path, code: int, done: int, total: int) -> None:
  found = result(workdir, trial)
  if found is None:
    log = folder_of(workdir, trial) / LOG
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines() or ['']
    what = f'failed with exit code {code}: {lines[-1]} (log: {log})'
  else:
    summary = found['summary']
    what = f'{summary["psnr"]:.3f} dB, {summary["psnr_gain"]:+.3f} over bicubic'
  print(f'{done}/{total} {trial.name}: {what}', flush=True)
