"""Content losses: distances between the features of a frozen network. One value an image."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Features = Float[Array, 'b y x f']

DISTANCES = ('mse', 'l1', 'euclidean', 'relative')
_ALL = (1, 2, 3)


def content(sr: Features, hr: Features, *, distance: str) -> Float[Array, ' b']:
  """Compare features: 'mse' (SRGAN), its root 'euclidean', 'l1' (ESRGAN), or `relative`.

  Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016.
  """
  if distance == 'relative':
    return relative(sr, hr)
  difference = sr.astype(jnp.float32) - hr.astype(jnp.float32)
  if distance == 'l1':
    return jnp.abs(difference).mean(_ALL)
  mse = jnp.square(difference).mean(_ALL)
  return jnp.sqrt(mse + 1e-12) if distance == 'euclidean' else mse


def relative(sr: Features, hr: Features) -> Float[Array, ' b']:
  """Take the squared distance of features in parts of the squared size of the true ones.

  It has no unit, so that networks and layers can be compared.
  """
  sr, hr = sr.astype(jnp.float32), hr.astype(jnp.float32)
  return jnp.square(sr - hr).sum(_ALL) / jnp.square(hr).sum(_ALL)
