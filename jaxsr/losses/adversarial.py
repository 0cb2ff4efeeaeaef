"""Adversarial losses on logits, in the forms of the field. One value an image.

A discriminator gives a logit for each image, high for what looks real. `real` and `fake` are those
of a batch of true and of generated images.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Logits = Float[Array, 'b 1']
Values = Float[Array, ' b']
Pair = Callable[[Logits, Logits], Array]


class Form(NamedTuple):
  """What the discriminator and the generator minimise, and what counts as a right judgement.

  Each is a function of (real, fake) with a value for each image. `right` gives 1 where a judgement
  is right, of real and of fake images together, [2 b].
  """

  discriminator: Pair
  generator: Pair
  right: Pair


def _above(threshold: float) -> Pair:
  return lambda real, fake: jnp.concatenate([real > threshold, fake < threshold])


def _relative(real: Logits, fake: Logits) -> tuple[Logits, Logits]:
  """See each image against the average of the other kind."""
  return real - fake.mean(), fake - real.mean()


def _relativistic(real: Logits, fake: Logits) -> Array:
  real, fake = _relative(real, fake)
  return (nn.softplus(-real) + nn.softplus(fake)) / 2


def _relativistic_right(real: Logits, fake: Logits) -> Array:
  real, fake = _relative(real, fake)
  return jnp.concatenate([real > 0, fake < 0])


FORMS = {
  # Binary cross-entropy; the generator's is the non-saturating one (Goodfellow et al., 2014;
  # SRGAN, Ledig et al., CVPR 2017).
  'bce': Form(
    lambda real, fake: nn.softplus(-real) + nn.softplus(fake),
    lambda real, fake: nn.softplus(-fake),
    _above(0.0),
  ),
  # Of probabilities, without a logarithm (Swift-SRGAN, Krishnan & Krishnan, 2021). Its gradient
  # vanishes once the discriminator is sure.
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
    _relativistic_right,
  ),
}


def discriminator_loss(real: Logits, fake: Logits, *, form: str) -> Values:
  """Take what the discriminator minimises."""
  return FORMS[form].discriminator(real, fake)[:, 0]


def generator_loss(real: Logits, fake: Logits, *, form: str) -> Values:
  """Take what the generator minimises."""
  return FORMS[form].generator(real, fake)[:, 0]


def accuracy(real: Logits, fake: Logits, *, form: str) -> Float[Array, '']:
  """Measure the share of images, true and generated, that are judged rightly; chance is 0.5."""
  return FORMS[form].right(real, fake).astype(jnp.float32).mean()


def r1(judge: Callable[[Array], Logits], images: Float[Array, 'b h w c']) -> Values:
  """Take half the squared gradient of the logits at true images (Mescheder et al., ICML 2018)."""
  gradients = jax.grad(lambda x: judge(x).sum())(images)
  return jnp.square(gradients).sum((1, 2, 3)) / 2
