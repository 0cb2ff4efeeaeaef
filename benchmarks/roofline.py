"""Roofline of the machine: its measured rates, and the share of them that a program reaches."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsr.analysis import Work
from jaxsr.models import PRECISIONS

_SIDE = {'cpu': 2048}  # of the matrices; large, so that the launch overhead is negligible
_LARGE = 8192
_NUMBERS = {'cpu': 2**26}  # of the copied array; larger than the caches
_MANY = 2**28
_RUNS = 5


class Roof(NamedTuple):
  """Operations per second of matrix products, and bytes per second to and from memory."""

  flops: float
  bytes: float


def measure(precision: str) -> Roof:
  """Measure both rates: a product of square matrices in a precision, and adding 1 to an array."""
  platform, dtype = jax.default_backend(), PRECISIONS[precision]
  side, numbers = _SIDE.get(platform, _LARGE), _NUMBERS.get(platform, _MANY)
  x, line = jnp.ones((side, side), dtype), jnp.zeros(numbers, jnp.float32)
  product = _fastest(jax.jit(jnp.matmul), x, x)
  copy = _fastest(jax.jit(lambda line: line + 1, donate_argnums=0), line)
  return Roof(2 * side**3 / product, 2 * line.nbytes / copy)


def _fastest(run: Callable[..., jax.Array], *arguments: jax.Array) -> float:
  seconds = []
  for _ in range(_RUNS + 1):  # the first compiles
    begun = time.perf_counter()
    result = jax.block_until_ready(run(*arguments))
    seconds.append(time.perf_counter() - begun)
    arguments = arguments if len(arguments) > 1 else (result,)  # the argument was donated
  return min(seconds[1:])


def place(roof: Roof, work: Work, seconds: float) -> dict[str, Any]:
  """Returns a program's position in the roofline model (Williams et al., CACM 2009).

  `intensity` is operations per byte, `utilization` the share of the matrix rate, and `of_roof` the
  share of the rate that memory allows at this intensity. Both can exceed 1, since Winograd's tiles
  need fewer operations than are counted.
  """
  flops = 2 * work.macs
  intensity = flops / work.bytes
  reach = min(roof.flops, intensity * roof.bytes)
  return {
    'gflops': flops / 1e9,
    'intensity': intensity,
    'bound': 'compute' if reach == roof.flops else 'memory',
    'utilization': flops / seconds / roof.flops,
    'of_roof': flops / seconds / reach,
  }
