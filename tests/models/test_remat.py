"""`remat=True` recomputes blocks in the backward pass, and changes nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models
from models.small import KEY, TRAINABLE, build, draw, quick, shapes

FEW = {
  'rcan': {'groups': 1, 'blocks': 1},
  'rdn': {},
  'rrdb': {'blocks': 1},
  'swinir': {'depths': (1,)},
}


def test_all_networks_with_the_option_are_here():
  assert list(FEW) == [name for name in TRAINABLE if 'remat' in models.fields(name)]


@pytest.mark.parametrize('name', FEW)
def test_remat_changes_no_parameter_and_no_value(name, rng):
  lr = jnp.asarray(rng.random((1, 8, 8, 1), dtype=np.float32))
  plain, again = (build(name, FEW[name] | {'remat': on}) for on in (False, True))
  assert shapes(plain, lr.shape, train=False) == shapes(again, lr.shape, train=False)
  params = draw(rng, plain, lr.shape, train=True)['params']

  @quick
  def initial(x):
    return tuple(network.init(KEY, x, train=True)['params'] for network in (plain, again))

  def run(network):
    def loss(params):
      sr = network.apply({'params': params}, lr, train=True)
      return sr.sum() + (sr**2).mean()

    return quick(jax.value_and_grad(loss))(params)

  jax.tree.map(np.testing.assert_array_equal, *initial(lr))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, run(plain), run(again))


@pytest.mark.parametrize('name', FEW)
@pytest.mark.parametrize('on', [False, True])
def test_remat_wraps_each_block(name, on):
  network = build(name, {'remat': on})
  blocks = {'rcan': 2 * 2, 'rdn': 2, 'rrdb': 2, 'swinir': 2 + 2}[name]
  _, variables = shapes(network, (1, 8, 8, 1), train=True)
  predict = lambda v, x: network.apply(v, x, train=True)
  text = str(jax.make_jaxpr(predict)(variables, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)))
  found = text.count('checkpoint[') + text.count('remat2[')
  assert found == (blocks if on else 0)
