"""One pure train step and one prediction, built from what a phase asks for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxsr import metrics, optimizer
from jaxsr.adversary import Adversary, follow
from jaxsr.data import pipeline
from jaxsr.features import Lens
from jaxsr.learner import Learner
from jaxsr.losses import ADVERSARIAL, TERMS, Batch, Compared, Outputs
from jaxsr.objective import Phase, reduce
from jaxsr.state import Params, State, Trainable

Scalars = dict[str, jax.Array]
Frozen = Mapping[str, Any]  # variables of the feature networks, by their names
Step = Callable[[State, Batch, Frozen], tuple[State, Scalars]]


class Parts(NamedTuple):
  """What the steps of a run are built from.

  `margin` is in pixels of the high resolution, `seed` of what is random in a step.
  """

  generator: Learner
  adversary: Adversary | None
  lenses: Mapping[str, Lens]
  margin: int
  ema_decay: float
  seed: int


def make_train_step(parts: Parts, phase: Phase) -> Step:
  """Build the step of a phase: state and batch of integers in, next state and scalars out."""

  def step(state: State, batch: Batch, frozen: Frozen) -> tuple[State, Scalars]:
    """Update what the phase says once; leave all as it is where that would not be finite."""
    batch = pipeline.normalise(batch)
    batch['patch'] = metrics.shave(batch['hr'], parts.margin)
    generator, discriminator, watch = state.generator, state.discriminator, state.watch
    keys = jax.random.split(jax.random.fold_in(jax.random.key(parts.seed), state.step))

    def forward(params: Params) -> tuple[jax.Array, Params]:
      return parts.generator.apply(params, generator.batch_stats, batch['lr'])

    sr, pull, stats = jax.vjp(forward, generator.params, has_aux=True)
    scalars: Scalars = {}
    if phase.discriminator:
      assert parts.adversary and discriminator and watch
      fake = metrics.shave(sr, parts.margin)
      discriminator, found = parts.adversary.update(
        discriminator, batch['patch'], fake, keys[0], state.step
      )
      count = optimizer.updates(discriminator.opt_state) - 1
      watch = follow(watch, found['accuracy'], count)
      scalars |= {f'discriminator/{name}': value for name, value in found.items()}
    if phase.generator:
      see = _make_eye(parts, discriminator, batch, frozen, keys[1], state.step)
      gradient, found = _weigh(phase, see, sr, batch, state)
      (grads,) = pull(gradient)
      generator = parts.generator.update(generator, grads, stats)
      rate = parts.generator.rate(state.generator)
      scalars |= found | {'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    error = reduce(jnp.square(jnp.clip(sr, 0, 1) - batch['hr']), batch['mask'])
    updated = (generator, discriminator, watch)
    finite = _finite(scalars, generator, discriminator)
    generator, discriminator, watch = select(
      finite, updated, (state.generator, state.discriminator, state.watch)
    )
    state = State(
      step=state.step + 1,
      generator=generator,
      ema=average(state.ema, generator.variables, state.step, parts.ema_decay),
      skipped=state.skipped + ~finite,
      skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
      discriminator=discriminator,
      watch=watch,
    )
    scalars |= {
      'psnr': -10 * jnp.log10(error),
      'skipped': state.skipped,
      'skipped_in_row': state.skipped_in_row,
    }
    return state, scalars

  return step


def _make_eye(
  parts: Parts,
  discriminator: Trainable | None,
  batch: Batch,
  frozen: Frozen,
  key: jax.Array,
  step: jax.Array,
) -> Callable[[str, jax.Array], Outputs]:
  """Build what computes, of a generated image, what a term by its name asks for."""

  def see(term: str, sr: jax.Array) -> Outputs:
    patch = metrics.shave(sr, parts.margin)
    if term == ADVERSARIAL:
      assert parts.adversary and discriminator
      judged = parts.adversary.judge(discriminator, batch['patch'], patch, key, step)
      return Outputs(sr, patch, judged=judged)
    if term not in parts.lenses:
      return Outputs(sr, patch)
    lens, variables = parts.lenses[term], frozen[term]
    seen = (lens.see(variables, x) for x in (patch, batch['patch']))
    return Outputs(sr, patch, features={term: Compared(*seen, distance=lens.distance)})

  return see


def _weigh(
  phase: Phase, see: Callable[[str, jax.Array], Outputs], sr: jax.Array, batch: Batch, state: State
) -> tuple[jax.Array, Scalars]:
  """Add the weighted terms; return the sum's gradient at the image, and scalars.

  Each term's gradient is taken apart, which costs no more and tells how hard each one pulls:
  `gradient/NAME` is the norm of what it asks of the generator's image.
  """
  total, loss, scalars = jnp.zeros_like(sr), jnp.zeros(()), {}
  for name, weight in phase.weights:
    value, pull = jax.vjp(lambda x: reduce(TERMS[name](see(name, x), batch), batch['mask']), sr)  # noqa: B023
    factor = weight.at(state.step)
    if name == ADVERSARIAL and state.watch is not None:
      factor *= state.watch.factor
    (gradient,) = pull(jnp.asarray(factor, value.dtype))
    total, loss = total + gradient, loss + factor * value
    scalars |= {f'term/{name}': value, f'weighted/{name}': factor * value}
    scalars[f'gradient/{name}'] = optax.tree.norm(gradient)
  return total, scalars | {'loss': loss}


def _finite(scalars: Scalars, *trained: Trainable | None) -> jax.Array:
  """Tell whether losses, gradients and what became of the parameters are finite."""
  values = [value for name, value in scalars.items() if name.endswith(('loss', 'grad_norm'))]
  values += [optax.tree.norm(one.params) for one in trained if one is not None]
  return jnp.stack([jnp.isfinite(value) for value in values]).all()


def select(condition: jax.Array, new: Any, old: Any) -> Any:
  """Choose between two trees by one condition."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def average(ema: Params, variables: Params, step: jax.Array, decay: float) -> Params:
  """Move the exponential moving average; it starts as a plain mean, or short runs would lag."""
  keep = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, ema, variables)


def make_predict(network: nn.Module) -> Callable[[Params, jax.Array], Any]:
  """Build the prediction: variables and images in [0, 1] in, enlarged images out, unclipped."""
  return lambda variables, lr: network.apply(variables, lr, train=False)
