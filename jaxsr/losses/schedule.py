"""Which loss terms are active at which step, and with which weight.

A run may have two stages: `pretrain` steps with a loss of their own, then the main stage. In the
main stage a term starts `start` steps after the stage begins and grows to its weight over `ramp`
steps.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr.errors import UserError, nearest
from jaxsr.losses import ADVERSARIAL, TERMS


def needs_of(terms: Iterable[str]) -> set[str]:
  """Returns the inputs that terms need, by name (see `losses.Term`)."""
  return {need for name in terms for need in TERMS[name].needs}


class Weight(NamedTuple):
  """The weight of a term, the step at which it starts, and the steps over which it grows."""

  value: float
  begin: int = 0
  ramp: int = 0

  def at(self, step: jax.Array) -> jax.Array:
    """Returns the weight at a step."""
    if not self.ramp:
      return jnp.float32(self.value)
    return self.value * jnp.clip((step - self.begin + 1) / self.ramp, 0.0, 1.0)


class Phase(NamedTuple):
  """The active terms of a step and the networks it updates.

  Steps of equal phases share one compiled program.
  """

  weights: tuple[tuple[str, Weight], ...]
  generator: bool = True  # whether it is updated
  discriminator: bool = False  # whether it is updated

  @property
  def terms(self) -> list[str]:
    """The names of the active terms."""
    return [name for name, _ in self.weights]

  @property
  def needs(self) -> set[str]:
    """The inputs that the active terms need (see `losses.Term`)."""
    return needs_of(self.terms)


class Plan(NamedTuple):
  """The phases of a run."""

  before: tuple[tuple[str, Weight], ...]
  main: tuple[tuple[str, Weight], ...]
  pretrain: int
  generator_every: int
  discriminator_every: int

  @property
  def adversarial(self) -> int | None:
    """The step at which the adversarial term starts, or None."""
    return dict(self.main)[ADVERSARIAL].begin if ADVERSARIAL in dict(self.main) else None

  @property
  def terms(self) -> set[str]:
    """The names of the terms that are active at some step."""
    return {name for name, _ in self.before + self.main}

  @property
  def needs(self) -> set[str]:
    """The inputs that the terms of the run need (see `losses.Term`)."""
    return needs_of(self.terms)

  def at(self, step: int) -> Phase:
    """Returns the phase of a step."""
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
    """Count the updates of the generator in the main stage, and those of the discriminator."""
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
  """Build the phases of a run.

  Args:
    loss: The weights of the main stage by term; 0 leaves a term out.
    start: Steps of the main stage before a term starts, by term.
    ramp: Steps over which a term then grows to its weight, by term.
    pretrain: Steps of the first stage; 0 if there is none.
    pretrain_loss: The weights of the first stage.
    generator_every: Steps from one update of the generator to the next in adversarial training.
    discriminator_every: The same for the discriminator.

  Raises:
    UserError: A term is unknown, or a stage has no term.
  """
  main = _weights(loss, 'loss')
  if all(start.get(name, 0) > 0 for name in main):
    raise UserError(
      'config.start: every term of config.loss starts late, so that the first steps have no loss; '
      'set config.start of one of them to 0'
    )
  before = _weights(pretrain_loss, 'pretrain.loss') if pretrain else {}
  if ADVERSARIAL in before:
    raise UserError(
      'config.pretrain.loss.adversarial: the first stage has no discriminator; set '
      'config.loss.adversarial instead'
    )
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
    raise UserError(
      f'config.{section} is empty: set the weight of at least one term, for example '
      f'--config.{section}.l1=1 (terms: {known})'
    )
  return weights
