"""Pixel losses: one value for each element, neither weighted nor reduced."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, 'b h w c']


def l1(sr: Image, hr: Image) -> Image:
  """Take the absolute error; its gradient ignores the size of an error (Zhao et al., 2017)."""
  return jnp.abs(sr - hr)


def mse(sr: Image, hr: Image) -> Image:
  """Take the squared error, which is what PSNR measures."""
  return jnp.square(sr - hr)


def charbonnier(sr: Image, hr: Image, *, epsilon: float = 1e-3) -> Image:
  """Take a smooth absolute error (Charbonnier et al., ICIP 1994; as in LapSRN, CVPR 2017)."""
  return jnp.sqrt(jnp.square(sr - hr) + epsilon**2)
