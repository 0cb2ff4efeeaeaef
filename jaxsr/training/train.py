"""Train a run: from its config to the loop, and what it exits with."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsr import config as configs
from jaxsr import files, sharding
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.config import Config, validate
from jaxsr.data import device_cache, pipeline, sources
from jaxsr.data.crops import Windows
from jaxsr.data.device_cache import CropIndex
from jaxsr.data.image_cache import Films
from jaxsr.data.teacher_cache import Labels
from jaxsr.evaluation.evaluator import Evaluator, min_size
from jaxsr.files import make_folder
from jaxsr.inference import model
from jaxsr.training import loop, preemption, run_log, teachers
from jaxsr.training.preemption import Preemption
from jaxsr.training.run_log import Log
from jaxsr.training.setup import Experiment, assemble
from jaxsr.training.state import State


def train(config: Config, folder: Path, *, allow_config_change: bool = False) -> int:
  """Train, or go on with, the run in `folder`; return the exit code.

  0: finished; 75: told to stop, and saved. Raises UserError for what the user can mend.
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
    run_dir.check_config(folder, configs.to_dict(config), allowed=allow_config_change)
  experiment = assemble(config, mesh)
  train_source = sources.training(config)
  val_source = sources.validation(config, minimum=min_size(config.scale))
  primary = jax.process_index() == 0
  if primary:
    run_log.report_sources(train_source, val_source, config.scale)
  if resumes:
    state = checkpoints.restore(experiment.shapes, repair=True)
  else:
    state = _begin(config, experiment)
  start = int(state.step)
  validated = run_dir.MetricsTable(folder, step=start).has(start)
  if start > config.steps or (start == config.steps and validated):
    print(f'{folder} is finished: step {start} of {config.steps}; raise config.steps to go on')
    return 0
  if primary:
    run_dir.write_config(folder, configs.to_dict(config))
    run_log.introduce(config, state, train_source, val_source, mesh)
  evaluator = Evaluator(
    experiment.network, val_source, scale=config.scale, perceptual=experiment.perceptual
  )
  log = Log(config, folder, start=start, primary=primary)
  labels = teachers.prepare_labels(config, experiment.teachers, train_source)
  batches = _batches(config, experiment, train_source, mesh, start=start, labels=labels)
  try:
    step = loop.run(config, experiment, state, batches, evaluator, checkpoints, log, stop)
    done = step == config.steps and log.table.has(step)
    if done:
      log.finish()
  finally:
    batches.close()
    log.close()
  if not done:
    name = stop.signal.name if stop.signal else 'another host'
    saved = ', saved' if step in checkpoints.steps() else ''
    print(f'stopped by {name} at step {step}{saved}; run the same command to go on', flush=True)
    return preemption.EXIT
  return 0


def _begin(config: Config, experiment: Experiment) -> State:
  """Make the first state, from another run's averaged parameters if so configured."""
  state = experiment.init()
  if not config.init_from:
    return state
  target = experiment.shapes.ema
  variables, step, cut = model.load_variables(config.init_from, experiment.network, target)
  if jax.process_index() == 0:
    note = f': cut to {cut}' if cut else ''
    print(f'starts from {config.init_from}, step {step}{note}', flush=True)
  generator = dataclasses.replace(state.generator, **jax.tree.map(jnp.copy, variables))
  return dataclasses.replace(state, generator=generator, ema=variables)


def _batches(
  config: Config,
  experiment: Experiment,
  source: sources.Source,
  mesh: Mesh,
  *,
  start: int,
  labels: Labels | None,
) -> Generator[dict[str, Any], None, None]:
  """Yield batches from `start` on, on the devices one ahead of their use."""
  data = config.data
  capacity = int(data.cache_gib * 2**30 / max(1, data.workers)) if data.cache == 'host' else 0
  films: Films | CropIndex = Films(source, scale=config.scale, capacity=capacity, labels=labels)
  if data.cache == 'device':
    films, experiment.frozen['films'] = device_cache.load(films, mesh)
  dataset = pipeline.batches(
    films,
    Windows(config.seed, data.patch, data.margin, data.by_error),
    batch_size=config.batch_size,
    edges=data.edges,
    process=jax.process_index(),
    processes=jax.process_count(),
  )
  stream = pipeline.iterate(dataset, start=start, threads=data.threads, workers=data.workers)
  ahead: deque[dict[str, Any]] = deque()
  try:
    for batch in stream:
      ahead.append(sharding.put(batch, mesh))
      if len(ahead) > 1:
        yield ahead.popleft()
  finally:
    stream.close()
