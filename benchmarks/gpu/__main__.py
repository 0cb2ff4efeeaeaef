"""Checks, timings and training on a GPU: python -m benchmarks.gpu --minutes 10 --output DIR.

The stages, in order: correctness (the tests marked `gpu`), speed compared with PyTorch, training
rates, training. Each stage writes a JSON file when it is done, and is skipped when the same command
runs again; training continues from its last checkpoint. `--dry-run` runs all stages on a CPU, at
toy size.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from benchmarks.gpu import recipes
from benchmarks.gpu.speed import Task
from benchmarks.gpu.training import Training

STAGES = ('correctness', 'speed', 'rates', 'training')
_TASKS = [
  *(Task('train', name, 20) for name in ('gpu_edsr', 'gpu_rdn', 'gpu_srresnet')),
  *(Task('train', f'gpu_{name}', 20) for name in ('swift_srgan', 'srgan', 'span')),
  *(Task('train', f'gpu_{name}', 20) for name in ('swinir', 'rrdb')),
  *(Task('infer', f'gpu_{name}', 20) for name in ('edsr', 'rdn', 'srresnet', 'swift_srgan')),
  *(Task('infer', f'gpu_{name}', 20) for name in ('span', 'swinir', 'rrdb')),
]
_TOY_TASKS = [Task('train', 'toy_edsr', 2), Task('infer', 'toy_rrdb', 2)]


class Session:
  """The stages of a session, their folder, and the time that is left."""

  def __init__(self, output: Path, minutes: float, films: Path | None, extras: Path, dry: bool):
    self.output, self.films, self.extras, self.dry = output, films, extras, dry
    self.deadline = time.monotonic() + 60 * minutes
    self.environment = {
      'JAX_COMPILATION_CACHE_DIR': str((output / 'compiled').absolute()),
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      'PYTHONUNBUFFERED': '1',
    }
    os.environ.update(self.environment)

  @property
  def left(self) -> float:
    """Returns the seconds until the end of the session."""
    return self.deadline - time.monotonic()

  def run(self, stages: tuple[str, ...], chosen: tuple[str, ...]) -> bool:
    """Runs stages that are not done; returns whether all succeeded."""
    known = recipes.TOY_RECIPES if self.dry else recipes.RECIPES
    self.recipes = {name: known[name] for name in chosen}
    good = True
    for name in stages:
      path = self.output / f'{name}.json'
      if path.exists():
        print(f'{name}: done before', flush=True)
        good &= not json.loads(path.read_text()).get('failed')
        continue
      began = time.monotonic()
      work: Callable[[], dict[str, Any]] = getattr(self, name)
      result = work()
      result['seconds'] = time.monotonic() - began
      good &= not result.get('failed')
      _write(path, result)
      print(f'{name}: {result["seconds"]:.0f} s, {self.left:.0f} s left', flush=True)
    return good

  def correctness(self) -> dict[str, Any]:
    """Runs the tests marked `gpu`, in parallel processes."""
    command = [
      sys.executable,
      '-m',
      'pytest',
      'tests/gpu',
      '-m',
      'gpu',
      '-p',
      'no:cacheprovider',
      '-p',
      'no:benchmark',
    ]
    command += ['-n', '2' if self.dry else '12', '--maxprocesses=12', '--durations=10', '-v']
    if self.dry:
      command += ['-k', 'fsrcnn or device_give']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu' if self.dry else 'cuda,cpu'}
    if not self.dry:  # many small programs, whose speed does not matter
      environment['XLA_FLAGS'] = '--xla_gpu_autotune_level=0'
    log = self.output / 'correctness.log'
    with log.open('w') as file:
      try:
        limit = min(150.0, max(1.0, self.left))
        code = subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=limit)
        failed = code.returncode != 0
      except subprocess.TimeoutExpired:
        failed = True
    text = log.read_text()
    print(text[-3000:], flush=True)
    counts = {word: int(n) for n, word in re.findall(r'(\d+) (passed|failed|skipped|error)', text)}
    return {'failed': failed, 'counts': counts}

  def speed(self) -> dict[str, Any]:
    """Times training steps and upscaling against PyTorch; rows are printed as they are measured."""
    from benchmarks.gpu import speed

    tasks, precision, side = (_TOY_TASKS, 'float32', 16) if self.dry else (_TASKS, 'bfloat16', 256)
    limit = min(170.0, self.left / 2)
    rows = []
    for row in speed.measure(tasks, precision=precision, seconds=limit, side=side):
      rows.append(row)
      print(speed.describe(row), flush=True)
    return {'rows': rows, 'precision': precision, 'failed': all('failed' in row for row in rows)}

  def _training(self) -> Training:
    return Training(
      self.output / 'runs', films=self.films, extras=self.extras, environment=self.environment
    )

  def rates(self) -> dict[str, Any]:
    """Measures the steps per second of each recipe."""
    steps = 4 if self.dry else 400
    found: dict[str, Any] = {}
    for name, recipe in self.recipes.items():
      try:
        found[name] = self._training().rate(name, recipe, steps=steps)
        print(f'{name}: {found[name]:.1f} steps/s', flush=True)
      except (RuntimeError, ValueError) as error:
        print(f'{name}: {error}', flush=True)
        found['failed'] = True
    return found

  def training(self) -> dict[str, Any]:
    """Trains the recipes in order, each for its share of the time; finished ones are skipped."""
    rates = json.loads((self.output / 'rates.json').read_text())
    results: dict[str, Any] = {}
    for number, (name, recipe) in enumerate(self.recipes.items()):
      path = self.output / f'trained_{name}.json'
      if path.exists():
        results[name] = json.loads(path.read_text())
        continue
      missing = [file for file in recipe.needs if not (self.extras / file).exists()]
      if missing or name not in rates:
        reason = f'{missing[0]} did not travel' if missing else 'its rate is unknown'
        results[name] = {'left_out': reason}
        continue
      shares = [other.share for other in list(self.recipes.values())[number:]]
      seconds = (self.left - 10) * recipe.share / sum(shares)
      most = 20 if self.dry else 10**9
      training = self._training()
      result = training.run(name, recipe, rate=rates[name], seconds=seconds, most=most)
      results[name] = result
      if result['exit_code'] == 0:
        _write(path, result)
      print(f'{name}: {result["steps"]} steps, exit code {result["exit_code"]}', flush=True)
    bad = [name for name, result in results.items() if result.get('exit_code', 0) != 0]
    return {'results': results, 'failed': bad}


def _write(path: Path, result: dict[str, Any]) -> None:
  temporary = path.with_suffix('.part')
  temporary.write_text(json.dumps(result, indent=2) + '\n')
  temporary.replace(path)


def bundle(output: Path, target: Path, *, limit: int = 15 * 2**20) -> None:
  """Copies the results to `target`: a tar of small files, each package, the compilation cache.

  Files above `limit` bytes are split.
  """
  target.mkdir(parents=True, exist_ok=True)
  small = [p for p in output.glob('*') if p.is_file()]
  runs = output / 'runs'
  small += [*runs.glob('*.log'), *runs.glob('*.json'), *runs.glob('*/metrics.csv')]
  small += [*runs.glob('*/events.*')]
  with tarfile.open(target / 'results.tar.gz', 'w:gz') as tar:
    for path in small:
      tar.add(path, path.relative_to(output))
  for package in sorted(runs.glob('packages/*')):
    with tarfile.open(target / f'{package.name}.tar', 'w') as tar:
      tar.add(package, package.name)
  cache = output / 'compiled'
  if cache.exists() and len(list(target.iterdir())) < 7:
    with tarfile.open(target / 'compiled.tar.gz', 'w:gz') as tar:
      total = 0
      for path in sorted(cache.iterdir(), key=lambda path: path.stat().st_size):
        total += path.stat().st_size
        if path.is_file() and total < 2 * limit:
          tar.add(path, path.name)
    if (target / 'compiled.tar.gz').stat().st_size > limit:
      (target / 'compiled.tar.gz').unlink()


def main(
  output: Path,
  minutes: float = 10,
  dry_run: bool = False,
  films: Path | None = None,
  extras: Path = Path('extras'),
  recipe: tuple[str, ...] = recipes.DEFAULT,
  stages: tuple[str, ...] = STAGES,
  bundle_to: Path | None = None,
) -> None:
  """Run the stages that are not done yet, until the time is used up.

  Args:
    output: the folder of the session; the same one resumes it.
    minutes: the time for everything.
    dry_run: run all stages at toy size, also on a CPU.
    films: a folder with `train` and `val`, as `benchmarks.gpu.pack` unpacks them; without it,
      phantoms are trained on.
    extras: a folder with further files that recipes need.
    recipe: the recipes to train, in this order.
    stages: the stages to run.
    bundle_to: a folder for copies of the results, in few files of at most 16 MB.
  """
  if unknown := sorted({*stages} - {*STAGES}):
    sys.exit(f'error: --stages {unknown[0]}: choose one of: {", ".join(STAGES)}')
  known = recipes.TOY_RECIPES if dry_run else recipes.RECIPES
  if unknown := sorted({*recipe} - {*known}):
    sys.exit(f'error: --recipe {unknown[0]}: choose one of: {", ".join(known)}')
  output.mkdir(parents=True, exist_ok=True)
  session = Session(output, minutes, films, extras, dry_run)
  if not (output / 'machine.json').exists():
    _write(output / 'machine.json', _describe())
  try:
    good = session.run(stages, recipe)
  finally:
    if bundle_to is not None:
      bundle(output, bundle_to)
  sys.exit(0 if good else 1)


def _describe() -> dict[str, Any]:
  """Describes the machine, in a process that does not keep the GPU."""
  code = 'import json; from benchmarks.__main__ import describe_machine as describe; '
  code += 'print(json.dumps(describe()))'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


if __name__ == '__main__':
  tyro.cli(main)
