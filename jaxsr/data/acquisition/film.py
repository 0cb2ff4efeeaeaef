"""The acquisition of a whole film, with NumPy and Pillow."""

import io

import numpy as np
from jaxtyping import Float, UInt
from PIL import Image
from scipy.ndimage import gaussian_filter

from jaxsr.data.acquisition import (
  ATTENUATION,
  FILTERS,
  SHARPENING_RADIUS,
  TAIL_WIDTH,
  Acquisition,
  quanta_in_air,
)


def acquire(
  hr: UInt[np.ndarray, 'sh sw c'], how: Acquisition, rng: np.random.Generator, *, scale: int
) -> UInt[np.ndarray, 'h w c']:
  """Returns the low-resolution film, of the same type as the film.

  Args:
    hr: the film, uint8 or uint16; its sides are multiples of the scale.
    how: the steps and their strengths.
    rng: the source of the noise.
    scale: the factor of the reduction.
  """
  planes = [_acquire_plane(hr[..., c], how, rng, scale) for c in range(hr.shape[2])]
  return np.stack(planes, axis=-1)


def _acquire_plane(
  hr: UInt[np.ndarray, 'sh sw'], how: Acquisition, rng: np.random.Generator, scale: int
) -> UInt[np.ndarray, 'h w']:
  peak = np.iinfo(hr.dtype).max
  if hr.dtype == np.uint8 and not how.blur and _is_plain(how):
    return _compress(_resample(hr, *_sides(hr, scale), how.kernel), how.jpeg)
  v = _reduce(hr / peak, how, scale)
  if how.dose:
    v = _count(v, how, rng, scale)
  if how.noise:
    v = v + rng.normal(0, how.noise / 255, v.shape)
  if how.sharpen:
    v = v + how.sharpen * (v - gaussian_filter(v, SHARPENING_RADIUS, mode='nearest'))
  levels = min(2**how.bits - 1, peak)
  stored = np.rint(np.clip(v, 0, 1) * levels) / levels
  return _compress(np.rint(stored * peak).astype(hr.dtype), how.jpeg)


def _is_plain(how: Acquisition) -> bool:
  """Whether Pillow reduces the film in one step, with its own integers for 8 bits."""
  noisy = how.dose or how.noise or how.sharpen or how.via
  return how.kernel in FILTERS and how.bits >= 8 and not noisy


def _blur(v: Float[np.ndarray, 'sh sw'], how: Acquisition) -> Float[np.ndarray, 'sh sw']:
  if not how.blur:
    return v
  narrow = gaussian_filter(v, how.blur, mode='nearest')
  if not how.tail:
    return narrow
  wide = gaussian_filter(v, how.blur * TAIL_WIDTH, mode='nearest')
  return (1 - how.tail) * narrow + how.tail * wide


def _reduce(
  v: Float[np.ndarray, 'sh sw'], how: Acquisition, scale: int
) -> Float[np.ndarray, 'h w']:
  height, width = _sides(v, scale)
  if how.kernel == 'detector':
    intensity = _blur(np.exp(-ATTENUATION * v), how)
    return -np.log(intensity.reshape(height, scale, width, scale).mean((1, 3))) / ATTENUATION
  v = _blur(v, how)
  if how.kernel == 'nearest':
    return v[::scale, ::scale]
  if how.via:
    v = _resample(v, round(height * how.via), round(width * how.via), 'lanczos')
  return _resample(v, height, width, how.kernel)


def _sides(plane: np.ndarray, scale: int) -> tuple[int, int]:
  return plane.shape[0] // scale, plane.shape[1] // scale


def _resample(plane: np.ndarray, height: int, width: int, kernel: str) -> np.ndarray:
  image = Image.fromarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32))
  return np.asarray(image.resize((width, height), FILTERS[kernel]))


def _count(
  v: Float[np.ndarray, 'h w'], how: Acquisition, rng: np.random.Generator, scale: int
) -> Float[np.ndarray, 'h w']:
  """Counts quanta and takes the logarithm again."""
  in_air = quanta_in_air(how.dose, scale)
  counts = rng.poisson(in_air * np.exp(-ATTENUATION * np.asarray(v, np.float64))).astype(np.float64)
  if how.correlation:
    counts = gaussian_filter(counts, how.correlation, mode='nearest')
  if how.electronic:
    counts = counts + rng.normal(0, how.electronic, counts.shape)
  return -np.log(np.maximum(counts, 1) / in_air) / ATTENUATION


def _compress(plane: UInt[np.ndarray, 'h w'], quality: int) -> UInt[np.ndarray, 'h w']:
  """Compresses a film by JPEG, which has 8 bits."""
  if not quality:
    return plane
  factor = np.iinfo(plane.dtype).max // 255
  data = io.BytesIO()
  small = np.rint(plane / factor).astype(np.uint8)
  Image.fromarray(small).save(data, 'JPEG', quality=quality)
  return np.asarray(Image.open(data)).astype(plane.dtype) * plane.dtype.type(factor)
