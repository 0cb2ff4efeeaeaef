"""Adversarial losses on logits, in their published forms. One value per image.

A discriminator computes one logit per image, which is high for images that look real. `real` and
`fake` are the logits of a batch of real images and of generated ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Logits = Float[Array, 'b 1']
Values = Float[Array, ' b']
LogitFunction = Callable[[Logits, Logits], Array]


class Form(NamedTuple):
  """A form of the adversarial loss, as functions of the logits (real, fake).

  Attributes:
    discriminator: The loss of the discriminator, [b, 1].
    generator: The loss of the generator, [b, 1].
    correct: Whether real images, then generated ones, are classified correctly, [2 b, 1].
  """

  discriminator: LogitFunction
  generator: LogitFunction
  correct: LogitFunction


def _above(threshold: float) -> LogitFunction:
  return lambda real, fake: jnp.concatenate([real > threshold, fake < threshold])


def _relative(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
  """Subtract the mean logit of the other kind from each logit."""
  return real - fake.mean(), fake - real.mean()


def _relativistic(real: Logits, fake: Logits) -> Array:
  real, fake = _relative(real, fake)
  return (nn.softplus(-real) + nn.softplus(fake)) / 2


def _relativistic_correct(real: Logits, fake: Logits) -> Array:
  real, fake = _relative(real, fake)
  return jnp.concatenate([real > 0, fake < 0])


FORMS = {
  # Binary cross-entropy, non-saturating for the generator (Goodfellow et al., 2014;
  # SRGAN, Ledig et al., CVPR 2017).
  'bce': Form(
    lambda real, fake: nn.softplus(-real) + nn.softplus(fake),
    lambda real, fake: nn.softplus(-fake),
    _above(0.0),
  ),
  # On probabilities, without a logarithm (Swift-SRGAN, Krishnan & Krishnan, 2021). Its gradient
  # vanishes when the discriminator is certain.
  'probability': Form(
    lambda real, fake: 1 - nn.sigmoid(real) + nn.sigmoid(fake),
    lambda real, fake: 1 - nn.sigmoid(fake),
    _above(0.0),
  ),
  # Least squares, with labels 1 and 0 (Mao et al., ICCV 2017).
  'least_squares': Form(
    lambda real, fake: (jnp.square(real - 1) + jnp.square(fake)) / 2,
    lambda real, fake: jnp.square(fake - 1) / 2,
    _above(0.5),
  ),
  # Hinge (Lim & Ye, 2017; Miyato et al., ICLR 2018).
  'hinge': Form(
    lambda real, fake: nn.relu(1 - real) + nn.relu(1 + fake),
    lambda real, fake: -fake,
    _above(0.0),
  ),
  # Relativistic average (Jolicoeur-Martineau, ICLR 2019; ESRGAN, Wang et al., ECCVW 2018).
  'relativistic': Form(
    _relativistic,
    lambda real, fake: _relativistic(fake, real),
    _relativistic_correct,
  ),
}


def discriminator_loss(real: Logits, fake: Logits, *, form: str) -> Values:
  """Compute the loss of the discriminator."""
  return FORMS[form].discriminator(real, fake)[:, 0]


def generator_loss(real: Logits, fake: Logits, *, form: str) -> Values:
  """Compute the loss of the generator."""
  return FORMS[form].generator(real, fake)[:, 0]


def accuracy(real: Logits, fake: Logits, *, form: str) -> Float[Array, '']:
  """Compute the share of real and generated images classified correctly; chance is 0.5."""
  return FORMS[form].correct(real, fake).astype(jnp.float32).mean()


def r1(logits: Callable[[Array], Logits], images: Float[Array, 'b h w c']) -> Values:
  """Compute half the squared gradient at real images (Mescheder et al., ICML 2018)."""
  gradients = jax.grad(lambda x: logits(x).sum())(images)
  return jnp.square(gradients).sum((1, 2, 3)) / 2
