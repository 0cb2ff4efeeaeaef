"""Clipped gradients; a linear warm-up and a cosine to zero for each stage of a run.

`TrainableNetwork` is a network with its optimiser.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxsr.training.state import Params, Trainable

Stage = tuple[float, int]  # its highest learning rate, and its updates
RMS = 0.2  # of an update by AdamW, so that one learning rate suits both


def make_optimizer(
  stages: Sequence[Stage],
  *,
  name: str,
  warmup: int,
  b1: float,
  b2: float,
  weight_decay: float,
  clip_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Build the optimiser and its learning rate by the number of updates.

  AdamW (Loshchilov & Hutter, ICLR 2019), or Muon (Jordan et al., 2024) for the kernels that mix
  channels, with AdamW for the rest, both with Nesterov's momentum.
  """
  schedules = [_cosine(rate, warmup, updates) for rate, updates in stages]
  boundaries = [sum(n for _, n in stages[: i + 1]) for i in range(len(stages) - 1)]
  schedule = optax.join_schedules(schedules, boundaries) if boundaries else schedules[0]
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  if name == 'adamw':
    tx = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay)
  else:
    tx = optax.contrib.muon(
      schedule,
      adam_b1=b1,
      adam_b2=b2,
      weight_decay=weight_decay,
      adam_weight_decay=weight_decay,
      muon_weight_dimension_numbers=_matrices,
      consistent_rms=RMS,
    )
  return optax.chain(clip, tx), schedule


def _matrices(params: Any) -> Any:
  """Say which kernels are matrices to Muon: inputs by outputs, with more than one of each."""

  def numbers(path: Any, x: Any) -> Any:
    if path[-1].key != 'kernel' or min(x.shape[-2:]) == 1:
      return None  # one channel in is the first kernel or a depthwise one, one out the last
    return optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)

  return jax.tree_util.tree_map_with_path(numbers, params)


def _cosine(rate: float, warmup: int, updates: int) -> optax.Schedule:
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup else rate,
    peak_value=rate,
    warmup_steps=warmup,
    decay_steps=max(updates, warmup + 1),
  )


def updates(opt_state: Any) -> jax.Array:
  """Count the updates that an optimiser has made."""
  return optax.tree.get_all_with_path(opt_state, 'count')[0][1]


class TrainableNetwork(NamedTuple):
  """A network, its optimiser, and the learning rate by the number of its updates."""

  network: nn.Module
  tx: optax.GradientTransformation
  schedule: optax.Schedule

  def apply(self, params: Params, stats: Params, images: Any) -> tuple[Any, Params]:
    """Apply the network in training; return what it gives and its next BatchNorm statistics."""
    return self.apply_with_features(params, stats, images)[:2]

  def apply_with_features(
    self, params: Params, stats: Params, images: Any
  ) -> tuple[Any, Params, Any]:
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
    return jnp.asarray(self.schedule(updates(trainable.opt_state)))
