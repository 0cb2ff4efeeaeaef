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

  @property
  def variables(self) -> Params:
    """Give what the network is applied with."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


@struct.dataclass
class DiscriminatorStats:
  """What is known of how the discriminator fares, float32 and int32 scalars.

  `accuracy` is its moving average, `alarms` counts the evaluations in a row at which it was out of
  bounds, `factor` is what the adversarial term's weight was lowered by.
  """

  accuracy: Any
  alarms: Any
  factor: Any


@struct.dataclass
class State:
  """All that a run has to remember; scalars are int32.

  `step` counts batches and so is the position in the data. `ema` holds the averaged parameters and
  BatchNorm statistics, which are what is evaluated. `skipped` counts the steps that were not finite
  and `skipped_in_row` those of them since the last finite one. `discriminator` and `watch` are None
  where no term asks for one, and so are `adapters`, which bring features to a teacher's width.
  """

  step: Any
  generator: Trainable
  ema: Params
  skipped: Any
  skipped_in_row: Any
  discriminator: Trainable | None = None
  watch: DiscriminatorStats | None = None
  adapters: Trainable | None = None


def init(
  network: nn.Module, tx: optax.GradientTransformation, key: jax.Array, lr: jax.Array
) -> State:
  """Make the first state; call it under `jax.jit`, so that no two leaves share a buffer."""
  trainable = init_trainable(network, tx, key, lr)
  zero = jnp.zeros((), jnp.int32)
  return State(
    step=zero, generator=trainable, ema=trainable.variables, skipped=zero, skipped_in_row=zero
  )


def init_trainable(
  network: nn.Module, tx: optax.GradientTransformation, key: jax.Array, image: Any
) -> Trainable:
  """Make a network's first arrays and its optimiser's."""
  variables: Any = network.init(key, image, train=False)
  params = variables.get('params', {})
  return Trainable(params, variables.get('batch_stats', {}), tx.init(params))


def init_discriminator_stats() -> DiscriminatorStats:
  """Begin to watch."""
  return DiscriminatorStats(
    accuracy=jnp.zeros(()), alarms=jnp.zeros((), jnp.int32), factor=jnp.ones(())
  )
