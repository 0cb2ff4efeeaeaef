"""Batches of images on the device, and their conversion from and to the levels of files."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Batch = dict[str, jax.Array]  # by name; see `pipeline` for the names and shapes


def normalize(batch: Batch) -> Batch:
  """Convert a batch of integers to float32 in [0, 1]; part of the jitted step."""
  peak = lambda x: jnp.iinfo(x.dtype).max  # noqa: E731
  floats = {n: x.astype(jnp.float32) / peak(x) for n, x in batch.items() if n != 'mask'}
  return {**floats, 'mask': batch['mask'].astype(jnp.float32)}


def quantize(image: Float[Array, 'b _ _ c'], levels: int | jax.Array) -> Float[Array, 'b _ _ c']:
  """Clip to [0, 1] and round to `levels` steps: 255 for 8 bit, 65535 for 16 bit."""
  return jnp.round(jnp.clip(image, 0.0, 1.0) * levels) / levels
