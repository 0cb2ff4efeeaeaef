"""The discriminator's side of a step, and the alarm for when it collapses."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsr.losses import Judged, adversarial
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import DiscriminatorStats, Params, Trainable

Scalars = dict[str, jax.Array]

DECAY = 0.98  # of the accuracy's moving average, which the alarm looks at


class DiscriminatorTrainer(NamedTuple):
  """A discriminator, how it is trained, and how what it sees is disturbed.

  `noise` is the standard deviation of what is added to all images that it sees, in parts of their
  range; it falls to zero over `noise_steps` from the step `begin` on. With `of_teacher` it tells
  the student's images from the teacher's instead of true ones.
  """

  learner: TrainableNetwork
  form: str
  r1: float
  noise: float
  noise_steps: int
  begin: int
  of_teacher: bool = False

  def update(
    self, discriminator: Trainable, real: jax.Array, fake: jax.Array, key: jax.Array, step: Any
  ) -> tuple[Trainable, Scalars]:
    """Update the discriminator once on true and generated images; describe how it fared."""
    noise = self._amplitude(step)
    keys = jax.random.split(key)
    real, fake = self._disturb(real, keys[0], noise), self._disturb(fake, keys[1], noise)

    def loss_of(params: Params) -> tuple[jax.Array, tuple]:
      judge = self.learner.apply
      logits_real, stats = judge(params, discriminator.batch_stats, real)
      logits_fake, stats = judge(params, stats, fake)
      loss = adversarial.discriminator_loss(logits_real, logits_fake, form=self.form).mean()
      penalty = jnp.zeros(())
      if self.r1:
        of_real = lambda x: judge(params, discriminator.batch_stats, x)[0]  # noqa: E731
        penalty = adversarial.r1(of_real, real).mean()
      return loss + self.r1 * penalty, (stats, logits_real, logits_fake, penalty)

    (loss, (stats, *logits, penalty)), grads = jax.value_and_grad(loss_of, has_aux=True)(
      discriminator.params
    )
    scalars = {
      'loss': loss,
      'accuracy': adversarial.accuracy(*logits, form=self.form),
      'logit_real': logits[0].mean(),
      'logit_fake': logits[1].mean(),
      'grad_norm': optax.tree.norm(grads),
      'learning_rate': self.learner.rate(discriminator),
    }
    scalars |= {'r1': penalty} if self.r1 else {}
    scalars |= {'noise': noise} if self.noise else {}
    return self.learner.update(discriminator, grads, stats), scalars

  def judge(
    self, discriminator: Trainable, real: jax.Array, fake: jax.Array, key: jax.Array, step: Any
  ) -> Judged:
    """Judge images for the generator; the discriminator and its statistics stay as they are."""
    noise = self._amplitude(step)
    keys = jax.random.split(key)
    params, stats = discriminator.params, discriminator.batch_stats
    logits = [
      self.learner.apply(params, stats, self._disturb(x, k, noise))[0]
      for x, k in zip((real, fake), keys, strict=True)
    ]
    return Judged(*logits, form=self.form)

  def _amplitude(self, step: Any) -> jax.Array:
    left = 1 - (step - self.begin) / max(1, self.noise_steps)
    return self.noise * jnp.clip(left, 0, 1).astype(jnp.float32)

  def _disturb(self, images: jax.Array, key: jax.Array, noise: jax.Array) -> jax.Array:
    """Add instance noise (Sonderby et al., ICLR 2017)."""
    return images + noise * jax.random.normal(key, images.shape) if self.noise else images


def update_accuracy(
  watch: DiscriminatorStats, accuracy: jax.Array, updates: jax.Array
) -> DiscriminatorStats:
  """Move the average of the accuracy; it starts as a plain mean."""
  keep = jnp.minimum(DECAY, updates / (9 + updates))
  return dataclasses.replace(watch, accuracy=keep * watch.accuracy + (1 - keep) * accuracy)


class CollapseMonitor(NamedTuple):
  """When to call a discriminator collapsed, and what to do then.

  `action` is 'warn', 'lower' (halve the adversarial weight) or 'stop'.
  """

  low: float
  high: float
  evaluations: int
  action: str

  def check(self, watch: DiscriminatorStats) -> tuple[DiscriminatorStats, str]:
    """Look at an evaluation: give the next watch, and what to tell if it is time to."""
    accuracy = float(watch.accuracy)
    if self.low < accuracy < self.high:
      return dataclasses.replace(watch, alarms=jnp.zeros_like(watch.alarms)), ''
    count = int(watch.alarms) + 1
    watch = dataclasses.replace(watch, alarms=watch.alarms + 1)
    if count < self.evaluations:
      return watch, ''
    state, remedy = _WINS if accuracy >= self.high else _DEAD
    text = (
      f'the discriminator {state}: it judged {accuracy:.1%} of the images rightly, and so at '
      f'{count} evaluations in a row; {remedy}'
    )
    if self.action == 'lower':
      watch = dataclasses.replace(
        watch, alarms=jnp.zeros_like(watch.alarms), factor=watch.factor / 2
      )
      text += f'. The adversarial weight is now {float(watch.factor):g} of what it was'
    return watch, text


_WINS = (
  'always wins, so that the generator learns nothing from it',
  'lower config.discriminator.optimizer.learning_rate, raise config.adversarial.noise or '
  'discriminator_every, or set config.discriminator.norm=spectral',
)
_DEAD = (
  'is dead or fooled, so that it tells the generator nothing',
  'raise config.discriminator.optimizer.learning_rate or config.adversarial.generator_every, or '
  'choose config.adversarial.form=relativistic',
)
