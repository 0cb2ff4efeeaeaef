"""One pure train step, built from what a phase asks for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsr import metrics
from jaxsr.data.batch import Batch, normalize
from jaxsr.losses import ADVERSARIAL, DISTILL, SLIMMABLE, TERMS, Compared, Outputs
from jaxsr.losses.schedule import Phase, reduce
from jaxsr.perceptual import FeatureExtractor
from jaxsr.training import optimizer
from jaxsr.training.distillation import Lesson, Made, View, negatives, upcycle
from jaxsr.training.gan import DiscriminatorTrainer, update_accuracy
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import Params, State, Trainable

Scalars = dict[str, jax.Array]
Frozen = Mapping[str, Any]  # variables of feature networks by their names, `teachers` a list
Step = Callable[[State, Batch, Frozen], tuple[State, Scalars]]


class Parts(NamedTuple):
  """What the steps of a run are built from.

  `margin` is in pixels of the high resolution, `seed` of what is random in a step.
  """

  generator: TrainableNetwork
  adversary: DiscriminatorTrainer | None
  extractors: Mapping[str, FeatureExtractor]
  lesson: Lesson
  margin: int
  ema_decay: float
  seed: int


def make_train_step(parts: Parts, phase: Phase) -> Step:
  """Build the step of a phase: state and batch of integers in, next state and scalars out."""

  def step(state: State, batch: Batch, frozen: Frozen) -> tuple[State, Scalars]:
    """Update what the phase says once; leave all as it is where that would not be finite."""
    batch = normalize(batch)
    batch['patch'] = metrics.shave(batch['hr'], parts.margin)
    generator, discriminator, watch = state.generator, state.discriminator, state.watch
    adapters = state.adapters
    eye = make_eye(parts, phase, state, batch, frozen)

    def forward(params: Params, adapting: Params) -> tuple[Made, Params]:
      variables = params, generator.batch_stats, adapting
      lesson, student = parts.lesson, parts.generator
      return lesson.make(phase.terms, student, variables, batch, eye.views, state.step)

    adapting = adapters.params if adapters else {}
    made, pull, stats = jax.vjp(forward, generator.params, adapting, has_aux=True)
    scalars: Scalars = {}
    if phase.discriminator:
      assert parts.adversary and discriminator and watch
      fake = metrics.shave(made.sr, parts.margin)
      discriminator, found = parts.adversary.update(
        discriminator, eye.real, fake, eye.keys[0], state.step
      )
      count = optimizer.updates(discriminator.opt_state) - 1
      watch = update_accuracy(watch, found['accuracy'], count)
      scalars |= {f'discriminator/{name}': value for name, value in found.items()}
    if phase.generator:
      gradient, found = weigh(phase, eye._replace(discriminator=discriminator), made, state)
      grads, adapting = pull(gradient)
      generator = parts.generator.update(generator, grads, stats)
      if adapters:
        assert parts.lesson.adapters
        adapters = parts.lesson.adapters.update(adapters, adapting, {})
      rate = parts.generator.rate(state.generator)
      scalars |= found | {'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    error = reduce(jnp.square(jnp.clip(made.sr, 0, 1) - batch['hr']), batch['mask'])
    updated = (generator, discriminator, watch, adapters)
    finite = _finite(scalars, generator, discriminator, adapters)
    generator, discriminator, watch, adapters = select(
      finite, updated, (state.generator, state.discriminator, state.watch, state.adapters)
    )
    state = State(
      step=state.step + 1,
      generator=generator,
      ema=average(state.ema, generator.variables, state.step, parts.ema_decay),
      skipped=state.skipped + ~finite,
      skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
      discriminator=discriminator,
      watch=watch,
      adapters=adapters,
    )
    scalars |= {
      'psnr': -10 * jnp.log10(error),
      'skipped': state.skipped,
      'skipped_in_row': state.skipped_in_row,
    }
    return state, scalars

  return step


class Eye(NamedTuple):
  """Computes, of what the generator made, what a term by its name asks for."""

  parts: Parts
  discriminator: Trainable | None
  batch: Batch
  frozen: Frozen
  history: Params  # the generator's average
  views: list[View]
  keys: jax.Array
  step: jax.Array

  @property
  def teacher(self) -> jax.Array:
    """Give the teachers' image, from the batch if it was made before."""
    if 'teacher' in self.batch:
      return self.batch['teacher']
    return self.parts.lesson.label(self.frozen['teachers'], self.batch['lr'])[0]

  @property
  def real(self) -> jax.Array:
    """Give what the discriminator takes for real, without the margin."""
    if self.parts.adversary and self.parts.adversary.of_teacher:
      return metrics.shave(self.teacher, self.parts.margin)
    return self.batch['patch']

  def see(self, term: str, made: Made) -> Outputs:
    """Compute what the term asks for."""
    parts, sr = self.parts, made.sr
    patch = metrics.shave(sr, parts.margin)
    if term == ADVERSARIAL:
      assert parts.adversary and self.discriminator
      judge = parts.adversary.judge
      judged = judge(self.discriminator, self.real, patch, self.keys[1], self.step)
      return Outputs(sr, patch, judged=judged)
    if term in parts.extractors:
      extractor, variables = parts.extractors[term], self.frozen[term]
      seen = (extractor.extract(variables, x) for x in (patch, self.batch['patch']))
      return Outputs(sr, patch, features={term: Compared(*seen, distance=extractor.distance)})
    if term in ('distill_output', 'distill_output_mse'):
      return Outputs(sr, patch, teacher=self.teacher)
    if term == 'distill_contrast':
      network = parts.generator.network
      past = negatives(network, self.history, self.batch['lr'], self.keys[3])
      return Outputs(sr, patch, teacher=self.teacher, negatives=past)
    if term in DISTILL or term == SLIMMABLE:
      frozen = self.frozen.get('teachers', ())
      pairs = parts.lesson.pairs(term, made, self.views, frozen, self.batch)
      return Outputs(sr, patch, pairs=pairs)
    return Outputs(sr, patch)


def make_eye(parts: Parts, phase: Phase, state: State, batch: Batch, frozen: Frozen) -> Eye:
  """Build the eye of a step."""
  keys = jax.random.split(jax.random.fold_in(jax.random.key(parts.seed), state.step), 4)
  scale = batch['hr'].shape[1] // batch['lr'].shape[1]
  views = upcycle(batch, keys[2], scale=scale) if 'distill_upcycle' in phase.terms else []
  return Eye(parts, state.discriminator, batch, frozen, state.ema, views, keys, state.step)


def weigh(phase: Phase, eye: Eye, made: Made, state: State) -> tuple[Made, Scalars]:
  """Add the weighted terms; return the sum's gradient at what was made, and scalars.

  Each term's gradient is taken apart, which costs no more and tells how hard each one pulls:
  `gradient/NAME` is the norm of what it asks of the generator's image, and of its features.
  """
  total, loss, scalars = jax.tree.map(jnp.zeros_like, made), jnp.zeros(()), {}
  mask = eye.batch['mask']
  for name, weight in phase.weights:
    value, pull = jax.vjp(lambda x: reduce(TERMS[name](eye.see(name, x), eye.batch), mask), made)  # noqa: B023
    factor = weight.at(state.step)
    if name == ADVERSARIAL and state.watch is not None:
      factor *= state.watch.factor
    (gradient,) = pull(jnp.asarray(factor, value.dtype))
    total, loss = jax.tree.map(jnp.add, total, gradient), loss + factor * value
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
