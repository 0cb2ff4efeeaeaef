"""One pure train step and one prediction, built from the config's loss terms."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jaxsr import metrics
from jaxsr.data import pipeline
from jaxsr.errors import UserError, nearest
from jaxsr.losses import TERMS, Batch, Outputs
from jaxsr.state import Params, State, Trainable

Scalars = dict[str, jax.Array]
Step = Callable[[State, Batch], tuple[State, Scalars]]
Objective = Callable[[Outputs, Batch], tuple[jax.Array, Scalars]]


def make_objective(weights: Mapping[str, float]) -> Objective:
  """Weigh and add loss terms.

  Raises UserError for an unknown term or none.
  """
  weights = {name: weight for name, weight in weights.items() if weight}
  for name in weights:
    if name not in TERMS:
      raise UserError(f'loss {name!r} is unknown: {nearest(name, TERMS)}')
  if not weights:
    raise UserError(f'config.loss is empty: weigh at least one of {", ".join(sorted(TERMS))}')

  def objective(outputs: Outputs, batch: Batch) -> tuple[jax.Array, Scalars]:
    terms = {name: reduce(TERMS[name](outputs, batch), batch['mask']) for name in weights}
    weighted = {name: weights[name] * value for name, value in terms.items()}
    loss = sum(weighted.values(), start=jnp.zeros(()))
    scalars = {f'term/{name}': value for name, value in terms.items()}
    return loss, scalars | {f'weighted/{name}': value for name, value in weighted.items()}

  return objective


def reduce(values: jax.Array, mask: Float[Array, 'b h w 1']) -> Float[Array, '']:
  """Average a term: over the mask's pixels if it has one value for each, else over images."""
  if values.ndim != 4:
    return values.mean()
  return (values * mask).sum() / (mask.sum() * values.shape[-1])


def make_optimizer(
  *,
  learning_rate: float,
  warmup: int,
  steps: int,
  b1: float,
  b2: float,
  weight_decay: float,
  clip_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Build AdamW with clipped gradients, a linear warm-up and a cosine to zero."""
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup else learning_rate,
    peak_value=learning_rate,
    warmup_steps=warmup,
    decay_steps=max(steps, warmup + 1),
  )
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  adamw = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay)
  return optax.chain(clip, adamw), schedule


def make_train_step(
  network: nn.Module,
  objective: Objective,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  ema_decay: float,
) -> Step:
  """Build the step: state and batch of integers in, next state and scalars out."""

  def loss_of(params: Params, stats: Params, batch: Batch) -> tuple[jax.Array, tuple]:
    variables = {'params': params, 'batch_stats': stats}
    sr, changed = network.apply(variables, batch['lr'], train=True, mutable=['batch_stats'])
    loss, scalars = objective(Outputs(sr=sr), batch)
    error = reduce(jnp.square(jnp.clip(sr, 0, 1) - batch['hr']), batch['mask'])
    return loss, (changed.get('batch_stats', stats), scalars, error)

  def step(state: State, batch: Batch) -> tuple[State, Scalars]:
    """Update the generator once; leave it as it is where the update would not be finite."""
    batch = pipeline.normalise(batch)
    generator = state.generator
    (loss, (stats, scalars, error)), grads = jax.value_and_grad(loss_of, has_aux=True)(
      generator.params, generator.batch_stats, batch
    )
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, generator.opt_state, generator.params)
    params = optax.apply_updates(generator.params, updates)
    updated = Trainable(params, stats, opt_state)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(optax.tree.norm(params))
    trainable = select(finite, updated, generator)
    rate = schedule(state.step - state.skipped)  # a skipped step does not move the optimiser
    state = State(
      step=state.step + 1,
      generator=trainable,
      ema=average(state.ema, trainable.params, state.step, ema_decay),
      skipped=state.skipped + ~finite,
      skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
    )
    scalars |= {
      'loss': loss,
      'psnr': -10 * jnp.log10(error),
      'grad_norm': grad_norm,
      'learning_rate': rate,
      'skipped': state.skipped,
      'skipped_in_row': state.skipped_in_row,
    }
    return state, scalars

  return step


def select(condition: jax.Array, new: Any, old: Any) -> Any:
  """Choose between two trees by one condition."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def average(ema: Params, params: Params, step: jax.Array, decay: float) -> Params:
  """Move the exponential moving average; it starts as a plain mean, or short runs would lag."""
  keep = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, ema, params)


def make_predict(network: nn.Module) -> Callable[[Params, jax.Array], Any]:
  """Build the prediction: variables and images in [0, 1] in, enlarged images out, unclipped."""
  return lambda variables, lr: network.apply(variables, lr, train=False)


def make_eval_step(network: nn.Module, *, border: int) -> Callable[..., tuple]:
  """Build the measurement of whole images: rounded images and their figures.

  RGB is measured by its luma where the high resolution is gray.
  """
  predict = make_predict(network)

  def evaluate(variables: Params, lr: jax.Array, hr: jax.Array, levels: jax.Array) -> tuple:
    sr = metrics.quantise(predict(variables, lr), levels)
    sr = metrics.luma(sr) if sr.shape[-1] > hr.shape[-1] else sr
    return sr, metrics.measure(sr, hr, border=border)

  return evaluate
