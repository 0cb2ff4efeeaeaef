"""Losses of what lies between pixels: differences, frequencies, structure. One value an image.

Images are in [0, 1] and whole, without a mask: what a crop's margin spoilt has been cut off.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr import metrics

Image = Float[Array, 'b h w c']
Values = Float[Array, ' b']

_PIXELS = (1, 2, 3)


def _differences(image: Image) -> tuple[Array, Array]:
  """Subtract each pixel from the one below it, and from the one to its right."""
  return image[:, 1:] - image[:, :-1], image[:, :, 1:] - image[:, :, :-1]


def tv(sr: Image) -> Values:
  """Take the total variation: mean absolute difference of neighbours (Rudin et al., 1992)."""
  down, right = _differences(sr)
  return jnp.abs(down).mean(_PIXELS) + jnp.abs(right).mean(_PIXELS)


def tv_squared(sr: Image) -> Values:
  """Take twice the mean squared difference of neighbours, as the public SRGANs do.

  It is what a weight of 2e-8 goes with; unlike `tv` it blurs edges more than noise.
  """
  down, right = _differences(sr)
  return 2 * (jnp.square(down).mean(_PIXELS) + jnp.square(right).mean(_PIXELS))


def gradient(sr: Image, hr: Image) -> Values:
  """Take the mean absolute error of the differences between neighbours.

  After Mathieu et al. (ICLR 2016), who compare their sizes; here their signs count, too.
  """
  pairs = zip(_differences(sr), _differences(hr), strict=True)
  down, right = (jnp.abs(a - b).mean(_PIXELS) for a, b in pairs)
  return down + right


def frequency(sr: Image, hr: Image) -> Values:
  """Take the mean absolute error of the Fourier coefficients (Cho et al., ICCV 2021).

  Coefficients are orthonormal, real and imaginary parts apart: white noise costs the same as under
  `l1`, up to a constant; what is confined to few pixels costs more, and what repeats costs less.
  """
  error = jnp.fft.rfft2(sr - hr, axes=(1, 2), norm='ortho')
  return (jnp.abs(error.real) + jnp.abs(error.imag)).mean(_PIXELS)


def ssim(sr: Image, hr: Image) -> Values:
  """Take 1 - SSIM (Wang et al., 2004; as a loss, Zhao et al., 2017)."""
  return 1 - metrics.ssim(sr, hr)
