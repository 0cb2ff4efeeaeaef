"""What the machine could do: its rates, as measured, and how near to them a program comes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsr.analysis import Work
from jaxsr.models import PRECISIONS

_SIDE = {'cpu': 2048}  # of the matrices that are multiplied; they must be large beside launching
_LARGE = 8192
_NUMBERS = {'cpu': 2**26}  # that are copied; they must not fit in a cache
_MANY = 2**28
_RUNS = 5


class Roof(NamedTuple):
  """Operations a second of matrix products, and bytes a second to memory and from it."""

  flops: float
  bytes: float


def measure(precision: str) -> Roof:
  """Measure both: a product of square matrices in a precision, and adding one to what is large."""
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
    arguments = arguments if len(arguments) > 1 else (result,)  # what was given is gone
  return min(seconds[1:])


def place(roof: Roof, work: Work, seconds: float) -> dict[str, Any]:
  """Say where a program stands under the roof (Williams et al., CACM 2009).

  `intensity` is operations a byte, `utilisation` the share of the matrix rate, `of_roof` that of
  what memory allows at this intensity. Winograd's tiles need fewer operations than are counted.
  """
  flops = 2 * work.macs
  intensity = flops / work.bytes
  reach = min(roof.flops, intensity * roof.bytes)
  return {
    'gflops': flops / 1e9,
    'intensity': intensity,
    'bound': 'compute' if reach == roof.flops else 'memory',
    'utilisation': flops / seconds / roof.flops,
    'of_roof': flops / seconds / reach,
  }
