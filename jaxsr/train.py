"""The loop, and nothing else: evaluate, save, batch, step, log."""

import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxsr import config as configs
from jaxsr import pictures, preemption, sharding, workdir
from jaxsr.checkpoint import Checkpoints
from jaxsr.config import Config
from jaxsr.data import pipeline, sources
from jaxsr.data.films import Films
from jaxsr.data.images import ImageError
from jaxsr.errors import UserError, brief
from jaxsr.evaluate import Evaluator, Row, summarise
from jaxsr.models import count_parameters
from jaxsr.state import State, init
from jaxsr.step import make_objective, make_optimizer, make_train_step
from jaxsr.summary import Summary

AHEAD = 2  # steps that are queued on the device; more would only delay a stop


class Diverged(UserError):
  """Says that the loss stays not finite."""


def train(config: Config, folder: Path, *, allow_config_change: bool = False) -> int:
  """Train, or go on with, the run in `folder`; return the exit code.

  0: finished; 75: told to stop, and saved. Raises UserError for what the user can mend.
  """
  configs.check(config)
  if jax.process_index() != 0:
    return _train(config, folder, allow_config_change=allow_config_change)
  workdir.create(folder)
  with workdir.locked(folder):
    return _train(config, folder, allow_config_change=allow_config_change)


def _train(config: Config, folder: Path, *, allow_config_change: bool) -> int:
  mesh = sharding.make_mesh(config.devices)
  sharding.check_batch(config.batch_size, mesh)
  checkpoints = Checkpoints(folder / 'checkpoints')
  _check_config(config, folder, checkpoints.started(), allowed=allow_config_change)
  train_source, val_source = sources.training(config), sources.validation(config)
  _report(train_source, val_source, config.scale)
  run = assemble(config, mesh)
  state = _restore(run, checkpoints, mesh)
  start = int(state.step)
  if start >= config.steps:
    print(f'{folder} is finished: step {start} of {config.steps}; raise config.steps to go on')
    return 0
  if jax.process_index() == 0:
    workdir.write_config(folder, configs.to_dict(config))
  parameters = count_parameters({'params': state.ema})
  print(
    f'{config.model.name}: {parameters:,} parameters; {len(train_source)} images to train on, '
    f'{len(val_source)} to validate; {mesh.size} x {mesh.devices.flat[0].device_kind}'
    + (f'; resumed at step {start}' if start else ''),
    flush=True,
  )
  evaluator = Evaluator(run.network, val_source, scale=config.scale)
  films = _films(config, train_source)
  with preemption.handled() as stop:
    return _loop(config, folder, run, state, mesh, films, evaluator, checkpoints, stop)


class Run(NamedTuple):
  """The functions that a config describes."""

  network: Any
  init: Any  # () -> State, jitted
  step: Any  # (State, batch) -> (State, scalars), jitted
  shapes: State  # with shardings


def assemble(config: Config, mesh: jax.sharding.Mesh) -> Run:
  """Build the network and its jitted, sharded, donated step."""
  network = configs.build_network(config)
  tx, schedule = make_optimizer(steps=config.steps, **config.optimizer)
  objective = make_objective(dict(config.loss))
  step = make_train_step(network, objective, tx, schedule, config.ema)
  everywhere = sharding.replicated(mesh)
  side = config.data.patch + 2 * config.data.margin

  def make() -> State:
    lr = jnp.zeros((1, side, side, config.channels))
    return init(network, tx, jax.random.key(config.seed), lr)

  shapes = jax.eval_shape(make)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes
  )
  if not jax.tree.leaves(shapes.ema):
    raise UserError(f'network {config.model.name!r} has nothing to train; evaluate it instead')
  jitted = jax.jit(
    step,
    in_shardings=(everywhere, sharding.split(mesh)),
    out_shardings=everywhere,
    donate_argnums=0,
  )
  return Run(network, jax.jit(make, out_shardings=everywhere), jitted, shapes)


def _check_config(config: Config, folder: Path, started: bool, *, allowed: bool) -> None:
  """Compare with what the run was started with, and its surroundings."""
  saved = workdir.read_config(folder)
  if saved is None or not started:
    return
  for line in configs.check_change(saved['config'], configs.to_dict(config), allowed=allowed):
    print(f'note: {line}')
  here = workdir.environment()
  for name, (was, now) in configs.differences(saved['environment'], here).items():
    print(f'note: {name} was {was}, is now {now}: the result will not be the same bit for bit')


def _report(train_source: sources.Source, val_source: sources.Source, scale: int) -> None:
  """Say what was left out or cut, and what validation shares with training."""
  for name, source in (('training', train_source), ('validation', val_source)):
    if source.rejected:
      total = len(source.rejected) + len(source)
      print(f'left out of {name}: {len(source.rejected)} of {total} images', file=sys.stderr)
      for error in source.rejected[:10]:
        print(f'  {error}', file=sys.stderr)
    if uneven := sources.uneven(source, scale):
      print(f'{len(uneven)} images of {name} are cut to a multiple of {scale}: {brief(uneven)}')
  shared = sources.shared_patients(train_source.names, val_source.names)
  if shared:
    print(
      f'warning: {shared} of {len(val_source)} validation images show patients that are '
      'trained on; their figures flatter the network',
      file=sys.stderr,
    )


def _restore(run: Run, checkpoints: Checkpoints, mesh: jax.sharding.Mesh) -> State:
  if not checkpoints.started():
    return run.init()
  return checkpoints.restore(run.shapes, repair=jax.process_index() == 0)


def _films(config: Config, source: sources.Source) -> Films:
  shares = max(1, config.data.workers)
  capacity = int(config.data.cache_gib * 2**30 / shares)
  return Films(source, scale=config.scale, capacity=capacity)


def _loop(
  config: Config,
  folder: Path,
  run: Run,
  state: State,
  mesh: jax.sharding.Mesh,
  films: Films,
  evaluator: Evaluator,
  checkpoints: Checkpoints,
  stop: preemption.Preemption,
) -> int:
  start = saved = int(state.step)
  dataset = pipeline.batches(
    films,
    batch_size=config.batch_size,
    patch=config.data.patch,
    margin=config.data.margin,
    by_error=config.data.by_error,
    seed=config.seed,
    process=jax.process_index(),
    processes=jax.process_count(),
  )
  data = config.data
  stream = pipeline.iterate(dataset, start=start, threads=data.threads, workers=data.workers)
  batches = _ahead(stream, mesh)
  primary = jax.process_index() == 0
  log = _Log(config, folder, start=start) if primary else None
  pending: deque[dict[str, jax.Array]] = deque()
  history: list[dict[str, jax.Array]] = []
  waited = 0.0  # seconds in which the host stood still for lack of a batch
  try:
    for step in range(start, config.steps + 1):
      last = step == config.steps
      if primary and log and (step % config.eval == 0 or last) and not log.table.has(step):
        log.evaluate(step, evaluator, state)
      asked = stop.due(together=step % config.log == 0)
      if step > saved and (step % config.eval == 0 or step % config.save == 0 or last or asked):
        _check_finite(state, config)
        checkpoints.save(step, state, psnr=log.table.psnr(step) if log else None)
        saved = step
      if last or asked:
        break
      begun = time.perf_counter()
      batch = next(batches)
      waited += time.perf_counter() - begun
      state, scalars = run.step(state, batch)
      history.append(scalars)
      pending.append(scalars)
      if len(pending) > AHEAD:
        jax.block_until_ready(pending.popleft())
      if (step + 1) % config.log == 0:
        rows = jax.device_get(history)
        history.clear()
        if log:
          log.scalars(step + 1, rows, waited=waited)
        waited = 0.0
        _check_row(int(rows[-1]['skipped_in_row']), step + 1, config)
      elif log:
        log.tick()
    checkpoints.wait()
  finally:
    batches.close()
    if log:
      log.close()
  if asked and not last:
    name = stop.signal.name if stop.signal else 'another host'
    print(f'stopped by {name} at step {saved}, saved; run the same command to go on', flush=True)
    return preemption.EXIT
  if log:
    log.finish(folder)
  return 0


def _ahead(
  stream: Generator[pipeline.Raw, None, None], mesh: jax.sharding.Mesh
) -> Generator[dict, None, None]:
  """Send batches to the devices one ahead of their use."""
  queue: deque[dict] = deque()
  try:
    for batch in stream:
      queue.append(sharding.put(batch, mesh))
      if len(queue) > 1:
        yield queue.popleft()
  finally:
    stream.close()


def _check_row(in_row: int, step: int, config: Config) -> None:
  if in_row >= config.max_skipped:
    raise Diverged(
      f'the loss was not finite in the last {in_row} steps before step {step}; nothing of them '
      'was kept: lower config.optimizer.learning_rate, or look at the images'
    )


def _check_finite(state: State, config: Config) -> None:
  """Keep a state that has gone bad off the disk; the guard in the step should never let it."""
  _check_row(int(state.skipped_in_row), int(state.step), config)
  finite = all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.ema))
  if not finite:
    raise Diverged(f'the parameters at step {int(state.step)} are not finite; they were not saved')


class _Log:
  """Everything that a person reads: the progress bar, TensorBoard and metrics.csv."""

  def __init__(self, config: Config, folder: Path, *, start: int):
    self.table = workdir.Table(folder, step=start)
    self._config, self._summary = config, Summary(folder, step=start)
    self._bar = tqdm(
      initial=start,
      total=config.steps,
      unit='step',
      disable=not sys.stderr.isatty(),
      dynamic_ncols=True,
      smoothing=0.1,
    )
    self._started = self._since = time.perf_counter()
    self._start = self._step = start
    self._losses: list[float] = []
    self._rate = 0.0
    flat = configs.flatten(configs.to_dict(config))
    self._summary.hparams(flat, {'val/psnr': 0.0, 'val/ssim': 0.0, 'val/psnr_gain': 0.0})

  def tick(self) -> None:
    """Move the bar."""
    self._bar.update()

  def scalars(self, step: int, rows: Sequence[dict[str, np.ndarray]], *, waited: float) -> None:
    """Write one row of scalars: the means over the steps since the last one."""
    now = time.perf_counter()
    self._rate = (step - self._step) * self._config.batch_size / (now - self._since)
    waiting = waited / (now - self._since)
    self._since, self._step = now, step
    finite = [row for row in rows if np.isfinite(row['loss'])]
    values = {name: float(np.mean([row[name] for row in finite or rows])) for name in rows[0]}
    values |= {name: float(rows[-1][name]) for name in ('skipped', 'skipped_in_row')}
    self._losses += [float(row['loss']) for row in finite]
    values = {_tag(name): value for name, value in values.items()}
    speed = {'train/images_per_second': self._rate, 'train/waiting_for_data': waiting}
    self._summary.scalars(step, values | speed)
    text = f'loss {values["train/loss"]:.3g}  psnr {values["train/psnr"]:.2f}'
    text += f'  {self._rate:.0f} images/s'
    if values['train/skipped']:
      text += f'  skipped {values["train/skipped"]:.0f}'
    self._bar.set_postfix_str(text, refresh=False)
    self._bar.update()
    if self._bar.disable:
      print(f'step {step}/{self._config.steps}  {text}  {self._left(step)} left', flush=True)

  def _left(self, step: int) -> str:
    pace = (time.perf_counter() - self._started) / max(1, step - self._start)
    return tqdm.format_interval(pace * (self._config.steps - step))

  def evaluate(self, step: int, evaluator: Evaluator, state: State) -> None:
    """Validate the averaged parameters; write a row, scalars and strips."""
    begun = time.perf_counter()
    variables = jax.tree.map(
      lambda x: x.addressable_data(0),
      {'params': state.ema, 'batch_stats': state.generator.batch_stats},
    )
    rows, strips = _validate(evaluator, variables)
    summary = summarise(rows)
    loss = float(np.mean(self._losses)) if self._losses else float('nan')
    self._losses.clear()
    names = ('psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim', 'psnr_centre', 'bicubic_psnr_centre')
    row = {'step': step} | {name: round(summary[name], 6) for name in names}
    row |= {'loss': f'{loss:.6g}', 'images_per_second': round(self._rate, 2)}
    self.table.add(row)
    names = (*names, 'psnr_gain', 'psnr_gain_centre', 'psnr_pooled', 'psnr_uncropped')
    self._summary.scalars(step, {f'val/{name}': summary[name] for name in names})
    for example in strips:
      self._summary.image(step, f'val/{example.title}', pictures.strip(example))
    self._say(
      f'step {step}: PSNR {summary["psnr"]:.3f} dB (bicubic {summary["bicubic_psnr"]:.3f}, '
      f'{summary["psnr_gain"]:+.3f}), centre {summary["psnr_centre"]:.3f} '
      f'({summary["psnr_gain_centre"]:+.3f}), SSIM {summary["ssim"]:.4f} '
      f'({summary["bicubic_ssim"]:.4f}), {len(rows)} images'
    )
    self._since += time.perf_counter() - begun  # validation is no training time

  def _say(self, text: str) -> None:
    self._bar.write(text) if not self._bar.disable else print(text, flush=True)

  def finish(self, folder: Path) -> None:
    """Say how the run ended and what to do next."""
    last = self.table.last() or {}
    gain = float(last['psnr']) - float(last['bicubic_psnr'])
    verdict = f'{gain:+.2f} dB over bicubic' if gain > 0 else f'{gain:+.2f} dB: WORSE than bicubic'
    print(f'finished at step {last["step"]}: {float(last["psnr"]):.2f} dB, {verdict}')
    print(f'  curves:   tensorboard --logdir {folder}')
    print(f'  evaluate: jaxsr evaluate --checkpoint {folder} --data DIR --output DIR')
    print(f'  use:      jaxsr upscale IN.png --checkpoint {folder} --output OUT.png', flush=True)

  def close(self) -> None:
    """Close the bar and the event files."""
    self._bar.close()
    self._summary.close()


def _tag(name: str) -> str:
  return name if '/' in name else f'train/{name}'


def _validate(evaluator: Evaluator, variables: Any) -> tuple[list[Row], list[pictures.Example]]:
  rows, strips = [], []
  for result in evaluator.measure_all(variables):
    if isinstance(result, ImageError):
      print(f'left out of validation: {result}', file=sys.stderr, flush=True)
      continue
    rows.append(result[0])
    if len(strips) < 2:
      strips.append(result[1])
  if not rows:
    raise UserError('no validation image can be measured')
  return rows, strips
