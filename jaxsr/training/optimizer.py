"""Optimizers: clipped gradients, and a linear warm-up and a cosine to zero per stage of a run.

`TrainableNetwork` is a network with its optimizer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxsr.training.state import Params, Trainable

Stage = tuple[float, int]  # peak learning rate, updates
RMS = 0.2  # of an update by AdamW; Muon's are scaled to it, so that one learning rate suits both


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
  """Build an optimizer, and its learning rate as a function of the number of updates.

  Args:
    stages: The peak learning rate and the number of updates of each stage of the run.
    name: 'adamw' (Loshchilov & Hutter, ICLR 2019), or 'muon' (Jordan et al., 2024), which updates
      the kernels that mix channels and leaves the other parameters to AdamW.
    warmup: Updates of the linear warm-up of each stage.
    b1: First decay rate of AdamW.
    b2: Second decay rate of AdamW.
    weight_decay: Weight decay of both.
    clip_norm: Largest norm of the gradient; 0 for no limit.
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
  """Mark the kernels that Muon treats as matrices: several inputs by several outputs."""

  def numbers(path: Any, x: Any) -> Any:
    if path[-1].key != 'kernel' or min(x.shape[-2:]) == 1:
      return None  # the first kernel, a depthwise one, or the last
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
  """Returns the number of updates that an optimizer has made."""
  return optax.tree.get_all_with_path(opt_state, 'count')[0][1]


class TrainableNetwork(NamedTuple):
  """A network, its optimizer, and the learning rate by the number of its updates."""

  network: nn.Module
  tx: optax.GradientTransformation
  schedule: optax.Schedule

  def apply(self, params: Params, stats: Params, images: Any) -> tuple[Any, Params]:
    """Apply the network in training mode; returns its outputs and the next BatchNorm statistics."""
    variables = {'params': params, 'batch_stats': stats}
    out, changed = cast(
      Any, self.network.apply(variables, images, train=True, mutable=['batch_stats'])
    )
    return out, changed.get('batch_stats', stats)

  def apply_with_features(
    self, params: Params, stats: Params, images: Any
  ) -> tuple[Any, Params, tuple[jax.Array, ...]]:
    """Apply the network in training mode; returns the features of its trunk as well."""
    variables, mutable = {'params': params, 'batch_stats': stats}, ['batch_stats', 'features']
    out, changed = cast(Any, self.network.apply(variables, images, train=True, mutable=mutable))
    return out, changed.get('batch_stats', stats), changed.get('features', {}).get('trunk', ())

  def update(self, trainable: Trainable, grads: Params, stats: Params) -> Trainable:
    """Apply one update of the optimizer."""
    updates, opt_state = self.tx.update(grads, trainable.opt_state, trainable.params)
    return Trainable(optax.apply_updates(trainable.params, updates), stats, opt_state)

  def rate(self, trainable: Trainable) -> jax.Array:
    """Returns the learning rate of the next update."""
    return jnp.asarray(self.schedule(updates(trainable.opt_state)))
