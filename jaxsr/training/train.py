"""Entry of training: from a config to the loop and the exit code."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxsr import files, runtime, sharding
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.config import Config, to_dict, validate
from jaxsr.data import fingerprint, pipeline, sources
from jaxsr.errors import FAILED
from jaxsr.evaluation.evaluator import Evaluator, min_size
from jaxsr.files import make_folder
from jaxsr.inference import stored
from jaxsr.training import event_file, loop, output, peers, preemption, run_log, teachers
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.preemption import Preemption
from jaxsr.training.run_log import Log
from jaxsr.training.setup import Experiment, assemble
from jaxsr.training.spikes import Spiked, SpikeMonitor
from jaxsr.training.state import State
from jaxsr.training.waiting import WaitQueue

MOST_ROLLBACKS = 3  # of a run; the next loss spike ends it


def train(
  config: Config, folder: Path, *, allow_config_change: bool = False, restart: bool = False
) -> int:
  """Train a run, or resume it.

  Args:
    config: A config as `jaxsr.config.base` makes it.
    folder: The folder of the run, which holds its checkpoints.
    allow_config_change: Resume although the config has changed.
    restart: Begin again, and keep the files of an earlier run in a folder `before_restart_N`.

  Returns:
    The exit code: 0 if the run is finished, 1 if it is but images could not be used, 75 if a signal
    stopped it after it was saved.

  Raises:
    Interruption: A worker was killed or a read never ended; the run is saved.
    UserError: Something that the user can correct.
  """
  validate.check(config)
  folder = files.absolute(folder)  # as Orbax has it, so that all files stay in one folder
  primary = jax.process_index() == 0
  unused = run_dir.removed_if_unused(folder, new=primary and not folder.exists())
  if primary:
    make_folder(folder)
    runtime.sweep_shared_memory()
  locked = files.locked(folder) if primary else contextlib.nullcontext(lambda: None)
  with (
    unused,
    output.lasting(),
    peers.watched(),
    preemption.handled() as stop,
    locked as check_lock,
  ):
    if restart and primary:
      run_dir.set_aside(folder)
    sharding.wait_for_all('restart')
    spikes = SpikeMonitor(run_dir.read_crop_psnr(folder))

    def record(step: int) -> None:
      run_dir.write_saved(folder, step, spikes.recent)
      run, data = checkpoints.run, dict(checkpoints.data)
      run_dir.write_config(folder, to_dict(config), run=run, data=data, step=step)

    checkpoints = Checkpoints(folder / run_dir.CHECKPOINTS, before=check_lock, after=record)
    while True:
      try:
        return _train(
          config,
          folder,
          stop,
          checkpoints,
          spikes,
          check_lock,
          allow_config_change=allow_config_change,
        )
      except Spiked as spike:
        check_lock()
        _roll_back(config, folder, checkpoints, spike)
        spikes.reset()
      except FileNotFoundError:
        check_lock()  # the folder itself may be gone
        raise


def _roll_back(config: Config, folder: Path, checkpoints: Checkpoints, spike: Spiked) -> None:
  """Go back to the last checkpoint from before a spike; raises the spike if there is none."""
  good = max((step for step in checkpoints.steps() if step <= spike.good), default=0)
  done = len(run_dir.rollbacks(folder))
  if config.on_spike != 'rollback' or not good or done == MOST_ROLLBACKS:
    raise spike
  sharding.wait_for_all('spike')
  if jax.process_index() == 0:
    run_dir.add_rollback(folder, spiked=spike.step, back_to=good)
    checkpoints.discard_after(good)
    run_dir.write_saved(folder, good)
    print(f'going back to step {good}, with another order of the images', flush=True)
  sharding.wait_for_all('rollback')


def _train(
  config: Config,
  folder: Path,
  stop: Preemption,
  checkpoints: Checkpoints,
  spikes: SpikeMonitor,
  check_lock: Callable[[], None],
  *,
  allow_config_change: bool,
) -> int:
  mesh = sharding.make_mesh(config.devices)
  sharding.check_batch(config.batch_size, mesh)
  resumes = checkpoints.exists()
  if resumes:
    run_dir.check_config(folder, to_dict(config), allowed=allow_config_change)
  else:
    run_dir.check_not_lost(folder, curves=lambda: event_file.last_step(folder))
  checkpoints.config = to_dict(config)
  checkpoints.run = run_dir.find_id(folder, checkpoints.newest_record())
  primary = jax.process_index() == 0
  if primary and checkpoints.folder.exists():
    make_folder(checkpoints.folder)  # a disk that is read-only shows now and not at the first save
  experiment = assemble(config, mesh)
  train_source = sources.training(config)
  val_source = sources.validation(config, minimum=min_size(config.scale))
  if primary:
    run_log.report_sources(train_source, val_source, config.scale)
  data = {'train': fingerprint.of(train_source), 'val': fingerprint.of(val_source)}
  if resumes:
    if primary:
      run_dir.check_newest(folder, max(checkpoints.steps(), default=0))
    state = checkpoints.restore(experiment.shapes, repair=True)
    run_dir.check_data(folder, checkpoints.trained_on(), data, allowed=allow_config_change)
  else:
    state = _init(config, experiment)
  checkpoints.data = data
  start = int(state.step)
  validated = run_dir.MetricsTable(folder, step=start).has(start)
  if start > config.steps or (start == config.steps and validated):
    print(f'{folder} is finished: step {start} of {config.steps}; raise config.steps to continue')
    return 0
  if primary:
    check_lock()  # images may have been read for minutes
    run_dir.write_config(folder, to_dict(config), run=checkpoints.run, data=data, step=start)
    run_log.introduce(config, state, train_source, val_source, mesh)
  labels = teachers.prepare_labels(config, experiment.teachers, train_source)
  loader = pipeline.make_loader(
    config, train_source, mesh, labels=labels, order=len(run_dir.rollbacks(folder))
  )
  log = Log(config, folder, start=start, primary=primary, spikes=spikes, before=check_lock)
  run = loop.Run(
    config=config,
    steps=CompiledSteps(experiment, loader),
    evaluator=Evaluator(
      experiment.network, val_source, scale=config.scale, perceptual=experiment.perceptual
    ),
    checkpoints=checkpoints,
    log=log,
    stop=stop,
    names=loader.names,
  )
  batches = WaitQueue(loader.batches(start), timeout=config.data.timeout, reading=loader.reading)
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
  variables, step, cut = stored.load_variables(config.init_from, experiment.network, target)
  if jax.process_index() == 0:
    note = f': cut to {cut}' if cut else ''
    print(f'initialized from {config.init_from}, step {step}{note}', flush=True)
  generator = dataclasses.replace(state.generator, **jax.tree.map(jnp.copy, variables))
  return dataclasses.replace(state, generator=generator, ema=variables)
