"""Batches of images on the device."""

import jax
import jax.numpy as jnp

Batch = dict[str, jax.Array]  # by name; see `pipeline` for the names and shapes


def normalize(batch: Batch) -> Batch:
  """Convert a batch of integers to float32 in [0, 1]; part of the jitted step."""
  peak = lambda x: jnp.iinfo(x.dtype).max  # noqa: E731
  floats = {n: x.astype(jnp.float32) / peak(x) for n, x in batch.items() if n != 'mask'}
  return {**floats, 'mask': batch['mask'].astype(jnp.float32)}
