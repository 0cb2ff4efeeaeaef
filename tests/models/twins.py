"""Comparison of networks with their PyTorch references, which compute in float64 here.

The tolerance is 1e-5 of the largest value, and at least 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.small import draw, quick

torch = pytest.importorskip('torch', reason='PyTorch twins (pip install torch)')

from torch_reference.twins import from_torch, load, to_torch, weights  # noqa: E402

tn, F = torch.nn, torch.nn.functional


def close(ours, theirs, largest=None):
  largest = np.abs(theirs).max() if largest is None else largest
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, largest))


def agree(rng, network, twin, shape, *, amplify=1.0, **options):
  """Compare the output and the gradients of the input and of each parameter.

  `amplify` enlarges gradients that would be too small to compare. Returns this implementation's
  running averages before and after; the reference's are in `twin`.
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
  """Compare gradients of parameters, to 1e-5 of the layer's largest gradient.

  Not of the parameter's own: the gradient of a bias before a BatchNorm is a sum of large numbers
  that cancel.
  """
  for parameter in twin.parameters():
    if parameter.grad is None:  # a slope that is never used
      parameter.grad = torch.zeros_like(parameter)
  for layer, parameter, ours in weights(twin, gradient):
    largest = max(float(p.grad.abs().max()) for p in layer.parameters(recurse=False))
    close(ours, parameter.grad.numpy(), largest)
