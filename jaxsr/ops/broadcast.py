"""Explicit broadcasting: jaxsr computes the same with `jax_numpy_rank_promotion='raise'`."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def per_channel(
  values: Float[Array, 'c'] | Float[np.ndarray, 'c'],
) -> Float[Array, '1 1 1 c']:
  """Returns one value per channel, such as a bias, as an image of one pixel."""
  return jnp.expand_dims(values, (0, 1, 2))
