"""Convolutions compared with XLA's, by shape: python -m benchmarks.convolutions.

Prints milliseconds, XLA's -> this implementation's, of the forward pass, the gradient of the kernel
and the gradient of the image: medians of five alternating runs. On an accelerator both are XLA's.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.pairs import alternate
from jaxsr import ops

SHAPES = (  # images, outputs, side of the kernel, groups
  ((8, 48, 48, 64), 64, 3, 1),
  ((8, 96, 96, 64), 256, 3, 1),
  ((1, 256, 256, 64), 64, 3, 1),
  ((8, 48, 48, 128), 128, 3, 1),
  ((8, 48, 48, 32), 32, 3, 1),
  ((8, 192, 192, 64), 1, 3, 1),
  ((8, 96, 96, 64), 1, 9, 1),
  ((8, 48, 48, 64), 64, 1, 1),
  ((8, 48, 48, 64), 256, 1, 1),
  ((8, 48, 48, 64), 64, 3, 64),
  ((8, 96, 96, 64), 64, 9, 64),
)


def main() -> None:
  """Measure and print each shape."""
  for shape, outputs, side, groups in SHAPES:
    rng = np.random.default_rng(0)
    sizes = shape, (side, side, shape[-1] // groups, outputs), (*shape[:-1], outputs)
    arrays = [jnp.asarray(rng.standard_normal(size), jnp.float32) for size in sizes]
    functions = (lax.conv_general_dilated, ops.convolve)
    before, after = (_programs(one, groups, arrays) for one in functions)
    found = []
    for slow, fast in zip(before, after, strict=True):
      times = alternate(partial(_run, slow, arrays), partial(_run, fast, arrays), 5)
      medians = [1e3 * statistics.median(seconds) for seconds in times]
      found.append('{:7.1f} -> {:6.1f}'.format(*medians))
    name = f'{side}x{side} {"x".join(map(str, shape))} -> {outputs}, {groups} groups'
    print(f'{name:42s} {"   ".join(found)}', flush=True)


def _programs(function: Callable[..., Any], groups: int, arrays: list[Any]) -> list[Any]:
  """Compile a convolution and its gradients with respect to kernel and image."""

  def forward(x: Any, kernel: Any, _: Any = None) -> Any:
    options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'feature_group_count': groups}
    return function(x, kernel, (1, 1), 'SAME', **options)

  of_kernel = lambda x, kernel, g: jax.vjp(partial(forward, x), kernel)[1](g)  # noqa: E731
  of_image = lambda x, kernel, g: jax.vjp(lambda x: forward(x, kernel), x)[1](g)  # noqa: E731
  return [jax.jit(one).lower(*arrays).compile() for one in (forward, of_kernel, of_image)]


def _run(program: Any, arrays: list[Any]) -> None:
  jax.block_until_ready(program(*arrays))


if __name__ == '__main__':
  main()
