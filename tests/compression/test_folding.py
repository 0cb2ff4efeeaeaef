"""Folded layers give the same image."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models
from runs import variables_of

FOLDED = {
  'span': {'features': 12, 'blocks': 2},
  'srresnet': {'features': 12, 'blocks': 2},
  'swift_srgan': {'features': 12, 'blocks': 2},
}


@pytest.mark.parametrize('name', FOLDED)
def test_folding_changes_nothing(name):
  network = models.build(name, FOLDED[name], scale=4)
  variables = variables_of(network)
  small, folded = models.fold(network, variables)
  assert 'batch_stats' not in folded
  assert models.count_parameters(folded) < models.count_parameters(variables)
  lr = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 1), dtype=np.float32))
  a = np.asarray(network.apply(variables, lr, train=False))
  b = np.asarray(small.apply(folded, lr, train=False))
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(a).max()))
  assert models.fold(small, folded)[1] is folded
  assert models.describe(small)['folded'] is True
