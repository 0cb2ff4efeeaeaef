import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.losses import TERMS, Outputs
from jaxsr.step import make_objective, reduce

REFERENCE = {
  'l1': lambda e: np.abs(e),
  'mse': lambda e: e**2,
  'charbonnier': lambda e: np.sqrt(e**2 + 1e-6),
}


@pytest.fixture
def images(rng):
  return (rng.random((2, 6, 5, 1), dtype=np.float32) for _ in range(2))


@pytest.mark.parametrize('name', TERMS)
def test_term_equals_numpy(name, images):
  sr, hr = images
  found = TERMS[name](Outputs(sr=jnp.asarray(sr)), {'hr': jnp.asarray(hr)})
  np.testing.assert_allclose(found, REFERENCE[name](sr - hr), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', TERMS)
def test_gradient_of_each_term_reaches_the_image(name, images):
  sr, hr = images
  batch = {'hr': jnp.asarray(hr), 'mask': jnp.ones((2, 6, 5, 1))}
  objective = make_objective({name: 2.0})
  loss = lambda x: objective(Outputs(sr=x), batch)[0]
  gradient = jax.grad(loss)(jnp.asarray(sr))
  direction = jnp.sign(gradient)
  step = 1e-3
  slope = (loss(sr + step * direction) - loss(sr - step * direction)) / (2 * step)
  assert slope > 0.1
  np.testing.assert_allclose(slope, (gradient * direction).sum(), rtol=5e-3)


def test_mask_decides_what_counts(images):
  values = jnp.asarray(next(images))
  mask = jnp.zeros((2, 6, 5, 1)).at[:, 2:4, 1:3].set(1.0)
  np.testing.assert_allclose(reduce(values, mask), values[:, 2:4, 1:3].mean(), rtol=1e-6)
  np.testing.assert_allclose(reduce(values[:, 0, 0, 0], mask), values[:, 0, 0, 0].mean())
