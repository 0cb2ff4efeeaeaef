"""The training state: arrays only. Networks, optimisers and the config are closed over."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

Params = Any  # also a tree of shapes or shardings, as the whole state may be


@struct.dataclass
class Trainable:
  """A network's arrays and its optimiser's."""

  params: Params
  batch_stats: Params
  opt_state: optax.OptState


@struct.dataclass
class State:
  """All that a run has to remember; scalars are int32.

  `step` counts batches and so is the position in the data. `skipped` counts the steps that were
  not finite and `skipped_in_row` those of them since the last finite one.
  """

  step: Any
  generator: Trainable
  ema: Params
  skipped: Any
  skipped_in_row: Any


def init(
  network: nn.Module, tx: optax.GradientTransformation, key: jax.Array, lr: jax.Array
) -> State:
  """Make the first state; call it under `jax.jit`, so that no two leaves share a buffer."""
  variables: Any = network.init(key, lr, train=False)
  params = variables.get('params', {})
  zero = jnp.zeros((), jnp.int32)
  trainable = Trainable(params, variables.get('batch_stats', {}), tx.init(params))
  return State(step=zero, generator=trainable, ema=params, skipped=zero, skipped_in_row=zero)
