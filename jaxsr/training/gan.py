"""The discriminator's part of a step, and the monitor that detects its collapse."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsr.losses import adversarial
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import DiscriminatorStats, Params, Scalars, Trainable

DECAY = 0.98  # of the moving average of the accuracy


class DiscriminatorTrainer(NamedTuple):
  """A discriminator and how it is trained.

  Attributes:
    network: The discriminator with its optimizer.
    form: A key of `losses.adversarial.FORMS`.
    r1: Weight of the R1 penalty; 0 for none.
    noise: Standard deviation of the noise added to all images that the discriminator sees.
    noise_steps: Steps over which the noise falls to zero.
    begin: The step at which it starts to fall.
  """

  network: TrainableNetwork
  form: str
  r1: float
  noise: float
  noise_steps: int
  begin: int

  def update(
    self, discriminator: Trainable, real: jax.Array, fake: jax.Array, key: jax.Array, step: Any
  ) -> tuple[Trainable, Scalars]:
    """Update the discriminator once on real and generated images; returns scalars to log, too."""
    noise = self._amplitude(step)
    keys = jax.random.split(key)
    real, fake = self._add_noise(real, keys[0], noise), self._add_noise(fake, keys[1], noise)

    def loss_of(params: Params) -> tuple[jax.Array, tuple]:
      apply = self.network.apply
      logits_real, stats = apply(params, discriminator.batch_stats, real)
      logits_fake, stats = apply(params, stats, fake)
      loss = adversarial.discriminator_loss(logits_real, logits_fake, form=self.form).mean()
      penalty = jnp.zeros(())
      if self.r1:
        logits_of = lambda x: apply(params, discriminator.batch_stats, x)[0]  # noqa: E731
        penalty = adversarial.r1(logits_of, real).mean()
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
      'learning_rate': self.network.rate(discriminator),
    }
    scalars |= {'r1': penalty} if self.r1 else {}
    scalars |= {'noise': noise} if self.noise else {}
    return self.network.update(discriminator, grads, stats), scalars

  def logits(
    self,
    discriminator: Trainable,
    real: jax.Array,
    fake: jax.Array,
    *,
    key: jax.Array,
    step: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """Compute the logits of real and of generated images for the generator's loss.

    Neither the parameters nor the statistics of the discriminator change.
    """
    noise = self._amplitude(step)
    keys = jax.random.split(key)
    params, stats = discriminator.params, discriminator.batch_stats
    real, fake = (
      self.network.apply(params, stats, self._add_noise(x, k, noise))[0]
      for x, k in zip((real, fake), keys, strict=True)
    )
    return real, fake

  def _amplitude(self, step: Any) -> jax.Array:
    left = 1 - (step - self.begin) / max(1, self.noise_steps)
    return self.noise * jnp.clip(left, 0, 1).astype(jnp.float32)

  def _add_noise(self, images: jax.Array, key: jax.Array, noise: jax.Array) -> jax.Array:
    """Add instance noise (Sonderby et al., ICLR 2017)."""
    return images + noise * jax.random.normal(key, images.shape) if self.noise else images


def update_accuracy(
  stats: DiscriminatorStats, accuracy: jax.Array, updates: jax.Array
) -> DiscriminatorStats:
  """Update the moving average of the accuracy, which starts as a plain mean."""
  keep = jnp.minimum(DECAY, updates / (9 + updates))
  return dataclasses.replace(stats, accuracy=keep * stats.accuracy + (1 - keep) * accuracy)


class CollapseMonitor(NamedTuple):
  """Detects the collapse of a discriminator at evaluations.

  Attributes:
    low: Accuracy at or below which the discriminator has failed.
    high: Accuracy at or above which it always wins.
    evaluations: Evaluations in a row outside (low, high) that count as a collapse.
    action: 'warn', 'lower' (halve the adversarial weight) or 'stop'.
  """

  low: float
  high: float
  evaluations: int
  action: str

  def check(self, stats: DiscriminatorStats) -> tuple[DiscriminatorStats, str]:
    """Returns the next statistics, and a warning if the discriminator has collapsed, else ''."""
    accuracy = float(stats.accuracy)
    if self.low < accuracy < self.high:
      return dataclasses.replace(stats, alarms=jnp.zeros_like(stats.alarms)), ''
    count = int(stats.alarms) + 1
    stats = dataclasses.replace(stats, alarms=stats.alarms + 1)
    if count < self.evaluations:
      return stats, ''
    problem, remedy = _WINS if accuracy >= self.high else _FAILED
    text = (
      f'the discriminator {problem}: its accuracy is {accuracy:.1%}, for {count} evaluations in a '
      f'row; {remedy}'
    )
    if self.action == 'lower':
      stats = dataclasses.replace(
        stats, alarms=jnp.zeros_like(stats.alarms), factor=stats.factor / 2
      )
      text += f'. The adversarial weight is multiplied by {float(stats.factor):g} from now on'
    return stats, text


_WINS = (
  'always wins, so that the generator gets no useful gradient',
  'lower config.discriminator.optimizer.learning_rate, raise config.adversarial.noise or '
  'discriminator_every, or set config.discriminator.norm=spectral',
)
_FAILED = (
  'has failed: it does no better than chance, so that the generator gets no useful gradient',
  'raise config.discriminator.optimizer.learning_rate or config.adversarial.generator_every, or '
  'set config.adversarial.form=relativistic',
)
