"""The loop, and nothing else: evaluate, save, batch, step, log."""

import contextlib
import dataclasses
import sys
import time
from collections import deque
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp

from jaxsr.checkpoint import CheckpointError, Checkpoints
from jaxsr.config import Config
from jaxsr.errors import ImageError, UserError
from jaxsr.evaluation import plots
from jaxsr.evaluation.evaluator import Evaluator, Figures
from jaxsr.training.preemption import Preemption
from jaxsr.training.run_log import Log
from jaxsr.training.setup import Experiment
from jaxsr.training.state import State

AHEAD = 2  # steps that are queued on the device; more would only delay a stop


class Collapsed(UserError):
  """Says that the discriminator has collapsed, where the config asks to stop then."""


class Diverged(UserError):
  """Says that the loss stays not finite."""


def run(
  config: Config,
  experiment: Experiment,
  state: State,
  batches: Generator[dict[str, Any], None, None],
  evaluator: Evaluator,
  checkpoints: Checkpoints,
  log: Log,
  stop: Preemption,
) -> int:
  """Run until the last step or until told to stop; return the step that was reached and saved."""
  start = saved = int(state.step)
  queued: deque[dict[str, jax.Array]] = deque()
  history: list[dict[str, jax.Array]] = []
  begun = time.perf_counter()
  first = _next(batches, stop) if start < config.steps else None
  waited = time.perf_counter() - begun  # at most, that devices stood still for lack of a batch
  if first:
    experiment.prepare(start, first)  # while validation runs
  try:
    for step in range(start, config.steps + 1):
      last = step == config.steps
      due = step % config.eval == 0 or last
      made_up = False  # for a validation that the step was saved without
      if due and not log.table.has(step):
        _validate(step, state, evaluator, log, stop)
        state = _look(step, state, experiment, log)
        made_up = step == start > 0 and log.table.has(step)
      asked = stop.due(together=step % config.log == 0)
      batch = None
      if not (last or asked):
        begun = time.perf_counter()
        batch = first or _next(batches, stop)
        first = None
        if all(s['skipped'].is_ready() for s in queued):  # type: ignore[attr-defined]
          waited += time.perf_counter() - begun
      ending = batch is None
      if made_up or (step > saved and (due or step % config.save == 0 or ending)):
        saved = _save(step, state, checkpoints, log, config, must=ending)
      if ending:
        break
      log.stage(step, experiment.plan.at(step).terms)
      state, scalars = experiment.step(step, state, batch)
      history.append(scalars)
      queued.append(scalars)
      if len(queued) > AHEAD:
        jax.block_until_ready(queued.popleft())
      if (step + 1) % config.log:
        log.tick()
        continue
      rows = jax.device_get(history)
      log.scalars(step + 1, rows, waited=waited)
      history.clear()
      waited = 0.0
      _check_row(int(rows[-1]['skipped_in_row']), step + 1, config)
  except BaseException:
    with contextlib.suppress(CheckpointError):  # the first error is the one to tell
      checkpoints.wait()
    raise
  checkpoints.wait()
  return step


def _next(batches: Generator[dict[str, Any], None, None], stop: Preemption) -> dict | None:
  """Take the next batch; None if the workers were told to stop, as a whole job may be."""
  try:
    return next(batches)
  except (RuntimeError, StopIteration):
    if stop.signal is None:
      raise
    return None


def _validate(step: int, state: State, evaluator: Evaluator, log: Log, stop: Preemption) -> None:
  """Measure the averaged parameters on whole images; a run that is told to stop does not."""
  begun = time.perf_counter()
  variables = jax.tree.map(lambda x: x.addressable_data(0), state.ema)
  rows: list[Figures] = []
  strips: list[plots.Example] = []
  failed: list[ImageError] = []
  for result in evaluator.measure_all(variables):
    if stop.due(together=False):
      return
    if isinstance(result, ImageError):
      print(f'left out of validation: {result}', file=sys.stderr, flush=True)
      failed.append(result)
      continue
    rows.append(result[0])
    if len(strips) < 2:
      strips.append(result[1])
  if not rows:
    raise UserError(f'no validation image can be measured: {failed[0]}')
  log.validation(step, rows, strips, seconds=time.perf_counter() - begun)


def _look(step: int, state: State, experiment: Experiment, log: Log) -> State:
  """Ask whether the discriminator has collapsed; the state remembers, so that resuming is exact."""
  begin = experiment.plan.adversarial
  if begin is None or state.watch is None or step <= begin or not log.table.has(step):
    return state
  watch, text = experiment.alarm.check(state.watch)
  if text:
    log.warn(step, text)
  if text and experiment.alarm.action == 'stop':
    raise Collapsed(f'step {step}: {text}')
  watch = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), watch, state.watch)
  return dataclasses.replace(state, watch=watch)


def _save(
  step: int, state: State, checkpoints: Checkpoints, log: Log, config: Config, *, must: bool
) -> int:
  """Begin to save, unless the latest steps went wrong and better ones would be dropped for them."""
  in_row = int(state.skipped_in_row)
  _check_row(in_row, step, config)
  if not _finite(state):
    raise Diverged(f'the state at step {step} is not finite; it was not saved')
  if must or not in_row:
    checkpoints.save(step, state, psnr=log.table.psnr(step))
  return step


def _finite(state: State) -> bool:
  """Look at every array; one program for each shape, as one for all would compile for minutes."""
  return all(jax.device_get([_all_finite(x) for x in jax.tree.leaves(state)]))


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
  return jnp.isfinite(x).all()


def _check_row(in_row: int, step: int, config: Config) -> None:
  if in_row >= config.max_skipped:
    raise Diverged(
      f'the loss was not finite in the last {in_row} steps before step {step}, and nothing of '
      'them was kept: look at the images, or lower config.optimizer.learning_rate and pass '
      '--allow_config_change'
    )
