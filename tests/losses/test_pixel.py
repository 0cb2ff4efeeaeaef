import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.losses import TERMS, GeneratorOutputs, LossContext, reduce

REFERENCE = {
  'l1': lambda e: np.abs(e),
  'mse': lambda e: e**2,
  'charbonnier': lambda e: np.sqrt(e**2 + 1e-6),
}


@pytest.fixture
def images(rng):
  return (rng.random((2, 6, 5, 1), dtype=np.float32) for _ in range(2))


@pytest.mark.parametrize('name', REFERENCE)
def test_term_equals_numpy(name, images):
  sr, hr = images
  outputs, batch = GeneratorOutputs(jnp.asarray(sr)), {'hr': jnp.asarray(hr)}
  found = TERMS[name].compute(LossContext(outputs=outputs, batch=batch, margin=0))
  np.testing.assert_allclose(found, REFERENCE[name](sr - hr), rtol=1e-5, atol=1e-7)


def test_mask_decides_what_counts(images):
  values = jnp.asarray(next(images))
  mask = jnp.zeros((2, 6, 5, 1)).at[:, 2:4, 1:3].set(1.0)
  np.testing.assert_allclose(reduce(values, mask), values[:, 2:4, 1:3].mean(), rtol=1e-6)
  np.testing.assert_allclose(reduce(values[:, 0, 0, 0], mask), values[:, 0, 0, 0].mean())
