"""How networks are compared with twins in PyTorch, and the layers that the twins share.

A twin's children are named as Flax names its own, so that weights go over by their paths. Twins
compute in float64. Agreement is to 1e-5 of the largest value, or 1e-5 where values are small.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import draw, quick

from jaxsr import models

torch = pytest.importorskip('torch', reason='PyTorch twins (pip install torch)')
tn, F = torch.nn, torch.nn.functional

MEAN = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
STAGES = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}  # of pixel shuffles, for a scale
NAMES = {
  **{name: 'weight' for name in ('kernel', 'scale', 'negative_slope')},
  **{'mean': 'running_mean', 'var': 'running_var'},
}


def to_torch(x):
  """Copy an array in float64; images become NCHW."""
  x = np.array(x, np.float64)
  return torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim == 4 else x))


def from_torch(x):
  x = x.detach().numpy()
  return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def weights(twin, tree):
  """Give, for each leaf, the twin's layer, its tensor, and the leaf in PyTorch's layout."""
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    *modules, name = (part.key for part in path)
    layer = twin.get_submodule('.'.join(modules))
    theirs = getattr(layer, NAMES.get(name, name))
    yield layer, theirs, laid_out(layer, name, np.array(x, np.float64))


def laid_out(layer, name, x):
  """Bring a parameter, or its gradient, into PyTorch's layout."""
  if factor := getattr(layer, 'shuffle', None):  # row, column, channel: channel first
    x = x.reshape(*x.shape[:-1], factor**2, -1).swapaxes(-1, -2).reshape(x.shape)
  if name == 'kernel' and x.ndim == 4:
    x = x.transpose(3, 2, 0, 1)
  elif name == 'kernel':
    if grid := getattr(layer, 'grid', None):  # what is flattened: channel, row, column
      x = x.reshape(*grid, -1).transpose(2, 0, 1, 3).reshape(x.shape)
    x = x.T
  return np.atleast_1d(x)  # a slope for all channels


def load(twin, variables):
  """Copy parameters and running averages to the twin; nothing may be left over."""
  for tree in variables.values():
    for _, theirs, ours in weights(twin, tree):
      assert theirs.shape == ours.shape
      theirs.data = torch.tensor(np.ascontiguousarray(ours))
  count = sum(p.numel() for p in twin.parameters())
  assert count == models.count_parameters(variables)


def close(ours, theirs, largest=None):
  largest = np.abs(theirs).max() if largest is None else largest
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, largest))


def agree(rng, network, twin, shape, *, amplify=1.0, **options):
  """Compare the output and the gradients of the input and of each parameter.

  `amplify` makes gradients larger where they would be too small to compare. Return running
  averages: before, and after by us; the twin's are in the twin.
  """
  x = rng.random(shape, dtype=np.float32)
  variables = draw(rng, network, shape, **options)
  twin.double().train(options.get('train', False))
  load(twin, variables)
  theirs_in = to_torch(x).requires_grad_()
  theirs = twin(theirs_in)
  g = (amplify * rng.normal(size=from_torch(theirs).shape)).astype(np.float32)
  theirs.backward(to_torch(g))

  @quick
  def run(variables, x, g):
    def call(params, x):
      y, changed = network.apply(
        variables | {'params': params}, x, mutable=['batch_stats'], **options
      )
      return jnp.concatenate(y, -1) if isinstance(y, tuple) else y, changed

    y, pull, changed = jax.vjp(call, variables.get('params', {}), x, has_aux=True)
    return y, *pull(g), changed

  y, of_params, of_x, changed = run(variables, x, g)
  for a, b in ((y, from_torch(theirs)), (of_x, from_torch(theirs_in.grad))):
    close(a, b)
    assert np.abs(b).max() > 1e-3
  parameters_agree(twin, of_params)
  return variables.get('batch_stats', {}), changed.get('batch_stats', {})


def parameters_agree(twin, gradient):
  """Compare gradients of parameters, to 1e-5 of the largest of the layer.

  Of the layer: that of a bias before a BatchNorm is a sum of large numbers which is zero.
  """
  for parameter in twin.parameters():
    if parameter.grad is None:  # a slope that is never used
      parameter.grad = torch.zeros_like(parameter)
  for layer, parameter, ours in weights(twin, gradient):
    largest = max(float(p.grad.abs().max()) for p in layer.parameters(recurse=False))
    close(ours, parameter.grad.numpy(), largest)


def conv(inputs, outputs, size=3, **options):
  return tn.Conv2d(inputs, outputs, size, **({'padding': size // 2} | options))


def shuffled(inputs, outputs, factor, layer=conv):
  """Make a convolution for a pixel shuffle, which has a layout of its own."""
  made = layer(inputs, outputs * factor**2)
  getattr(made, 'pointwise', made).shuffle = factor
  return made


def numbered(module, prefix, parts):
  """Name parts prefix_0, prefix_1 and so on, and give them as a list."""
  parts = list(parts)
  for i, part in enumerate(parts):
    module.add_module(f'{prefix}_{i}', part)
  return parts


class Upsampler(tn.Module):
  def __init__(self, scale, features):
    super().__init__()
    self.factors = STAGES[scale]
    numbered(self, 'conv', (shuffled(features, features, s) for s in self.factors))

  def forward(self, x):
    for layer, factor in zip(self.children(), self.factors, strict=True):
      x = F.pixel_shuffle(layer(x), factor)
    return x
