"""The train step: a pure function of the state and a batch, built for a phase of a run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsr.data.batch import Batch
from jaxsr.losses import ADVERSARIAL, TERMS, GeneratorOutputs, LossContext, reduce
from jaxsr.losses.schedule import Phase
from jaxsr.losses.upcycling import UpcycledBatch, upcycle
from jaxsr.perceptual import FeatureExtractor
from jaxsr.training import distillation, optimizer
from jaxsr.training.distillation import OUTPUTS, Distiller
from jaxsr.training.gan import DiscriminatorTrainer, update_accuracy
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import Params, Scalars, State, Trainable

Frozen = Mapping[str, Any]  # variables of feature networks by their names, `teachers` a list
Step = Callable[[State, Batch, Frozen], tuple[State, Scalars]]


class StepComponents(NamedTuple):
  """The networks and constants that the steps of a run are built from.

  Attributes:
    generator: The network that is trained, with its optimizer.
    discriminator: None if no term needs it.
    extractors: Feature networks by name.
    distiller: The teachers, if there are any.
    options: See `losses.LossContext`.
    margin: Pixels of the high resolution on each side that only the generator sees.
    ema_decay: Decay of the averaged parameters.
    seed: Seed of the randomness within a step.
  """

  generator: TrainableNetwork
  discriminator: DiscriminatorTrainer | None
  extractors: Mapping[str, FeatureExtractor]
  distiller: Distiller
  options: Mapping[str, str]
  margin: int
  ema_decay: float
  seed: int


def make_train_step(components: StepComponents, phase: Phase) -> Step:
  """Build the step of a phase.

  Returns:
    A function of the state, a batch of float32 images and the frozen variables. It returns the next
    state and scalars to log. An update that is not finite leaves all networks as they were.
  """

  def step(state: State, batch: Batch, frozen: Frozen) -> tuple[State, Scalars]:
    keys = split_keys(components, state)
    discriminator, stats, adapters = state.discriminator, state.watch, state.adapters
    upcycled = make_upcycled(phase, batch, keys)
    outputs, pull_back, batch_stats = run_generator(components, phase, state, batch, upcycled)
    context = make_context(components, state, batch, frozen, outputs, upcycled)
    generator, scalars = state.generator, {}
    if phase.discriminator:
      assert components.discriminator and discriminator and stats
      discriminator, found = components.discriminator.update(
        discriminator, context.real, context.patch, keys.discriminator, state.step
      )
      networks = bind_networks(components, state, frozen, discriminator)
      context = dataclasses.replace(context, networks=networks)
      count = optimizer.updates(discriminator.opt_state) - 1
      stats = update_accuracy(stats, found['accuracy'], count)
      scalars |= {f'discriminator/{name}': value for name, value in found.items()}
    if phase.generator:
      gradient, found = weighted_grad(phase, context, state)
      grads, regressor_grads = pull_back(gradient)
      generator = components.generator.update(generator, grads, batch_stats)
      if adapters:
        assert components.distiller.regressors
        adapters = components.distiller.regressors.update(adapters, regressor_grads, {})
      rate = components.generator.rate(state.generator)
      scalars |= found | {'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    error = reduce(jnp.square(jnp.clip(outputs.sr, 0, 1) - batch['hr']), batch['mask'])
    updated = (generator, discriminator, stats, adapters)
    finite = _finite(scalars, generator, discriminator, adapters)
    generator, discriminator, stats, adapters = select(
      finite, updated, (state.generator, state.discriminator, state.watch, state.adapters)
    )
    state = State(
      step=state.step + 1,
      generator=generator,
      ema=average(state.ema, generator.variables, state.step, components.ema_decay),
      skipped=state.skipped + ~finite,
      skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
      discriminator=discriminator,
      watch=stats,
      adapters=adapters,
    )
    scalars |= {
      'psnr': -10 * jnp.log10(error),
      'skipped': state.skipped,
      'skipped_in_row': state.skipped_in_row,
    }
    return state, scalars

  return step


class StepKeys(NamedTuple):
  """Random keys of a step, one per use."""

  discriminator: jax.Array
  logits: jax.Array
  upcycling: jax.Array
  negatives: jax.Array


def split_keys(components: StepComponents, state: State) -> StepKeys:
  """Derive the keys of a step from the seed and the number of the step."""
  key = jax.random.fold_in(jax.random.key(components.seed), state.step)
  return StepKeys(*jax.random.split(key, len(StepKeys._fields)))


def make_upcycled(phase: Phase, batch: Batch, keys: StepKeys) -> list[UpcycledBatch]:
  """Make further inputs from a batch if a term of the phase needs them."""
  if 'upcycled' not in phase.needs:
    return []
  return upcycle(batch, keys.upcycling, scale=batch['hr'].shape[1] // batch['lr'].shape[1])


def run_generator(
  components: StepComponents,
  phase: Phase,
  state: State,
  batch: Batch,
  upcycled: Sequence[UpcycledBatch],
) -> tuple[GeneratorOutputs, Callable[[GeneratorOutputs], Any], Params]:
  """Run the generator on a batch.

  Returns:
    Its outputs, the function that pulls a gradient with respect to them back to the parameters of
    the generator and of the regressors, and the next BatchNorm statistics.
  """
  generator, batch_stats = components.generator, state.generator.batch_stats

  def plain(params: Params, _: Params) -> tuple[GeneratorOutputs, Params]:
    sr, stats = generator.apply(params, batch_stats, batch['lr'])
    return GeneratorOutputs(sr), stats

  def distilled(params: Params, regressor_params: Params) -> tuple[GeneratorOutputs, Params]:
    return distillation.forward(
      phase.needs,
      components.distiller,
      generator,
      (params, batch_stats, regressor_params),
      batch['lr'],
      upcycled=upcycled,
      step=state.step,
    )

  forward = distilled if phase.needs & OUTPUTS.keys() else plain
  regressor_params = state.adapters.params if state.adapters else {}
  return jax.vjp(forward, state.generator.params, regressor_params, has_aux=True)


def make_context(
  components: StepComponents,
  state: State,
  batch: Batch,
  frozen: Frozen,
  outputs: GeneratorOutputs,
  upcycled: Sequence[UpcycledBatch] = (),
) -> LossContext:
  """Build the inputs of the loss terms."""
  return LossContext(
    outputs=outputs,
    batch=batch,
    margin=components.margin,
    networks=bind_networks(components, state, frozen, state.discriminator),
    options=components.options,
    upcycled=upcycled,
  )


def bind_networks(
  components: StepComponents, state: State, frozen: Frozen, discriminator: Trainable | None
) -> dict[str, Callable[..., Any]]:
  """Returns functions of the networks that stay as they are while the generator is updated."""
  keys = split_keys(components, state)
  networks: dict[str, Callable[..., Any]] = {
    name: partial(extractor.extract, frozen[name])
    for name, extractor in components.extractors.items()
  }
  networks['teacher'] = partial(components.distiller.teach, frozen.get('teachers', ()))
  networks['negatives'] = partial(
    distillation.negatives, components.generator.network, state.ema, key=keys.negatives
  )
  if components.discriminator:
    assert discriminator
    networks['discriminator'] = partial(
      components.discriminator.logits, discriminator, key=keys.logits, step=state.step
    )
  return networks


def weighted_grad(
  phase: Phase, context: LossContext, state: State
) -> tuple[GeneratorOutputs, Scalars]:
  """Returns the gradient of the weighted loss with respect to the generator's outputs, and scalars.

  The gradient of each term is computed separately, which costs no more and shows how strong each
  term is: `gradient/NAME` is the norm of its weighted gradient.
  """
  outputs = context.outputs
  total, loss, scalars = jax.tree.map(jnp.zeros_like, outputs), jnp.zeros(()), {}
  for name, weight in phase.weights:
    value, pull_back = jax.vjp(partial(term_value, name, context), outputs)
    factor = weight.at(state.step)
    if name == ADVERSARIAL and state.watch is not None:
      factor *= state.watch.factor
    (gradient,) = pull_back(jnp.asarray(factor, value.dtype))
    total, loss = jax.tree.map(jnp.add, total, gradient), loss + factor * value
    scalars |= {f'term/{name}': value, f'weighted/{name}': factor * value}
    scalars[f'gradient/{name}'] = optax.tree.norm(gradient)
  return total, scalars | {'loss': loss}


def term_value(name: str, context: LossContext, outputs: GeneratorOutputs) -> jax.Array:
  """Compute the mean of a term at some outputs of the generator."""
  return reduce(
    TERMS[name].compute(dataclasses.replace(context, outputs=outputs)), context.batch['mask']
  )


def _finite(scalars: Scalars, *networks: Trainable | None) -> jax.Array:
  """Whether losses, gradients, updated parameters and BatchNorm statistics are finite."""
  values = [value for name, value in scalars.items() if name.endswith(('loss', 'grad_norm'))]
  present = [one for one in networks if one is not None]
  values += [optax.tree.norm(one.params) for one in present]
  values += [
    optax.tree.norm(one.batch_stats) for one in present if jax.tree.leaves(one.batch_stats)
  ]
  return jnp.stack([jnp.isfinite(value) for value in values]).all()


def select(condition: jax.Array, new: Any, old: Any) -> Any:
  """Returns one of two trees by one condition."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def average(ema: Params, variables: Params, step: jax.Array, decay: float) -> Params:
  """Update the exponential moving average.

  It starts as a plain mean; otherwise the average of a short run would lag behind.
  """
  keep = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, ema, variables)
