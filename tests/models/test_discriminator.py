"""The discriminators of SRGAN and of Swift-SRGAN: their costs and shapes."""

import jax.numpy as jnp
import pytest

from jaxsr import models
from jaxsr.models.discriminator import Discriminator
from models.small import shapes


@pytest.mark.parametrize(('separable', 'count'), [(False, 23_565_505), (True, 19_413_279)])
def test_discriminators_have_the_published_parameters(separable, count):
  logits, variables = shapes(Discriminator(separable=separable), (2, 96, 96, 3), train=False)
  assert models.count_parameters(variables) == count
  assert (logits.shape, logits.dtype) == ((2, 1), jnp.float32)


@pytest.mark.parametrize('separable', [False, True])
@pytest.mark.parametrize('image', [(2, 96, 96, 1), (1, 100, 71, 3), (1, 32, 32, 1)])
def test_discriminators_take_any_size(separable, image):
  small = Discriminator(features=4, hidden=8, separable=separable, dtype=jnp.bfloat16)
  logits, _ = shapes(small, image, train=False)
  assert (logits.shape, logits.dtype) == ((image[0], 1), jnp.float32)
