"""SPAN's convolutions, folded after training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import build, draw, quick, shapes

from jaxsr.models import span


@pytest.mark.parametrize('channels', [1, 3])
def test_folding_keeps_the_output(channels, rng):
  lr = jnp.asarray(rng.random((2, 9, 7, channels), dtype=np.float32))
  trained = build('span', channels=channels)
  folded = build('span', {'folded': True}, channels=channels)
  params = draw(rng, trained, lr.shape, train=False)['params']  # biases as well
  small = span.fold(params)
  expected = shapes(folded, lr.shape, train=False)[1]['params']
  assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
  a = quick(lambda p, x: trained.apply({'params': p}, x, train=False))(params, lr)
  b = quick(lambda p, x: folded.apply({'params': p}, x, train=False))(small, lr)
  size = float(jnp.abs(a).max())
  np.testing.assert_allclose(b / size, a / size, atol=1e-5)


def test_folding_leaves_what_is_folded(rng):
  folded = build('span', {'folded': True})
  params = draw(rng, folded, (1, 5, 5, 1), train=False)['params']
  jax.tree.map(np.testing.assert_array_equal, span.fold(params), params)
