"""Content losses: distances between the features of a frozen network. One value per image."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr.metrics import feature_distance

Features = Float[Array, 'b y x f']

DISTANCES = ('mse', 'l1', 'euclidean', 'relative')
_ALL = (1, 2, 3)


def content(sr: Features, hr: Features, *, distance: str) -> Float[Array, ' b']:
  """Compute the distance of features (Johnson et al., ECCV 2016).

  Args:
    sr: Features of the generated images.
    hr: Features of the true images.
    distance: 'mse' (SRGAN), 'euclidean' (its root), 'l1' (ESRGAN) or 'relative'.
  """
  if distance == 'relative':
    return feature_distance(sr, hr)
  difference = sr.astype(jnp.float32) - hr.astype(jnp.float32)
  if distance == 'l1':
    return jnp.abs(difference).mean(_ALL)
  mse = jnp.square(difference).mean(_ALL)
  return jnp.sqrt(mse + 1e-12) if distance == 'euclidean' else mse
