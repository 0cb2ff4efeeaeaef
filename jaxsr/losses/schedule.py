"""Which loss terms count at which step, and by how much.

A run may have two stages: `pretrain` steps on a loss of their own, then the main stage. In the main
stage a term sets in `start` steps after its beginning and grows to its weight over `ramp` steps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsr.errors import UserError, nearest
from jaxsr.losses import ADVERSARIAL, TERMS


class Weight(NamedTuple):
  """A term's weight, the step at which it sets in, and over how many it grows."""

  value: float
  begin: int = 0
  ramp: int = 0

  def at(self, step: jax.Array) -> jax.Array:
    """Give the weight at a step."""
    if not self.ramp:
      return jnp.float32(self.value)
    return self.value * jnp.clip((step - self.begin + 1) / self.ramp, 0.0, 1.0)


class Phase(NamedTuple):
  """What a step does; steps of equal phases share a compiled program."""

  weights: tuple[tuple[str, Weight], ...]
  generator: bool = True  # is updated
  discriminator: bool = False  # is updated

  @property
  def terms(self) -> list[str]:
    """Name the terms that count."""
    return [name for name, _ in self.weights]


class Plan(NamedTuple):
  """The phases of a run."""

  before: tuple[tuple[str, Weight], ...]
  main: tuple[tuple[str, Weight], ...]
  pretrain: int
  generator_every: int
  discriminator_every: int

  @property
  def adversarial(self) -> int | None:
    """Name the step at which the discriminator sets in, if it does."""
    return dict(self.main)[ADVERSARIAL].begin if ADVERSARIAL in dict(self.main) else None

  @property
  def terms(self) -> set[str]:
    """Name the terms that count at some step."""
    return {name for name, _ in self.before + self.main}

  def at(self, step: int) -> Phase:
    """Give a step's phase."""
    if step < self.pretrain:
      return Phase(self.before)
    weights = tuple((name, weight) for name, weight in self.main if weight.begin <= step)
    if ADVERSARIAL not in dict(weights):
      return Phase(weights)
    generator, discriminator = (
      step % every == 0 for every in (self.generator_every, self.discriminator_every)
    )
    return Phase(weights, generator or not discriminator, discriminator)

  def updates(self, steps: int) -> tuple[int, int]:
    """Count a run's updates: of the generator in the main stage, and of the discriminator."""
    begin = steps if self.adversarial is None else min(self.adversarial, steps)
    number = np.arange(begin, steps)
    discriminator = number % self.discriminator_every == 0
    generator = (number % self.generator_every == 0) | ~discriminator
    return begin - self.pretrain + int(generator.sum()), int(discriminator.sum())


def make_plan(
  loss: Mapping[str, float],
  *,
  start: Mapping[str, int],
  ramp: Mapping[str, int],
  pretrain: int = 0,
  pretrain_loss: Mapping[str, float],
  generator_every: int = 1,
  discriminator_every: int = 1,
) -> Plan:
  """Lay out a run; raises UserError for an unknown term, or a stage that has none."""
  main = _weights(loss, 'loss')
  if all(start.get(name, 0) > 0 for name in main):
    raise UserError('config.start: every term of config.loss sets in late; let one start at 0')
  before = _weights(pretrain_loss, 'pretrain.loss') if pretrain else {}
  if ADVERSARIAL in before:
    raise UserError('config.pretrain.loss.adversarial: the discriminator comes with config.loss')
  begin = {name: pretrain + start.get(name, 0) for name in main}
  return Plan(
    before=tuple((name, Weight(weight)) for name, weight in before.items()),
    main=tuple((n, Weight(weight, begin[n], ramp.get(n, 0))) for n, weight in main.items()),
    pretrain=pretrain,
    generator_every=generator_every,
    discriminator_every=discriminator_every,
  )


def _weights(loss: Mapping[str, float], section: str) -> dict[str, float]:
  weights = {name: weight for name, weight in sorted(loss.items()) if weight}
  for name in weights:
    if name not in TERMS:
      raise UserError(f'loss {name!r} is unknown: {nearest(name, TERMS)}')
  if not weights:
    known = ', '.join(sorted(TERMS))
    raise UserError(f'config.{section} is empty: weigh at least one of {known}')
  return weights


def reduce(values: jax.Array, mask: Float[Array, 'b h w 1']) -> Float[Array, '']:
  """Average a term: over the mask's pixels if it has one value for each, else over images."""
  if values.ndim != 4:
    return values.mean()
  return (values * mask).sum() / (mask.sum() * values.shape[-1])
