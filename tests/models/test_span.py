"""SPAN's convolutions, folded after training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.models import span
from models.small import build, draw, shapes


@pytest.mark.parametrize('channels', [1, 3])
def test_folding_keeps_the_output(channels, rng):
  lr = jnp.asarray(rng.random((2, 9, 7, channels), dtype=np.float32))
  trained = build('span', channels=channels)
  folded = build('span', {'folded': True}, channels=channels)
  params = draw(rng, trained, lr.shape, train=False)['params']  # biases as well
  small = span.fold(params)
  expected = shapes(folded, lr.shape, train=False)[1]['params']
  assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
  with jax.enable_x64(True):  # its attention amplifies rounding errors
    double = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)
    run = lambda network, p: network.clone(dtype=jnp.float64).apply(
      {'params': double(p)}, double(lr), train=False
    )
    a, b = run(trained, params), run(folded, span.fold(double(params)))
  np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * np.abs(a).max())


def test_folding_leaves_what_is_folded(rng):
  folded = build('span', {'folded': True})
  params = draw(rng, folded, (1, 5, 5, 1), train=False)['params']
  jax.tree.map(np.testing.assert_array_equal, span.fold(params), params)
