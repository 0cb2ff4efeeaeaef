"""A network's prediction, and that of its eight turns."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Params = Any


def make_predict(
  network: nn.Module, *, ensemble: bool = False
) -> Callable[[Params, jax.Array], Any]:
  """Build the prediction: variables and images in [0, 1] in, enlarged images out, unclipped.

  `ensemble` averages over the eight flips and quarter turns of the image (Timofte et al., Seven
  ways to improve example-based single image super resolution, CVPR 2016): eight times the work.
  """

  def predict(variables: Params, lr: jax.Array) -> Any:
    return network.apply(variables, lr, train=False)

  if not ensemble:
    return predict

  def average_of_turns(variables: Params, lr: jax.Array) -> jax.Array:
    total: Any = 0.0
    for flip, turns in itertools.product((False, True), range(4)):
      seen = jnp.rot90(lr[:, ::-1] if flip else lr, turns, axes=(1, 2))
      made: Any = jnp.rot90(predict(variables, seen), -turns, axes=(1, 2))
      total += made[:, ::-1] if flip else made
    return total / 8

  return average_of_turns
