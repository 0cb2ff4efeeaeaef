"""A network with what updates it."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxsr import optimizer
from jaxsr.state import Params, Trainable


class Learner(NamedTuple):
  """A network, its optimiser, and the learning rate by the number of its updates."""

  network: nn.Module
  tx: optax.GradientTransformation
  schedule: optax.Schedule

  def apply(self, params: Params, stats: Params, images: Any) -> tuple[Any, Params]:
    """Apply the network in training; return what it gives and its next BatchNorm statistics."""
    return self.reveal(params, stats, images)[:2]

  def reveal(self, params: Params, stats: Params, images: Any) -> tuple[Any, Params, Any]:
    """Do the same, and return the features of its trunk, which cost nothing where not used."""
    variables, seen = {'params': params, 'batch_stats': stats}, ['batch_stats', 'features']
    out, changed = cast(Any, self.network.apply(variables, images, train=True, mutable=seen))
    return out, changed.get('batch_stats', stats), changed.get('features', {}).get('trunk', ())

  def update(self, trainable: Trainable, grads: Params, stats: Params) -> Trainable:
    """Take one step of the optimiser."""
    updates, opt_state = self.tx.update(grads, trainable.opt_state, trainable.params)
    return Trainable(optax.apply_updates(trainable.params, updates), stats, opt_state)

  def rate(self, trainable: Trainable) -> jax.Array:
    """Give the learning rate of the next update."""
    return jnp.asarray(self.schedule(optimizer.updates(trainable.opt_state)))
