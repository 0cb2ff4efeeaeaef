"""The training loop: validate, save, take a batch, step, log."""

import contextlib
import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import sharding
from jaxsr.checkpoint import CheckpointError, Checkpoints
from jaxsr.config import Config
from jaxsr.data import pipeline
from jaxsr.data.pipeline import Loader
from jaxsr.errors import ImageError, Interruption, UserError
from jaxsr.evaluation import plots
from jaxsr.evaluation.evaluator import Evaluator, Figures
from jaxsr.losses.schedule import Phase
from jaxsr.training.preemption import Preemption
from jaxsr.training.run_log import Log
from jaxsr.training.setup import Experiment
from jaxsr.training.spikes import Spiked
from jaxsr.training.state import Scalars, State
from jaxsr.training.step import make_train_step
from jaxsr.training.waiting import WaitQueue

AHEAD = 2  # steps that are queued on the device; more would only delay a stop


# Batches that were cropped on the host, from anywhere.
ON_HOST = Loader(lambda _: (yield from ()), pipeline.to_batch, {})


class Collapsed(UserError):
  """The discriminator has collapsed, and `config.adversarial.alarm.action` is 'stop'."""


class Diverged(UserError):
  """The loss is not finite for too many steps in a row."""


class CompiledSteps:
  """The compiled steps of a run, one program per phase."""

  def __init__(self, experiment: Experiment, loader: Loader = ON_HOST):
    """Prepare steps on the batches of a loader; nothing is compiled yet."""
    self.experiment = experiment
    self.arrays = experiment.frozen, loader.device_arrays
    self._to_batch = loader.to_batch
    self._programs: dict[Phase, Any] = {}
    self._compiling: dict[Phase, Future[Any]] = {}

  def program(self, phase: Phase) -> Any:
    """Returns the jitted step of a phase, a function of state, batch and the two `arrays`.

    The state is donated.
    """
    if phase not in self._programs:
      step, to_batch = make_train_step(self.experiment.components, phase), self._to_batch
      everywhere = sharding.replicated(self.experiment.mesh)
      split = sharding.split(self.experiment.mesh)
      self._programs[phase] = jax.jit(
        lambda state, batch, frozen, arrays: step(state, to_batch(batch, arrays), frozen),
        in_shardings=(everywhere, split, everywhere, everywhere),
        out_shardings=everywhere,
        donate_argnums=0,
      )
    return self._programs[phase]

  def prepare(self, number: int, batch: Any) -> Future[Any]:
    """Start to compile step `number` for such batches in a thread; its first call waits for it."""
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)  # noqa: E731
    batch, arrays = jax.tree.map(like, (batch, self.arrays))
    phase, shapes = self.experiment.plan.at(number), self.experiment.shapes
    pool = ThreadPoolExecutor(1)
    lower = self.program(phase).lower
    self._compiling[phase] = pool.submit(lambda: lower(shapes, batch, *arrays).compile())
    pool.shutdown(wait=False)
    return self._compiling[phase]

  def __call__(self, number: int, state: State, batch: Any) -> tuple[State, Scalars]:
    """Take step `number`, which must be that of the state; the state is donated."""
    phase = self.experiment.plan.at(number)
    if phase in self._compiling:
      self._compiling.pop(phase).result()
    return self.program(phase)(state, batch, *self.arrays)


class Run(NamedTuple):
  """The parts of a run that the loop uses."""

  config: Config
  steps: CompiledSteps
  evaluator: Evaluator
  checkpoints: Checkpoints
  log: Log
  stop: Preemption
  names: Callable[[int], list[str]]  # the images of a step


def train(run: Run, state: State, batches: WaitQueue) -> int:
  """Train until the last step or a request to stop; returns the step that was reached.

  If anything but the state itself ends the run, the state is saved first.
  """
  config, steps, _, checkpoints, log, stop, _ = run
  start = saved = int(state.step)
  skipped = int(state.skipped)
  queued: deque[dict[str, jax.Array]] = deque()
  history: list[dict[str, jax.Array]] = []
  alone = jax.process_count() == 1  # several hosts must take the same batches
  stopped = lambda: alone and stop.signal is not None  # noqa: E731
  try:
    begun = time.perf_counter()
    first = batches.next(stopped) if start < config.steps else None
    waited = time.perf_counter() - begun  # upper bound of the time that devices waited for a batch
    if first:
      steps.prepare(start, first)  # while validation runs
    for step in range(start, config.steps + 1):
      last = step == config.steps
      due = step % config.eval == 0 or last
      late = False  # whether the step was saved before without this validation
      if due and not log.table.has(step):
        warning = _validate(step, state, run, timeout=config.data.timeout)
        _check_spike(step, run, warning, good=log.table.before(step))
        state = _check_discriminator(step, state, run)
        late = step == start > 0 and log.table.has(step)
      asked = stop.due(together=step % config.log == 0)
      batch = None
      if not (last or asked):
        begun = time.perf_counter()
        batch = first or batches.next(stopped)
        first = None
        if all(s['skipped'].is_ready() for s in queued):  # type: ignore[attr-defined]
          waited += time.perf_counter() - begun
      ending = batch is None
      if late or (step > saved and (due or step % config.save == 0 or ending)):
        saved = _save(step, state, checkpoints, log, config, must=ending)
      if ending:
        break
      log.stage(step, steps.experiment.plan.at(step).terms)
      state, scalars = steps(step, state, batch)
      history.append(scalars)
      queued.append(scalars)
      if len(queued) > AHEAD:
        jax.block_until_ready(queued.popleft())
      if (step + 1) % config.log:
        log.tick()
        continue
      rows = jax.device_get(history)
      skipped = _report_skipped(step + 1 - len(rows), rows, skipped, run)
      warning = log.scalars(step + 1, rows, waited=waited)
      _check_spike(step + 1, run, warning, good=step + 1 - config.log)
      history.clear()
      waited = 0.0
      _check_row(int(rows[-1]['skipped_in_row']), step + 1, config)
  except BaseException as error:
    kept = _keep(error, state, run, saved)
    with contextlib.suppress(CheckpointError):  # the first error is the one to report
      checkpoints.wait()
    if isinstance(error, Interruption):
      raise type(error)(f'{error}; {kept}; run the same command to continue') from error
    raise
  checkpoints.wait()
  return step


def _keep(error: BaseException, state: State, run: Run, saved: int) -> str:
  """Save the state at hand when an error ends the run, unless the state or saving is at fault.

  Several hosts can only save together, so they keep the last checkpoint.
  """
  at_fault = isinstance(error, (Collapsed, Diverged, Spiked, CheckpointError))
  donated = any(x.is_deleted() for x in jax.tree.leaves(state))
  if not (at_fault or donated or jax.process_count() > 1):
    with contextlib.suppress(Exception):  # the first error is the one to report
      step = int(state.step)
      if step > saved:
        saved = _save(step, state, run.checkpoints, run.log, run.config, must=True)
        run.checkpoints.wait()
  return f'step {saved} is saved' if saved else 'nothing is saved yet'


def _report_skipped(
  first: int, rows: Sequence[dict[str, np.ndarray]], skipped: int, run: Run
) -> int:
  """Write the images of the steps that were skipped; returns how many steps ever were."""
  for step, row in enumerate(rows, start=first):
    if int(row['skipped']) > skipped:
      run.log.skipped(step, run.names(step))
    skipped = int(row['skipped'])
  return skipped


def _check_spike(step: int, run: Run, warning: str, *, good: int) -> None:
  """Print the warning of a loss spike; raises Spiked unless `config.on_spike` is 'warn'."""
  if not warning:
    return
  run.log.warn(step, warning)
  if run.config.on_spike != 'warn':
    raise Spiked(f'step {step}: {warning}', step=step, good=good)


def _validate(step: int, state: State, run: Run, *, timeout: float) -> str:
  """Measure the averaged parameters on full images; a signal to stop ends the validation.

  Returns a warning if a loss spike begins, else ''.
  """
  evaluator, log, stop = run.evaluator, run.log, run.stop
  begun = time.perf_counter()
  variables = jax.tree.map(lambda x: x.addressable_data(0), state.ema)
  rows: list[Figures] = []
  strips: list[plots.Example] = []
  failed: list[ImageError] = []
  names = evaluator.source.names
  results = WaitQueue(
    (result for result in evaluator.measure_all(variables)),
    timeout=timeout,
    reading=lambda: evaluator.reading(timeout),  # '' while it compiles, which may take minutes
  )
  for _ in names:
    result = results.next(lambda: stop.due(together=False))
    if result is None or stop.due(together=False):
      results.close()
      return ''
    if isinstance(result, ImageError):
      print(f'left out of validation: {result}', file=sys.stderr, flush=True)
      failed.append(result)
      continue
    rows.append(result[0])
    if len(strips) < 2:
      strips.append(result[1])
  if not rows:
    raise UserError(f'no validation image can be measured; first error: {failed[0]}')
  return log.validation(step, rows, strips, seconds=time.perf_counter() - begun)


def _check_discriminator(step: int, state: State, run: Run) -> State:
  """Check for a collapse of the discriminator; the count is in the state, so resuming is exact."""
  experiment, log = run.steps.experiment, run.log
  begin, monitor = experiment.plan.adversarial, experiment.monitor
  if begin is None or state.watch is None or step <= begin or not log.table.has(step):
    return state
  stats, text = monitor.check(state.watch)
  if text:
    log.warn(step, text)
  if text and monitor.action == 'stop':
    raise Collapsed(f'step {step}: {text}')
  stats = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), stats, state.watch)
  return dataclasses.replace(state, watch=stats)


def _save(
  step: int, state: State, checkpoints: Checkpoints, log: Log, config: Config, *, must: bool
) -> int:
  """Start to save, unless the last steps were skipped: older checkpoints would be dropped."""
  in_row = int(state.skipped_in_row)
  _check_row(in_row, step, config)
  if not _finite(state):
    raise Diverged(f'the state at step {step} is not finite; it was not saved')
  if must or not in_row:
    checkpoints.save(step, state, psnr=log.table.psnr(step))
  return step


def _finite(state: State) -> bool:
  """Whether all arrays are finite; one program for all of them would compile for minutes."""
  return all(jax.device_get([_all_finite(x) for x in jax.tree.leaves(state)]))


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
  return jnp.isfinite(x).all()


def _check_row(in_row: int, step: int, config: Config) -> None:
  if in_row >= config.max_skipped:
    raise Diverged(
      f'the loss was not finite in the last {in_row} steps before step {step}, which were skipped: '
      'check the images, or lower config.optimizer.learning_rate and pass --allow-config-change'
    )
