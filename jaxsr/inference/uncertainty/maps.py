"""Ten maps that predict the error of an upscaled image, from the image and its low resolution.

Three numbers are the same for all pixels of a film: a constant, and two measures of the film's own
noise. The noise explains most of the differences between films; the other maps distribute the error
within a film.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

NAMES = (
  'constant',
  'noise_median',
  'noise_bright',
  'gradient',
  'local_deviation',
  'difference_near',
  'difference_wide',
  'local_noise',
  'brightness',
  'darkness',
)
_SECOND = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6  # no response to edges
_DARK, _BRIGHT = 8, 247  # gray levels beyond which a film may be clipped
_MEDIAN_SIDE, _NOISE_SIDE = 9, 17  # low-resolution pixels
_NEAR, _WIDE = 0.5, 2.0  # standard deviations of the blurs, in low-resolution pixels
MARGIN = 24  # low-resolution pixels around a strip that its maps depend on
_STRIP = 1 << 21  # pixels of the upscaled image that are computed together

Levels = UInt8[np.ndarray, 'h w']
Plane = Float[np.ndarray, 'sh sw']


class Maps(NamedTuple):
  """The maps of some rows of a film."""

  first: int  # row of the upscaled image
  values: Float[np.ndarray, 'rows sw 10']


def levels(image: np.ndarray, white: int) -> np.ndarray:
  """Convert an image [h, w] or [h, w, c] to 8-bit gray levels [h, w]; channels are averaged."""
  plane = image if image.ndim == 2 else image.mean(axis=2) if image.shape[2] > 1 else image[..., 0]
  if plane.dtype == np.uint8 and white == 255:
    return plane
  return np.rint(plane * (255 / white)).clip(0, 255).astype(np.uint8)


def film_noise(lr: Levels) -> tuple[float, float]:
  """Estimate a film's noise from its low resolution, in gray levels.

  Returns:
    The median of the local noise, and the noise in the brighter half of the flat pixels. Both are
    root mean squares of the diagonal second difference; 0 if no pixel is between black and white.
  """
  from scipy import ndimage  # here, since it takes long to import and only intervals need it

  x = lr.astype(np.float32)
  inner = (lr > _DARK) & (lr < _BRIGHT)
  if not inner.any():
    return 0.0, 0.0
  squares = np.square(ndimage.convolve(x, _SECOND))
  median = np.median(ndimage.uniform_filter(squares, _MEDIAN_SIDE)[inner])
  slope = np.hypot(ndimage.sobel(x, 0), ndimage.sobel(x, 1))
  flat = inner & (slope <= np.median(slope[inner]))
  bright = squares[flat & (lr >= np.median(lr[flat]))]
  return float(np.sqrt(median.clip(0))), float(np.sqrt(bright.mean()))


def strips(lr: Levels, sr: np.ndarray, scale: int) -> Iterator[Maps]:
  """Compute the maps of a film, some rows at a time, so that large films need little memory.

  Args:
    lr: the low resolution, uint8 [h, w].
    sr: the upscaled image, uint8 [sh, sw].
    scale: the upscaling factor.

  Yields:
    The maps in the order of `NAMES`, float32, all logarithms but the first.
  """
  noise = film_noise(lr)
  height = lr.shape[0]
  rows = max(1, _STRIP // (scale * sr.shape[1]))
  for first in range(0, height, rows):
    last = min(first + rows, height)
    top, bottom = max(0, first - MARGIN), min(height, last + MARGIN)
    found = compute(lr[top:bottom], sr[scale * top : scale * bottom], scale, noise)
    own = slice(scale * (first - top), scale * (last - top))
    yield Maps(scale * first, found[own])


def bicubic(lr: Levels, scale: int) -> Plane:
  """Upscale with Pillow's bicubic filter, neither rounded nor clipped."""
  size = scale * lr.shape[1], scale * lr.shape[0]
  image = Image.fromarray(lr.astype(np.float32))
  return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def difference(lr: Levels, sr: np.ndarray, scale: int) -> Plane:
  """Returns the blurred absolute difference between an upscaled image and bicubic's."""
  return blur(np.abs(sr - bicubic(lr, scale)), _NEAR * scale)


def gradient(lr: Levels, scale: int) -> Plane:
  """Returns the blurred gradient of the bicubic image, in gray levels per pixel."""
  from scipy import ndimage

  smooth = bicubic(lr, scale)
  slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)) / 8
  return blur(slope, _NEAR * scale)


def compute(
  lr: Levels, sr: np.ndarray, scale: int, noise: tuple[float, float]
) -> Float[np.ndarray, 'sh sw 10']:
  """Compute the maps of all rows of an image at once; `noise` is of the whole film's `film_noise`.

  The maps of rows of a larger image are right but for `MARGIN` low-resolution rows at either end.
  """
  from scipy import ndimage

  x, smooth = lr.astype(np.float32), bicubic(lr, scale)
  mean = ndimage.uniform_filter(x, 3)
  variance = ndimage.uniform_filter(x * x, 3) - mean * mean
  deviation = ndimage.uniform_filter(_repeat(np.sqrt(variance.clip(0)), scale), scale)
  squares = np.square(ndimage.convolve(x, _SECOND))
  local = _repeat(np.sqrt(ndimage.uniform_filter(squares, _NOISE_SIDE).clip(0)), scale)
  apart = np.abs(sr - smooth)
  clipped = smooth.clip(0, 255)
  logarithms = (
    np.float32(noise[0] + 0.05),
    np.float32(noise[1] + 0.05),
    gradient(lr, scale) + 0.3,
    deviation + 0.3,
    blur(apart, _NEAR * scale) + 0.05,
    blur(apart, _WIDE * scale) + 0.05,
    local + 0.05,
    clipped + 8,
    263 - clipped,
  )
  found = np.ones((*sr.shape, len(NAMES)), np.float32)
  for i, values in enumerate(logarithms, start=1):
    found[..., i] = np.log(values)
  return found


def blur(image: Plane, deviation: float) -> Plane:
  """Blur an image by a Gaussian filter; `deviation` is in its pixels."""
  from scipy import ndimage

  return ndimage.gaussian_filter(image, deviation)


def _repeat(image: np.ndarray, scale: int) -> np.ndarray:
  return image.repeat(scale, axis=0).repeat(scale, axis=1)
