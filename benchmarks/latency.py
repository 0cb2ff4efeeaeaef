"""Latency of one film."""

import statistics
import time
from typing import Any

import jax
import numpy as np

from jaxsr import analysis
from jaxsr.inference.model import Model
from jaxsr.inference.predict import make_predict


def measure(model: Model, runs: int = 5, enough: float = 10.0) -> dict[str, Any]:
  """Returns the median time to upscale one film to 1024x1024, after compilation."""
  side = analysis.SIDE // model.scale
  lr = np.random.default_rng(0).random((1, side, side, model.channels), dtype=np.float32)
  predict = jax.jit(make_predict(model.network)).lower(model.variables, lr).compile()
  jax.block_until_ready(predict(model.variables, lr))
  seconds: list[float] = []
  while len(seconds) < runs and sum(seconds) < enough:
    begun = time.perf_counter()
    jax.block_until_ready(predict(model.variables, lr))
    seconds.append(time.perf_counter() - begun)
  device = f'{jax.devices()[0].device_kind}, {jax.__version__}'
  return {'median': statistics.median(seconds), 'seconds': seconds, 'device': device}
