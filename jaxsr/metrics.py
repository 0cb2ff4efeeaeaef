"""PSNR and SSIM of images with values in [0, 1], by dm-pix, with the border and the centre.

`border` pixels are cut off each side first; the *centre* is the middle three quarters of each
side of the whole image. On chest films 1 % of the pixels, hard film edges and burnt-in letters
near the border, can carry most of the squared error; the centre is where the anatomy is.
"""

import math
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WINDOW = 11  # SSIM's Gaussian window, sigma 1.5 (Wang et al., 2004)
SMALLEST = 2 * WINDOW  # pixels of a side inside the border, so that the centre holds a window
LUMA = (65.481, 128.553, 24.966)  # of red, green and blue in Y, times 255
EQUAL = 100.0  # dB given to equal images, whose PSNR is infinite; nothing is rated higher

Images = Float[Array, 'b _ _ c']


def quantise(image: Images, levels: int | jax.Array) -> Images:
  """Clip to [0, 1] and round to `levels` steps: 255 for 8 bit, 65535 for 16 bit."""
  return jnp.round(jnp.clip(image, 0.0, 1.0) * levels) / levels


def shave(image: Images, border: int) -> Images:
  """Cut `border` pixels off each side."""
  return image[:, border : image.shape[1] - border, border : image.shape[2] - border]


def centre(image: Images) -> Images:
  """Cut an eighth of the side off each edge."""
  rows, columns = image.shape[1] // 8, image.shape[2] // 8
  return image[:, rows : image.shape[1] - rows, columns : image.shape[2] - columns]


def luma(image: Any, *, peak: float = 1.0) -> Any:
  """Convert RGB [..., 3] of a peak to BT.601's Y [..., 1], from 16/255 to 235/255 of that peak.

  Arrays of NumPy stay what they are, in their precision.
  """
  weighted = [weight * image[..., i : i + 1] for i, weight in enumerate(LUMA)]
  return 16 / 255 * peak + sum(weighted) / 255


def psnr(mse: float) -> float:
  """Turn a mean squared error, peak 1, into decibels; equal images get `EQUAL`."""
  if not math.isfinite(mse):
    raise ValueError(f'a mean squared error of {mse} has no PSNR')
  return min(-10.0 * math.log10(mse), EQUAL) if mse > 0 else EQUAL


def ssim(a: Images, b: Images) -> Float[Array, ' b']:
  """Compute the structural similarity over the valid 11x11 Gaussian windows (Wang et al., 2004)."""
  if min(a.shape[1:3]) < WINDOW:
    raise ValueError(f'SSIM needs sides of at least {WINDOW} pixels, not {a.shape[1:3]}')
  return jnp.asarray(dm_pix.ssim(a, b))


def measure(sr: Images, hr: Images, *, border: int) -> dict[str, jax.Array]:
  """Compute an image's figures as plain means, which a table turns into decibels.

  Returns, for each image: `mse` and `ssim` with the border cut off, `mse_centre` and
  `ssim_centre`, and `mse_uncropped`.
  """
  inner_sr, inner_hr = shave(sr, border), shave(hr, border)
  return {
    'mse': jnp.asarray(dm_pix.mse(inner_sr, inner_hr)),
    'ssim': ssim(inner_sr, inner_hr),
    'mse_centre': jnp.asarray(dm_pix.mse(centre(sr), centre(hr))),
    'ssim_centre': ssim(centre(sr), centre(hr)),
    'mse_uncropped': jnp.asarray(dm_pix.mse(sr, hr)),
  }
