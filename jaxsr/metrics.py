"""PSNR, SSIM, MS-SSIM and high-frequency energy of images in [0, 1], computed with dm-pix.

`border` pixels are cut off each side first; the *center* is the middle three quarters of each side
of the full image. On chest films 1 % of the pixels, hard film edges and burnt-in letters near the
border, can carry most of the squared error; the center contains the anatomy.
"""

import math
from functools import partial
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

WINDOW = 11  # SSIM's Gaussian window, sigma 1.5 (Wang et al., 2004)
_SIGMA = 1.5
_BLOCK = 128  # columns per matrix product of the blur
OCTAVES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # MS-SSIM's exponents
MS_SMALLEST = WINDOW * 2 ** (len(OCTAVES) - 1)  # smallest side: the coarsest octave holds a window
SMALLEST = 2 * WINDOW  # smallest side inside the border: the center holds a window
LUMA = (65.481, 128.553, 24.966)  # weights of red, green and blue in Y, times 255
EQUAL = 100.0  # dB for equal images, whose PSNR is infinite; also the upper limit

Images = Float[Array, 'b _ _ c']


def shave(image: Images, border: int) -> Images:
  """Crop `border` pixels off each side."""
  return image[:, border : image.shape[1] - border, border : image.shape[2] - border]


def center(image: Images) -> Images:
  """Crop an eighth of the height or width off each side."""
  rows, columns = image.shape[1] // 8, image.shape[2] // 8
  return image[:, rows : image.shape[1] - rows, columns : image.shape[2] - columns]


def luma(image: Any, *, peak: float = 1.0) -> Any:
  """Convert RGB [..., 3] in [0, peak] to BT.601's Y [..., 1], from 16/255 to 235/255 of the peak.

  NumPy arrays stay NumPy arrays of the same precision.
  """
  weighted = [weight * image[..., i : i + 1] for i, weight in enumerate(LUMA)]
  return 16 / 255 * peak + sum(weighted) / 255


def psnr(mse: float) -> float:
  """Convert a mean squared error, for peak 1, to decibels; `EQUAL` for equal images."""
  if not math.isfinite(mse):
    raise ValueError(f'a mean squared error of {mse} has no PSNR: it must be finite')
  return min(-10.0 * math.log10(mse), EQUAL) if mse > 0 else EQUAL


def ssim(a: Images, b: Images) -> Float[Array, ' b']:
  """Compute the structural similarity over the valid 11x11 Gaussian windows (Wang et al., 2004)."""
  if min(a.shape[1:3]) < WINDOW:
    raise ValueError(f'SSIM needs sides of at least {WINDOW} pixels, not {a.shape[1:3]}')
  return _ssim(a, b)


def ssim_map(a: Images, b: Images) -> Float[Array, 'b _ _']:
  """Compute the structural similarity of each window; `[i, j]` is its upper left pixel."""
  return _ssim(a, b, return_map=True).mean(-1)


def _ssim(a: Images, b: Images, **options: Any) -> Array:
  """Call dm-pix's SSIM; on CPUs, with `_blur`, which is 12 times as fast as dm-pix's."""
  own = partial(dm_pix.ssim, **options)
  return jnp.asarray(lax.platform_dependent(a, b, cpu=partial(own, filter_fn=_blur), default=own))


def _blur(image: Images) -> Array:
  """Gaussian blur: down as a sum of shifts, across as products with a band matrix.

  With two sums of shifts, XLA would recompute the first in each shift of the second; it computes
  the input of a product once.
  """
  steps = (np.arange(WINDOW) - WINDOW // 2) / _SIGMA
  weights = np.exp(-(steps**2) / 2)
  weights = (weights / weights.sum()).astype(image.dtype)
  batch, height, width, channels = image.shape
  rows, columns = height - WINDOW + 1, width - WINDOW + 1
  down = sum(image[:, i : i + rows] * weight for i, weight in enumerate(weights))
  down = jnp.asarray(down).swapaxes(2, 3)
  blocks = -(-columns // _BLOCK)
  side = -(-columns // blocks)
  down = jnp.pad(down, ((0, 0), (0, 0), (0, 0), (0, blocks * side - columns)))
  parts = [down[..., i * side : (i + 1) * side + WINDOW - 1] for i in range(blocks)]
  band = np.stack([np.pad(weights, (i, side - 1 - i)) for i in range(side)], axis=1)
  across = jnp.matmul(jnp.stack(parts, axis=3), band, precision='highest')
  return across.reshape(batch, rows, channels, -1)[..., :columns].swapaxes(2, 3)


def ms_ssim(a: Images, b: Images) -> Float[Array, ' b']:
  """Compute the multi-scale structural similarity over five octaves (Wang et al., 2003).

  Contrast and structure count at each octave, luminance at the coarsest; each octave averages 2x2
  pixels of the one before. Negative values count as 0. Sides must be at least `MS_SMALLEST`.
  """
  if min(a.shape[1:3]) < MS_SMALLEST:
    raise ValueError(f'MS-SSIM needs sides of at least {MS_SMALLEST} pixels, not {a.shape[1:3]}')
  product = jnp.ones(a.shape[0])
  for i, exponent in enumerate(OCTAVES):
    last = i == len(OCTAVES) - 1
    # a huge k1 sets the factor of luminance to 1
    value = _ssim(a, b, k1=0.01 if last else 1e8)
    product *= jnp.maximum(value, 0.0) ** exponent
    a, b = (_halve(x) for x in (a, b)) if not last else (a, b)
  return product


def _halve(image: Images) -> Array:
  rows, columns = image.shape[1] // 2, image.shape[2] // 2
  image = image[:, : 2 * rows, : 2 * columns]
  return image.reshape(image.shape[0], rows, 2, columns, 2, image.shape[3]).mean((2, 4))


def high_energy(image: Images, *, scale: int) -> Float[Array, ' b']:
  """Compute the energy above the Nyquist frequency of the low resolution, under a Hann window.

  An interpolated image has almost none. The ratio of a network's energy to the original image's
  distinguishes blur (below 1) from invented detail (above 1).
  """
  rows, columns = (jnp.hanning(n + 2)[1:-1] for n in image.shape[1:3])
  window = jnp.outer(rows, columns)[..., None]
  mean = (image * window).sum((1, 2), keepdims=True) / window.sum()
  spectrum = jnp.fft.rfft2((image - mean) * window, axes=(1, 2), norm='ortho')
  rows, columns = jnp.fft.fftfreq(image.shape[1]), jnp.fft.rfftfreq(image.shape[2])
  beyond = jnp.hypot(rows[:, None], columns) > 0.5 / scale
  # rfft2 leaves out the mirrored half
  twice = jnp.where((columns == 0) | (columns == 0.5), 1.0, 2.0)
  weight = (beyond * twice)[..., None]
  return (jnp.square(jnp.abs(spectrum)) * weight).sum((1, 2, 3))


def measure(sr: Images, hr: Images, *, scale: int) -> dict[str, jax.Array]:
  """Compute the metrics of each image as plain means, not in decibels.

  Returns, per image: `mse` and `ssim` with `scale` pixels cut off each side, `ms_ssim` of the same
  if it is large enough, `mse_centre` and `ssim_centre`, `mse_uncropped`, and the `high_energy` of
  the center of both.
  """
  inner_sr, inner_hr = shave(sr, scale), shave(hr, scale)
  large = min(inner_hr.shape[1:3]) >= MS_SMALLEST
  return {
    'mse': jnp.asarray(dm_pix.mse(inner_sr, inner_hr)),
    'ssim': ssim(inner_sr, inner_hr),
    'mse_centre': jnp.asarray(dm_pix.mse(center(sr), center(hr))),
    'ssim_centre': ssim(center(sr), center(hr)),
    'mse_uncropped': jnp.asarray(dm_pix.mse(sr, hr)),
    'high_energy': high_energy(center(sr), scale=scale),
    'high_energy_hr': high_energy(center(hr), scale=scale),
  } | ({'ms_ssim': ms_ssim(inner_sr, inner_hr)} if large else {})


def feature_distance(
  sr: Float[Array, 'b y x f'], hr: Float[Array, 'b y x f']
) -> Float[Array, ' b']:
  """Compute the squared distance of features, divided by the squared norm of the original's.

  It has no unit, so that it can be compared between networks and layers.
  """
  sr, hr = sr.astype(jnp.float32), hr.astype(jnp.float32)
  return jnp.square(sr - hr).sum((1, 2, 3)) / jnp.square(hr).sum((1, 2, 3))
