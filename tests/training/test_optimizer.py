"""Optimizers: Muon updates the kernels that mix channels, AdamW the other parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr.training.optimizer import RMS, make_optimizer, updates

OPTIONS = {'warmup': 0, 'b1': 0.9, 'b2': 0.999, 'weight_decay': 0.0, 'clip_norm': 0.0}
SHAPES = {
  'head/kernel': (3, 3, 1, 16),
  'body/kernel': (3, 3, 16, 24),
  'dense/kernel': (16, 24),
  'depthwise/kernel': (3, 3, 1, 16),
  'tail/kernel': (3, 3, 16, 1),
  'body/bias': (24,),
  'attention/position_bias': (15, 4),
}
TURNED = ('body/kernel', 'dense/kernel')


def first_updates(name):
  rng = np.random.default_rng(0)
  drawn = {k: jnp.asarray(rng.normal(size=shape), jnp.float32) for k, shape in SHAPES.items()}
  grads = unflatten_dict(drawn, sep='/')
  params = jax.tree.map(jnp.zeros_like, grads)
  tx, _ = make_optimizer([(1e-2, 100)], name=name, **OPTIONS)
  state = tx.init(params)
  assert int(updates(state)) == 0
  found, state = tx.update(grads, state, params)
  assert int(updates(state)) == 1
  return grads, flatten_dict(found, sep='/')


def test_muon_is_nadamw_but_for_kernels_that_mix_channels():
  grads, muon = first_updates('muon')
  tx = optax.nadamw(1e-2, b1=OPTIONS['b1'], b2=OPTIONS['b2'], weight_decay=0.0)
  params = jax.tree.map(jnp.zeros_like, grads)
  nadamw, _ = tx.update(grads, tx.init(params), params)
  nadamw = flatten_dict(nadamw, sep='/')
  for name in SHAPES:
    assert np.allclose(muon[name], nadamw[name], rtol=1e-6) == (name not in TURNED), name


@pytest.mark.parametrize('name', TURNED)
def test_muon_makes_all_singular_values_alike(name):
  """An update is the gradient with equal singular values, and has the size of AdamW's."""
  grads, found = first_updates('muon')
  matrix = np.asarray(flatten_dict(grads, sep='/')[name]).reshape(-1, SHAPES[name][-1])
  step = -np.asarray(found[name]).reshape(matrix.shape)
  u, _, vt = np.linalg.svd(matrix, full_matrices=False)
  along = u.T @ step @ vt.T
  values = np.diag(along) / np.diag(along).mean()
  assert values.min() > 0.6 and values.max() < 1.4
  np.testing.assert_allclose(along - np.diag(np.diag(along)), 0, atol=1e-4)
  assert np.sqrt(np.square(step).mean()) == pytest.approx(1e-2 * RMS, rel=0.2)
