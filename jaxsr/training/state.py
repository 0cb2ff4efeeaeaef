"""The training state: arrays only. Networks, optimizers and the config are closed over."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

Params = Any  # also a tree of shapes or shardings, as the whole state may be
Scalars = dict[str, jax.Array]  # to log


@struct.dataclass
class Trainable:
  """The arrays of a network and of its optimizer."""

  params: Params
  batch_stats: Params
  opt_state: optax.OptState

  @property
  def variables(self) -> Params:
    """The variables that the network is applied with."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


@struct.dataclass
class DiscriminatorStats:
  """Statistics by which a collapse of the discriminator is detected.

  Attributes:
    accuracy: float32; the moving average of the accuracy.
    alarms: int32; the evaluations in a row at which it was out of bounds.
    factor: float32; multiplies the weight of the adversarial term.
  """

  accuracy: Any
  alarms: Any
  factor: Any


@struct.dataclass
class State:
  """Everything that a run has to remember.

  The names of the fields are those of saved checkpoints, so they must not change.

  Attributes:
    step: int32; the number of batches so far, and so the position in the data.
    generator: The network that is trained.
    ema: Averaged parameters and BatchNorm statistics, which are evaluated and used afterward.
    skipped: int32; the steps that were skipped because they were not finite.
    skipped_in_row: int32; those of them since the last finite step.
    discriminator: None if no term needs it.
    watch: Statistics of the discriminator, or None; checkpoints hold them under this name.
    adapters: The regressors of a student (`distillation.Regressors`), or None.
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
  """Initialize the state; call it under `jax.jit`, so that no two leaves share a buffer."""
  trainable = init_trainable(network, tx, key, lr)
  zero = jnp.zeros((), jnp.int32)
  return State(
    step=zero, generator=trainable, ema=trainable.variables, skipped=zero, skipped_in_row=zero
  )


def init_trainable(
  network: nn.Module, tx: optax.GradientTransformation, key: jax.Array, image: Any
) -> Trainable:
  """Initialize the arrays of a network and of its optimizer."""
  variables: Any = network.init(key, image, train=False)
  params = variables.get('params', {})
  return Trainable(params, variables.get('batch_stats', {}), tx.init(params))


def init_discriminator_stats() -> DiscriminatorStats:
  """Initialize the statistics of a discriminator."""
  return DiscriminatorStats(
    accuracy=jnp.zeros(()), alarms=jnp.zeros((), jnp.int32), factor=jnp.ones(())
  )
