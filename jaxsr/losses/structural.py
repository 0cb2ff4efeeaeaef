"""Losses on differences, frequencies and structure. One value per image.

Images are in [0, 1]. There is no mask: the margin of a crop has been removed.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr import metrics

Image = Float[Array, 'b h w c']
Values = Float[Array, ' b']

_PIXELS = (1, 2, 3)


def _differences(image: Image) -> tuple[Array, Array]:
  """Returns the differences to the pixel below and to the pixel on the right."""
  return image[:, 1:] - image[:, :-1], image[:, :, 1:] - image[:, :, :-1]


def tv(sr: Image) -> Values:
  """Compute the total variation, the mean absolute difference of neighbors (Rudin et al., 1992)."""
  down, right = _differences(sr)
  return jnp.abs(down).mean(_PIXELS) + jnp.abs(right).mean(_PIXELS)


def tv_squared(sr: Image) -> Values:
  """Compute twice the mean squared difference of neighbors, as public implementations of SRGAN do.

  Their weight of 2e-8 belongs to this form. Unlike `tv`, it blurs edges more than noise.
  """
  down, right = _differences(sr)
  return 2 * (jnp.square(down).mean(_PIXELS) + jnp.square(right).mean(_PIXELS))


def gradient(sr: Image, hr: Image) -> Values:
  """Compute the mean absolute error of the differences between neighbors.

  After Mathieu et al. (ICLR 2016), who compare absolute differences; here the sign counts as well.
  """
  pairs = zip(_differences(sr), _differences(hr), strict=True)
  down, right = (jnp.abs(a - b).mean(_PIXELS) for a, b in pairs)
  return down + right


def frequency(sr: Image, hr: Image) -> Values:
  """Compute the mean absolute error of the Fourier coefficients (Cho et al., ICCV 2021).

  The transform is orthonormal, and real and imaginary parts are separate. White noise costs the
  same as under `l1`, up to a constant factor; local errors cost more, periodic ones less.
  """
  error = jnp.fft.rfft2(sr - hr, axes=(1, 2), norm='ortho')
  return (jnp.abs(error.real) + jnp.abs(error.imag)).mean(_PIXELS)


def ssim(sr: Image, hr: Image) -> Values:
  """Compute 1 - SSIM (Wang et al., 2004; as a loss, Zhao et al., 2017)."""
  return 1 - metrics.ssim(sr, hr)
