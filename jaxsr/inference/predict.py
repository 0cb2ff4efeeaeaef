"""The forward pass of a network, and its self-ensemble."""

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
  """Build a function of variables and images [b, h, w, c] in [0, 1] that upscales them, unclipped.

  `ensemble` averages over the eight flips and quarter turns of the image, at eight times the cost
  (Timofte et al., Seven ways to improve example-based single image super resolution, CVPR 2016).
  """

  def predict(variables: Params, lr: jax.Array) -> Any:
    return network.apply(variables, lr, train=False)

  if not ensemble:
    return predict

  def predict_ensemble(variables: Params, lr: jax.Array) -> jax.Array:
    total: Any = 0.0
    for flip, turns in itertools.product((False, True), range(4)):
      turned = jnp.rot90(lr[:, ::-1] if flip else lr, turns, axes=(1, 2))
      sr: Any = jnp.rot90(predict(variables, turned), -turns, axes=(1, 2))
      total += sr[:, ::-1] if flip else sr
    return total / 8

  return predict_ensemble
