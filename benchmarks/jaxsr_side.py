"""This implementation's side of a comparison: the training step of `jaxsr train`, and prediction.

The step includes everything that a run adds: conversion from integers, clipped gradients, the
moving average, the check that all values are finite, and the scalars to log.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import (
  ADVERSARIAL,
  ALL_CASES,
  FOLDED,
  LEARNING_RATE,
  Side,
  make_batch,
  make_images,
)
from jaxsr import analysis, runtime, sharding
from jaxsr import config as configs
from jaxsr.config import Config
from jaxsr.inference import upscale
from jaxsr.inference.predict import make_predict
from jaxsr.models import span
from jaxsr.training import loop, setup

LOCK = 'JAXSR_BENCHMARK_COMPILE_LOCK'  # lock file; processes that share it compile in turn


def train(name: str, batch: int, precision: str, repeat: int = 1) -> tuple[Side, list[Any]]:
  """Build a training step; returns it and its initial variables.

  A run takes `repeat` steps and waits once, like a loop that logs every few steps.
  """
  config = _config(name, precision)
  case = ALL_CASES[name]
  config.batch_size = batch or case.batch
  config.optimizer.update(learning_rate=LEARNING_RATE, warmup=0)
  config.loss.update(l1=1.0, adversarial=ADVERSARIAL if case.adversarial else 0.0)
  config.data.update(patch=case.patch, margin=0)
  mesh = sharding.make_mesh()
  built = setup.assemble(config, mesh)
  state, data = built.init(), sharding.put(make_batch(case, batch), mesh)
  trained = (state.generator, state.discriminator)
  variables = jax.device_get([one.variables if one else None for one in trained])
  begun = time.perf_counter()
  steps = loop.CompiledSteps(built)
  step, arrays = steps.program(built.plan.at(0)), steps.arrays
  work = lambda: analysis.count(step, built.shapes, data, *arrays)  # noqa: E731
  with _compiling_alone():
    program = step.lower(state, data, *arrays).compile()
  seconds = time.perf_counter() - begun
  state, scalars = program(state, data, *arrays)
  outcome = {'loss': float(scalars['term/l1']), 'grad_norm': float(scalars['grad_norm'])}

  def run(batch: Any = data) -> None:
    nonlocal state
    for _ in range(repeat):
      state, scalars = program(state, batch, *arrays)
    jax.block_until_ready(scalars['loss'])

  return Side(run, outcome, seconds, _bytes(program), work), variables


def infer(
  name: str, batch: int, precision: str, repeat: int = 1, side: int = 256
) -> tuple[Side, list[Any]]:
  """Build the upscaling of images of 256x256; returns it and its variables.

  On CPUs, images are processed one by one with rows sharded over cores, as in `jaxsr upscale`.
  """
  runtime.use_cpu_devices()
  network: Any = configs.build_network(_config(name, precision))
  make = lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)  # noqa: E731
  variables = {k: v for k, v in jax.jit(make)().items() if k != 'features'}
  if (ALL_CASES[name].network or name) in FOLDED:
    network, variables = network.clone(folded=True), {'params': span.fold(variables['params'])}
  begun = time.perf_counter()
  images = make_images(batch, side)
  groups = np.split(images, len(images) if jax.default_backend() == 'cpu' else 1)
  mesh = sharding.make_rows(
    jax.devices()[: upscale.partitions(images.shape[1], jax.device_count())]
  )
  variables = jax.device_put(variables, sharding.replicated(mesh))
  groups = [jax.device_put(group, sharding.by_rows(mesh)) for group in groups]
  predict = jax.jit(make_predict(network))
  with jax.set_mesh(mesh), _compiling_alone():
    program = predict.lower(variables, groups[0]).compile()
  seconds = time.perf_counter() - begun

  def run() -> list[Any]:
    for _ in range(repeat):
      outputs = [program(variables, group) for group in groups]
    return jax.block_until_ready(outputs)

  outcome = {'image': np.concatenate(run())}
  work = lambda: analysis.count(predict, variables, images)  # noqa: E731
  return Side(run, outcome, seconds, _bytes(program), work), [jax.device_get(variables)]


@contextlib.contextmanager
def _compiling_alone() -> Iterator[None]:
  """Hold the lock file `LOCK`, if it is set, since XLA times candidates during compilation."""
  if LOCK not in os.environ:
    yield
    return
  with open(os.environ[LOCK], 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _config(name: str, precision: str) -> Config:
  case = ALL_CASES[name]
  config = configs.base()
  config.model = configs.network(case.network or name, **case.options)
  config.precision = precision
  return configs.finish(config, None)


def _bytes(program: Any) -> int:
  memory = program.memory_analysis()
  return memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
