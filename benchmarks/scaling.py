"""Scaling of costs: python -m benchmarks.scaling --json FILE.

Measures a training step by batch and by crop size; one and many steps per dispatch; one batch over
1, 2, 4 and 8 devices (virtual devices on a CPU, which only show the overhead of sharding and
reduction); the memory of upscaling by image size; and estimates a pod's efficiency from the bytes
of the gradients and the time of a step.
"""

import json as text
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxsr import config as configs
from jaxsr import runtime, sharding
from jaxsr.config import Config
from jaxsr.inference.predict import make_predict
from jaxsr.training import loop, setup

SCALE = 4
What = Literal['batch', 'patch', 'dispatch', 'devices', 'memory', 'pod']
OPTIONS = {'features': 64, 'blocks': 8, 'upsampler': 'direct', 'bicubic_skip': True}


def main(
  what: tuple[What, ...] = ('batch', 'patch', 'dispatch', 'devices', 'memory', 'pod'),
  json: Path | None = None,
  runs: int = 5,
  links: float = 45.0,
) -> None:
  """Measure EDSR of 8 blocks of 64 features; `links` are GB/s each way, by default TPU v5e's."""
  found: dict[str, list[dict[str, Any]]] = {}
  for name in what:
    rows = {
      'batch': lambda: [_step(batch=n, patch=24, runs=runs) for n in (1, 2, 4, 8, 16, 32)],
      'patch': lambda: [_step(batch=4, patch=n, runs=runs) for n in (12, 24, 48, 96)],
      'dispatch': lambda: [_dispatch(n, runs) for n in (0, 1, 4, 16)],
      'devices': lambda: [_apart(n, runs) for n in (1, 2, 4, 8)],
      'memory': lambda: [_memory(n, runs) for n in (256, 512, 1024, 2048, 4096)],
      'pod': lambda: _pod(runs, links),
    }[name]()
    found[name] = rows
    print(f'{name}\n{_table(rows)}', flush=True)
  if json:
    machine = f'{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores'
    json.write_text(text.dumps({'machine': machine, 'jax': jax.__version__} | found, indent=2))


def _config(batch: int, patch: int) -> Config:
  config = configs.base()
  config.model = configs.network('edsr', **OPTIONS)
  config.loss.l1 = 1.0
  config.batch_size = batch
  config.data.update(patch=patch, margin=0)
  return configs.finish(config, None)


def _batch(batch: int, patch: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  hr = rng.integers(0, 256, (batch, SCALE * patch, SCALE * patch, 1), np.uint8)
  lr = rng.integers(0, 256, (batch, patch, patch, 1), np.uint8)
  return {'lr': lr, 'hr': hr, 'mask': np.ones_like(hr)}


def _time(run: Callable[[], Any], runs: int) -> float:
  """Returns the median seconds of a few runs after one that is not counted."""
  run()
  seconds = []
  for _ in range(runs):
    begun = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - begun)
  return statistics.median(seconds)


def _step(*, batch: int, patch: int, runs: int, devices: int = 1) -> dict[str, Any]:
  mesh = sharding.make_mesh(devices)
  built = setup.assemble(_config(batch, patch), mesh)
  data = sharding.put(_batch(batch, patch), mesh)
  state = built.init()
  steps = loop.CompiledSteps(built)
  arrays = steps.arrays
  program = steps.program(built.plan.at(0)).lower(state, data, *arrays).compile()
  losses = []

  def run() -> None:
    nonlocal state
    state, scalars = program(state, data, *arrays)
    losses.append(float(scalars['loss']))

  seconds = _time(run, runs)
  return {
    'batch': batch,
    'patch': patch,
    'ms a step': 1e3 * seconds,
    'images/s': batch / seconds,
    'MiB': _temporaries(program),
    'loss': losses[-1],
  }


def _temporaries(program: Any) -> float:
  memory = program.memory_analysis()
  return memory.temp_size_in_bytes / 2**20 if memory else 0.0


def _dispatch(steps: int, runs: int, batch: int = 8, patch: int = 24) -> dict[str, Any]:
  """Time steps in one program that loops over batches on the device; 0: without a loop."""
  if not steps:
    return {'steps in a dispatch': '1, no loop'} | {
      'ms a step': _step(batch=batch, patch=patch, runs=runs)['ms a step']
    }
  mesh = sharding.make_mesh(1)
  built = setup.assemble(_config(batch, patch), mesh)
  one = _batch(batch, patch)
  stacked = jax.device_put({k: np.stack([x] * steps) for k, x in one.items()})
  compiled = loop.CompiledSteps(built)
  step, arrays = compiled.program(built.plan.at(0)), compiled.arrays
  many = jax.jit(
    lambda state, batches: jax.lax.scan(lambda s, b: step(s, b, *arrays), state, batches),
    donate_argnums=0,
  )
  state = built.init()

  def run() -> None:
    nonlocal state
    state, scalars = many(state, stacked)
    jax.block_until_ready(scalars)

  return {'steps in a dispatch': steps, 'ms a step': 1e3 * _time(run, runs) / steps}


def _apart(devices: int, runs: int) -> dict[str, Any]:
  """Time steps on virtual devices, in a new process, since devices are created at its start."""
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  code = (
    'import json; from jaxsr import runtime; runtime.keep_freed_memory(); '
    'from benchmarks.scaling import _step; '
    f'print(json.dumps(_step(batch=16, patch=24, runs={runs}, devices={devices})))'
  )
  environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    (sys.executable, '-c', code), env=environment, capture_output=True, text=True, check=True
  )
  return {'devices': devices} | text.loads(done.stdout.splitlines()[-1])


def _memory(side: int, runs: int) -> dict[str, Any]:
  """Measure upscaling to a square image without tiles."""
  network: Any = configs.build_network(_config(1, 24))
  image = jax.device_put(np.zeros((1, side // SCALE, side // SCALE, 1), np.float32))
  variables = jax.jit(lambda: network.init(jax.random.key(0), image[:, :24, :24], train=False))()
  variables = {'params': variables['params']}
  program = jax.jit(make_predict(network)).lower(variables, image).compile()
  seconds = _time(lambda: jax.block_until_ready(program(variables, image)), min(runs, 3))
  taken = _temporaries(program)
  return {'side': side, 'seconds': seconds, 'MiB': taken, 'MiB a megapixel': taken / side**2 * 1e6}


def _pod(runs: int, links: float, batch: int = 8, patch: int = 24) -> list[dict[str, Any]]:
  """Estimate the cost of the all-reduce: a ring moves 2 (n - 1) / n of the gradients' bytes."""
  network = configs.build_network(_config(batch, patch))
  shapes = jax.eval_shape(
    lambda: network.init(jax.random.key(0), jnp.zeros((1, 24, 24, 1)), train=False)
  )
  gradients = 4 * sum(x.size for x in jax.tree.leaves(shapes['params']))
  step = _step(batch=batch, patch=patch, runs=runs)['ms a step']
  rows = []
  for chips in (2, 8, 64, 256):
    ring = 1e3 * gradients * 2 * (chips - 1) / chips / (links * 1e9)
    rows += [
      {
        'chips': chips,
        'step': 'as here' if factor == 1 else f'{factor} times faster',
        'ms of a step': step / factor,
        'gradients MB': gradients / 1e6,
        'ms of adding up': ring,
        'efficiency': step / factor / (step / factor + ring),
      }
      for factor in (1, 1000)
    ]
  return rows


def _table(rows: list[dict[str, Any]]) -> str:
  form = lambda x: x if isinstance(x, str) else f'{x:,d}' if isinstance(x, int) else f'{x:.4g}'  # noqa: E731
  lines = [
    list(rows[0]),
    ['---'] * len(rows[0]),
    *([form(x) for x in row.values()] for row in rows),
  ]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


if __name__ == '__main__':
  runtime.keep_freed_memory()
  tyro.cli(main)
