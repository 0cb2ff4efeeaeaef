"""Comparison of networks with their PyTorch references, which compute in float64 here.

The tolerance is 1e-5 of the largest value, and at least 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.small import draw, quick

torch = pytest.importorskip('torch', reason='PyTorch references (pip install torch)')

from torch_reference.networks import from_torch, load, to_torch, weights  # noqa: E402

tn, F = torch.nn, torch.nn.functional


def close(own, expected, largest=None):
  largest = np.abs(expected).max() if largest is None else largest
  np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5 * max(1.0, largest))


def agree(rng, network, reference, shape, *, amplify=1.0, **options):
  """Compare the output and the gradients of the input and of each parameter.

  `amplify` enlarges gradients that would be too small to compare. Returns this implementation's
  running averages before and after; the reference's are in `reference`.
  """
  x = rng.random(shape, dtype=np.float32)
  variables = draw(rng, network, shape, **options)
  reference.double().train(options.get('train', False))
  load(reference, variables)
  torch_x = to_torch(x).requires_grad_()
  expected = reference(torch_x)
  g = (amplify * rng.normal(size=from_torch(expected).shape)).astype(np.float32)
  expected.backward(to_torch(g))

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
  for a, b in ((y, from_torch(expected)), (of_x, from_torch(torch_x.grad))):
    close(a, b)
    assert np.abs(b).max() > 1e-3
  parameters_agree(reference, of_params)
  return variables.get('batch_stats', {}), changed.get('batch_stats', {})


def parameters_agree(reference, gradient):
  """Compare gradients of parameters, to 1e-5 of the layer's largest gradient.

  Not of the parameter's own: the gradient of a bias before a BatchNorm is a sum of large numbers
  that cancel.
  """
  for parameter in reference.parameters():
    if parameter.grad is None:  # a slope that is never used
      parameter.grad = torch.zeros_like(parameter)
  for layer, parameter, found in weights(reference, gradient):
    largest = max(float(p.grad.abs().max()) for p in layer.parameters(recurse=False))
    close(found, parameter.grad.numpy(), largest)
