"""A cut network equals the large one in which all other weights are zero."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import specs
from jaxsr import models
from jaxsr.compression import slicing
from jaxsr.errors import UserError
from runs import variables_of

LARGE = {name: spec.sliceable for name, spec in specs.SPECS.items()}
TRAINED = list(LARGE)


def build(name, width=1.0, depth=1.0):
  return models.build(name, {**LARGE[name], 'width': width, 'depth': depth}, scale=2)


def shapes(tree):
  return {path: x.shape for path, x in flatten_dict(tree).items()}


@pytest.mark.parametrize('name', TRAINED)
def test_full_width_and_depth_is_the_large_network(name):
  network = build(name)
  variables = variables_of(network)
  cut = slicing.make_cut(network, network, variables, ranked=True)
  jax.tree.map(np.testing.assert_array_equal, cut.take(variables), variables)


@pytest.mark.parametrize('name', [name for name in TRAINED if name != 'swinir'])
def test_a_narrow_one_is_the_large_one_without_the_dropped_channels(name):
  """With every weight zero that was not taken, the large network has the small one's output.

  Not so for SwinIR, whose LayerNorm averages over all channels.
  """
  large, small = build(name), build(name, width=0.5)
  variables = variables_of(large)
  cut = slicing.make_cut(small, large, variables, ranked=True)
  taken = cut.take(variables)
  assert shapes(taken) == shapes(variables_of(small))
  flat, kept = flatten_dict(variables), {}
  for source, places in cut.sources.values():
    kept[source] = np.zeros_like(flat[source])
    kept[source][np.ix_(*places)] = flat[source][np.ix_(*places)]
  lr = np.random.default_rng(0).random((1, 16, 16, 1), dtype=np.float32)
  with jax.enable_x64(True):  # SPAN's attention multiplies what float32 rounds
    double = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    apply = lambda network: jax.jit(partial(network.clone(dtype=jnp.float64).apply, train=False))
    run = lambda network, v: apply(network)(*double((v, lr)))
    a, b = run(small, taken), run(large, unflatten_dict(kept))
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize('name', TRAINED)
def test_shallow_and_narrow_ones_have_their_shapes(name):
  large, small = build(name), build(name, width=0.5, depth=0.5)
  variables = variables_of(large)
  for ranked in (True, False):
    cut = slicing.make_cut(small, large, variables, ranked=ranked)
    assert shapes(cut.take(variables)) == shapes(variables_of(small))


def test_a_shallow_one_has_blocks_at_even_distances():
  large, small = build('edsr'), build('edsr', depth=0.5)
  cut = slicing.make_cut(small, large, variables_of(large), ranked=True)
  blocks = {path[1]: source[1] for path, (source, _) in cut.sources.items() if 'block' in path[1]}
  assert blocks == {'block_0': 'block_0', 'block_1': 'block_3'}


def test_the_joint_of_a_shallow_rdn_sums_over_the_blocks_that_were_kept():
  large, small = build('rdn'), build('rdn', depth=0.5)
  cut = slicing.make_cut(small, large, variables_of(large), ranked=True)
  _, places = cut.sources['params', 'fusion_0', 'kernel']
  np.testing.assert_array_equal(places[2], [*range(16), *range(48, 64)])  # of blocks 0 and 3


def test_the_strongest_channels_are_kept():
  large, small = build('edsr'), build('edsr', width=0.5)
  variables = variables_of(large)
  strong = [1, 2, 5, 7, 8, 11, 13, 14]
  factors = np.full(16, 0.01, np.float32)
  factors[strong] = 1
  variables['params']['block_0']['conv_0']['kernel'] *= factors
  cut = slicing.make_cut(small, large, variables, ranked=True)
  np.testing.assert_array_equal(cut.sources['params', 'block_0', 'conv_0', 'kernel'][1][3], strong)
  first = slicing.make_cut(small, large, variables, ranked=False)
  np.testing.assert_array_equal(
    first.sources['params', 'block_0', 'conv_0', 'kernel'][1][3], range(8)
  )


def test_other_networks_are_refused():
  edsr, variables = build('edsr'), variables_of(build('edsr'))
  for small, message in (
    (build('vdsr'), 'it is a EDSR, not a VDSR'),
    (models.build('edsr', {'features': 8, 'blocks': 2, 'bicubic_skip': True}, scale=2), 'skip'),
    (models.build('edsr', {'features': 32, 'blocks': 2}, scale=2), 'features is 16, not 32'),
  ):
    with pytest.raises(UserError, match=message):
      slicing.make_cut(small, edsr, variables, ranked=True)
