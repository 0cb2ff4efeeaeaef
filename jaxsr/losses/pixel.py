"""Pixel losses: one value per element, without a mean."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, 'b h w c']


def l1(sr: Image, hr: Image) -> Image:
  """Compute the absolute error, whose gradient has the same size everywhere (Zhao et al., 2017)."""
  return jnp.abs(sr - hr)


def mse(sr: Image, hr: Image) -> Image:
  """Compute the squared error, which PSNR measures."""
  return jnp.square(sr - hr)


def charbonnier(sr: Image, hr: Image, *, epsilon: float = 1e-3) -> Image:
  """Compute a smooth absolute error (Charbonnier et al., ICIP 1994; LapSRN, CVPR 2017)."""
  return jnp.sqrt(jnp.square(sr - hr) + epsilon**2)
