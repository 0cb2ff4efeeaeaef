import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.losses import adversarial
from jaxsr.losses.adversarial import FORMS


@pytest.fixture
def logits(rng):
  return [rng.normal(0.3, 1.5, (6, 1)).astype(np.float32) for _ in range(2)]


def sigmoid(x):
  return 1 / (1 + np.exp(-x.astype(np.float64)))


def relative(real, fake):
  log = lambda x: np.log(sigmoid(x))
  of_real, of_fake = real - fake.mean(), fake - real.mean()
  return -(log(of_real) + np.log(1 - sigmoid(of_fake))) / 2


PAPERS = {  # what each paper writes: the discriminator's loss, the generator's
  'bce': (
    lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
    lambda r, f: -np.log(sigmoid(f)),
  ),
  'probability': (lambda r, f: 1 - sigmoid(r) + sigmoid(f), lambda r, f: 1 - sigmoid(f)),
  'least_squares': (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda r, f: (f - 1) ** 2 / 2),
  'hinge': (lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f), lambda r, f: -f),
  'relativistic': (relative, lambda r, f: relative(f, r)),
}


@pytest.mark.parametrize('form', FORMS)
def test_form_equals_its_paper(form, logits):
  discriminator, generator = PAPERS[form]
  found = adversarial.discriminator_loss(*map(jnp.asarray, logits), form=form)
  np.testing.assert_allclose(found, discriminator(*logits)[:, 0], rtol=1e-5)
  found = adversarial.generator_loss(*map(jnp.asarray, logits), form=form)
  np.testing.assert_allclose(found, generator(*logits)[:, 0], rtol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_each_side_pulls_its_own_way(form, logits):
  """Descent on the generator's loss raises fakes; on the discriminator's it lowers them."""
  real, fake = map(jnp.asarray, logits)
  for side, sign in ((adversarial.generator_loss, -1), (adversarial.discriminator_loss, 1)):
    slope = jax.grad(lambda f, side=side: side(real, f, form=form).mean())(fake)
    assert (sign * slope).sum() > 0


@pytest.mark.parametrize('form', FORMS)
def test_accuracy_is_the_share_of_right_judgments(form):
  high, low = jnp.full((4, 1), 3.0), jnp.full((4, 1), -3.0)
  assert adversarial.accuracy(high, low, form=form) == 1
  assert adversarial.accuracy(low, high, form=form) == 0
  mixed = jnp.array([[3.0], [3.0], [-3.0], [-3.0]])
  assert adversarial.accuracy(mixed, mixed, form=form) == 0.5


def test_a_discriminator_that_scores_everything_zero_is_at_chance():
  """A published collapse: logits of 1e-16 for real and generated images."""
  scores = jnp.full((8, 1), -36.0)
  assert adversarial.accuracy(scores, scores, form='probability') == 0.5
  slope = jax.grad(lambda f: adversarial.generator_loss(scores, f, form='probability').mean())(
    scores
  )
  assert np.abs(slope).max() < 1e-15  # the generator is told nothing
  slope = jax.grad(lambda f: adversarial.generator_loss(scores, f, form='bce').mean())(scores)
  assert np.abs(slope).max() > 0.1  # with the logarithm, it is


def test_r1_of_a_linear_judge_is_half_its_squared_weights(rng):
  weights = jnp.asarray(rng.normal(size=(8, 8, 1)).astype(np.float32))
  judge = lambda x: (x * weights[None]).sum((1, 2, 3), keepdims=True)[:, :, 0, 0]
  found = adversarial.r1(judge, jnp.zeros((3, 8, 8, 1)))
  np.testing.assert_allclose(found, np.full(3, (weights**2).sum() / 2), rtol=1e-5)
