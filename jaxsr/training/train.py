"""Entry of training: from a config to the loop and the exit code."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxsr import files, sharding
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.config import Config, to_dict, validate
from jaxsr.data import pipeline, sources
from jaxsr.errors import FAILED
from jaxsr.evaluation.evaluator import Evaluator, min_size
from jaxsr.files import make_folder
from jaxsr.inference import model
from jaxsr.training import loop, preemption, run_log, teachers
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.preemption import Preemption
from jaxsr.training.run_log import Log
from jaxsr.training.setup import Experiment, assemble
from jaxsr.training.state import State


def train(config: Config, folder: Path, *, allow_config_change: bool = False) -> int:
  """Train a run, or resume it.

  Args:
    config: A config as `jaxsr.config.base` makes it.
    folder: The folder of the run, which holds its checkpoints.
    allow_config_change: Resume although the config has changed.

  Returns:
    The exit code: 0 if the run is finished, 1 if it is but images could not be used, 75 if a signal
    stopped it after it was saved.

  Raises:
    UserError: Something that the user can correct.
  """
  validate.check(config)
  primary = jax.process_index() == 0
  if primary:
    make_folder(folder)
  lock = files.locked(folder) if primary else contextlib.nullcontext()
  with preemption.handled() as stop, lock:
    return _train(config, folder, stop, allow_config_change=allow_config_change)


def _train(config: Config, folder: Path, stop: Preemption, *, allow_config_change: bool) -> int:
  mesh = sharding.make_mesh(config.devices)
  sharding.check_batch(config.batch_size, mesh)
  checkpoints = Checkpoints(folder / 'checkpoints')
  resumes = checkpoints.exists()
  if resumes:
    run_dir.check_config(folder, to_dict(config), allowed=allow_config_change)
  experiment = assemble(config, mesh)
  train_source = sources.training(config)
  val_source = sources.validation(config, minimum=min_size(config.scale))
  primary = jax.process_index() == 0
  if primary:
    run_log.report_sources(train_source, val_source, config.scale)
  if resumes:
    state = checkpoints.restore(experiment.shapes, repair=True)
  else:
    state = _init(config, experiment)
  start = int(state.step)
  validated = run_dir.MetricsTable(folder, step=start).has(start)
  if start > config.steps or (start == config.steps and validated):
    print(f'{folder} is finished: step {start} of {config.steps}; raise config.steps to continue')
    return 0
  if primary:
    run_dir.write_config(folder, to_dict(config))
    run_log.introduce(config, state, train_source, val_source, mesh)
  labels = teachers.prepare_labels(config, experiment.teachers, train_source)
  loader = pipeline.make_loader(config, train_source, mesh, labels=labels)
  log = Log(config, folder, start=start, primary=primary)
  run = loop.Run(
    config=config,
    steps=CompiledSteps(experiment, loader),
    evaluator=Evaluator(
      experiment.network, val_source, scale=config.scale, perceptual=experiment.perceptual
    ),
    checkpoints=checkpoints,
    log=log,
    stop=stop,
  )
  batches = loader.batches(start)
  try:
    step = loop.train(run, state, batches)
    done = step == config.steps and log.table.has(step)
    if done:
      log.finish()
  finally:
    batches.close()
    log.close()
  if not done:
    name = stop.signal.name if stop.signal else 'another host'
    saved = ', saved' if step in checkpoints.steps() else ''
    print(f'stopped by {name} at step {step}{saved}; run the same command to continue', flush=True)
    return preemption.EXIT
  return FAILED if train_source.rejected or val_source.rejected else 0


def _init(config: Config, experiment: Experiment) -> State:
  """Initialize the state, from the averaged parameters of `config.init_from` if it is set."""
  state = experiment.init()
  if not config.init_from:
    return state
  target = experiment.shapes.ema
  variables, step, cut = model.load_variables(config.init_from, experiment.network, target)
  if jax.process_index() == 0:
    note = f': cut to {cut}' if cut else ''
    print(f'initialized from {config.init_from}, step {step}{note}', flush=True)
  generator = dataclasses.replace(state.generator, **jax.tree.map(jnp.copy, variables))
  return dataclasses.replace(state, generator=generator, ema=variables)
