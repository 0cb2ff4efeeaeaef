"""The runs of `recipes.py`: rates first, then as many steps as the time allows."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.recipes import Recipe

_OVERHEAD = 60.0  # seconds of a run without training: start, films, compilation, validation
_RATE = re.compile(r'step (\d+)/\d+ .* (\d+) images/s')


class Training:
  """Trains recipes in folders below `folder`.

  Args:
    films: a folder with `train` and `val`, or None for phantoms.
    extras: a folder of further files, such as weights of feature networks.
    environment: variables of every run.
  """

  def __init__(
    self, folder: Path, *, films: Path | None, extras: Path, environment: dict[str, str]
  ):
    self.folder, self.films, self.extras = folder, films, extras
    self.environment = {**os.environ, **environment}

  def rate(self, name: str, recipe: Recipe, *, steps: int) -> float:
    """Returns the steps per second of a recipe, measured over the second half of a short run."""
    workdir = self.folder / 'rates' / name
    shutil.rmtree(workdir, ignore_errors=True)
    phantoms = [f'--config.data.phantom.{name}' for name in ('count=4', 'val_count=1', 'size=512')]
    log = f'--config.log={steps // 2}'
    _, text = self._main(
      workdir, recipe, steps, ['--config.data=phantom', *phantoms, log], seconds=150
    )
    found = _RATE.findall(text)
    if not found or int(found[-1][0]) != steps:
      raise RuntimeError(f'{name} did not finish {steps} steps: {text[-500:]}')
    (size,) = re.findall(r'--config\.batch_size=(\d+)', ' '.join(recipe.flags))[-1:]
    return int(found[-1][1]) / int(size)

  def run(
    self, name: str, recipe: Recipe, *, rate: float, seconds: float, most: int
  ) -> dict[str, Any]:
    """Trains until the steps that fit, at most `most`, are done, and packs the result.

    An interrupted run continues; its number of steps was stored when it started.
    """
    workdir = self.folder / name
    noted = self.folder / f'{name}.json'
    if noted.exists():
      steps = json.loads(noted.read_text())['steps']
    else:
      steps = min(most, max(4, int(rate * (seconds - _OVERHEAD) * 0.97)))
      noted.parent.mkdir(parents=True, exist_ok=True)
      noted.write_text(json.dumps({'steps': steps}))
    save = max(2, min(steps, int(rate * 60)))  # a minute from one checkpoint to the next
    began = time.perf_counter()
    every = [f'--config.save={save}', f'--config.eval={steps}']
    code, text = self._main(workdir, recipe, steps, every, seconds=seconds)
    result: dict[str, Any] = {
      'exit_code': code,
      'steps': steps,
      'seconds': time.perf_counter() - began,
      'log': text.splitlines()[-30:],
    }
    if code == 0 and recipe.package:
      result['package'] = self._package(name, workdir)
    if (workdir / 'metrics.csv').exists():
      with (workdir / 'metrics.csv').open() as file:
        result['metrics'] = list(csv.DictReader(file))
    return result

  def _package(self, name: str, workdir: Path) -> str:
    package = self.folder / 'packages' / name
    shutil.rmtree(package, ignore_errors=True)  # a part that a killed session left
    code = 'import sys; from jaxsr.cli import main; sys.exit(main())'
    command = [sys.executable, '-c', code, 'package', str(workdir), '--output', str(package)]
    subprocess.run(command, check=True, env=self.environment, capture_output=True, text=True)
    return str(package)

  def _main(
    self, workdir: Path, recipe: Recipe, steps: int, flags: list[str], *, seconds: float
  ) -> tuple[int, str]:
    """Runs `main.py`; asks it to save and stop when the time is up."""
    if self.films is not None:
      flags = [f'--config.data.{split}={self.films / split}' for split in ('train', 'val')] + flags
    else:
      flags = ['--config.data=phantom', *flags]
    own = [flag.format(extras=self.extras) for flag in recipe.flags]
    given = [f'--config={recipe.config}', f'--workdir={workdir}', *own, f'--config.steps={steps}']
    command = [sys.executable, 'main.py', *given, *flags]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    log = workdir.parent / f'{workdir.name}.log'
    with log.open('a') as file:
      process = subprocess.Popen(
        command, stdout=file, stderr=subprocess.STDOUT, env=self.environment
      )
      try:
        process.wait(timeout=seconds)
      except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
          process.wait(timeout=20)
        except subprocess.TimeoutExpired:
          process.kill()
          process.wait()
      except BaseException:
        process.kill()
        process.wait()
        raise
    return process.returncode, log.read_text()
