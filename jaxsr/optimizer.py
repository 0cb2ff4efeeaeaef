"""AdamW with clipped gradients; a linear warm-up and a cosine to zero for each stage of a run."""

from collections.abc import Sequence
from typing import Any

import jax
import optax

Stage = tuple[float, int]  # its highest learning rate, and its updates


def make_optimizer(
  stages: Sequence[Stage],
  *,
  warmup: int,
  b1: float,
  b2: float,
  weight_decay: float,
  clip_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Build the optimiser and its learning rate by the number of updates."""
  schedules = [_cosine(rate, warmup, updates) for rate, updates in stages]
  boundaries = [sum(n for _, n in stages[: i + 1]) for i in range(len(stages) - 1)]
  schedule = optax.join_schedules(schedules, boundaries) if boundaries else schedules[0]
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  adamw = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay)
  return optax.chain(clip, adamw), schedule


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
