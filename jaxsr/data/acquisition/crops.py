"""The acquisition of a batch of crops, inside a jitted step.

Each crop has parameters of its own, a row of numbers that the host draws; see `draw`. Blur and
reduction are products with matrices, JPEG a cosine transform of 8x8 blocks. Counts are drawn
from normal distributions, which are close to Poisson's above some 20 quanta.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from jaxsr.data.acquisition import (
  ATTENUATION,
  FILTERS,
  KERNELS,
  SHARPENING_RADIUS,
  TAIL_WIDTH,
  Acquisition,
  quanta_in_air,
)

NUMBERS = tuple(f.name for f in dataclasses.fields(Acquisition) if f.name not in ('kernel', 'via'))


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The acquisitions that a network is trained on: shares of the crops, and ranges.

  A crop that is not clean has one of the kernels, except 'nearest', whose aliasing misleads. Dose
  and noise are drawn logarithmically, the rest uniformly; `Acquisition` describes the values.
  """

  clean: float = 0.25  # share that is reduced by bicubic and left alone
  blur: tuple[float, float] = (0.0, 2.6)
  blur_share: float = 0.5
  tail: tuple[float, float] = (0.0, 0.2)
  dose: tuple[float, float] = (0.01, 2.0)
  dose_share: float = 0.45
  electronic: tuple[float, float] = (0.0, 20.0)
  correlation: tuple[float, float] = (0.0, 0.5)
  noise: tuple[float, float] = (0.5, 8.0)
  noise_share: float = 0.2
  sharpen: tuple[float, float] = (0.0, 0.4)
  sharpen_share: float = 0.2
  jpeg: tuple[int, int] = (40, 97)
  jpeg_share: float = 0.35


def draw(rng: np.random.Generator, mixture: Mixture) -> Acquisition:
  """Returns the acquisition of one training crop, drawn from the crop's random numbers."""
  if rng.random() < mixture.clean:
    return Acquisition()
  found: dict[str, Any] = {'kernel': KERNELS[rng.integers(len(KERNELS) - 1)]}
  if rng.random() < mixture.blur_share:
    found |= {name: rng.uniform(*getattr(mixture, name)) for name in ('blur', 'tail')}
  if rng.random() < mixture.dose_share:
    found['dose'] = _log_uniform(rng, mixture.dose)
    found |= {name: rng.uniform(*getattr(mixture, name)) for name in ('electronic', 'correlation')}
  if rng.random() < mixture.noise_share:
    found['noise'] = _log_uniform(rng, mixture.noise)
  if rng.random() < mixture.sharpen_share:
    found['sharpen'] = rng.uniform(*mixture.sharpen)
  if rng.random() < mixture.jpeg_share:
    low, high = mixture.jpeg
    found['jpeg'] = int(rng.integers(low, high + 1))
  return Acquisition(**found)


def draw_numbers(rng: np.random.Generator, mixture: Mixture) -> dict[str, np.ndarray]:
  """Returns the numbers of an acquisition that the host sends: parameters, and the noise's seed."""
  how = draw(rng, mixture)
  return {'acquisition': pack(how), 'noise': np.array(rng.integers(2**31), np.int32)}


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
  return float(np.exp(rng.uniform(*np.log(limits))))


def pack(how: Acquisition) -> Float[np.ndarray, ' width']:
  """Returns an acquisition as a row of numbers; an archive's first resampling is left out."""
  values = (float(getattr(how, name)) for name in NUMBERS)
  return np.array([KERNELS.index(how.kernel), *values], np.float32)


def acquire(
  hr: Float[Array, 'b s s c'],
  parameters: Float[Array, 'b width'],
  key: Array,
  *,
  scale: int,
  levels: int,
) -> Float[Array, 'b r r c']:
  """Returns the low-resolution crops, in [0, 1] and on the levels of the stored film.

  Args:
    hr: square crops in [0, 1]. At their borders, kernels see no further than the crop.
    parameters: rows of `pack`.
    key: the source of the noise.
    scale: the factor of the reduction.
    levels: the largest stored value, such as 255.
  """
  how = dict(zip(NUMBERS, jnp.moveaxis(parameters[:, 1:], 1, 0), strict=True))
  how = {name: value[:, None, None, None] for name, value in how.items()}
  keys = jax.random.split(key, 3)
  v = _reduce(hr, parameters[:, 0].astype(jnp.int32), how, scale)
  v = jnp.where(how['dose'] > 0, _count(v, how, keys, scale), v)
  v = v + how['noise'] / 255 * jax.random.normal(keys[2], v.shape)
  v = v + how['sharpen'] * (v - _along_both(v, _gaussian(v.shape[1], SHARPENING_RADIUS)))
  v = jnp.round(jnp.clip(v, 0, 1) * levels) / levels
  return jnp.where(how['jpeg'] > 0, _compress(v, how['jpeg'], levels), v)


def _reduce(
  hr: Float[Array, 'b s s c'], kernel: Array, how: dict[str, Array], scale: int
) -> Float[Array, 'b r r c']:
  """Blurs and reduces by one matrix per crop; the detector reduces the intensity."""
  side = hr.shape[1]
  sigma = how['blur'][..., 0]
  narrow = _gaussian(side, sigma)
  wide = _gaussian(side, sigma * TAIL_WIDTH)
  kernels = jnp.asarray(_matrices(side, scale))[kernel]
  is_detector = (kernel == KERNELS.index('detector'))[:, None, None, None]
  x = jnp.where(is_detector, jnp.exp(-ATTENUATION * hr), hr)
  reduced = [_along_both(x, kernels @ blur) for blur in (narrow, wide)]
  v = (1 - how['tail']) * reduced[0] + how['tail'] * reduced[1]
  return jnp.where(is_detector, -jnp.log(jnp.maximum(v, 1e-6)) / ATTENUATION, v)


def _along_both(x: Float[Array, 'b s s c'], matrix: Array) -> Float[Array, 'b r r c']:
  """Applies a matrix [r, s], or one per crop, along rows and columns."""
  x = jnp.einsum('...rs,...stc->...rtc', matrix, x)
  return jnp.einsum('...rs,...tsc->...trc', matrix, x)


def _gaussian(side: int, sigma: Any) -> Array:
  """Returns the matrix of a Gaussian blur [..., s, s], the identity for a sigma of 0."""
  place = jnp.arange(side, dtype=jnp.float32)
  distance = place[:, None] - place
  weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2)
  return weights / weights.sum(-1, keepdims=True)


@functools.lru_cache
def _matrices(side: int, scale: int) -> Float[np.ndarray, 'kernels r s']:
  """Returns the reduction of each of `KERNELS` along one axis, with Pillow's weights."""
  identity = Image.fromarray(np.eye(side, dtype=np.float32))
  size = (side, side // scale)
  found = {k: np.asarray(identity.resize(size, method)) for k, method in FILTERS.items()}
  found['detector'] = found['area']
  found['nearest'] = np.eye(side, dtype=np.float32)[::scale]
  return np.stack([found[kernel] for kernel in KERNELS])


def _count(
  v: Float[Array, 'b r r c'], how: dict[str, Array], keys: Array, scale: int
) -> Float[Array, 'b r r c']:
  in_air = quanta_in_air(1.0, scale) * jnp.maximum(how['dose'], 1e-6)
  mean = in_air * jnp.exp(-ATTENUATION * v)
  counts = mean + jnp.sqrt(mean) * jax.random.normal(keys[0], v.shape)
  counts = _along_both(counts, _gaussian(v.shape[1], how['correlation'][..., 0]))
  counts = counts + how['electronic'] * jax.random.normal(keys[1], v.shape)
  return -jnp.log(jnp.maximum(counts, 1.0) / in_air) / ATTENUATION


# The luminance table of JPEG's annex K, which libjpeg scales by the quality.
_TABLE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ],
  np.float32,
)


def _cosines() -> Float[np.ndarray, '8 8']:
  """Returns the orthonormal cosine transform of 8 values."""
  order, place = np.arange(8)[:, None], np.arange(8)
  basis = np.cos((2 * place + 1) * order * np.pi / 16) / 2
  basis[0] /= np.sqrt(2)
  return basis.astype(np.float32)


def _compress(v: Float[Array, 'b r r c'], quality: Array, levels: int) -> Float[Array, 'b r r c']:
  """Compresses by baseline JPEG without its rounding to integers inside the transform."""
  side = v.shape[1]
  pad = -side % 8
  x = jnp.pad(v * 255 - 128, ((0, 0), (0, pad), (0, pad), (0, 0)), mode='edge')
  b, n, _, c = x.shape
  blocks = x.reshape(b, n // 8, 8, n // 8, 8, c)
  basis = jnp.asarray(_cosines())
  found = jnp.einsum('ki,bxiyjc,lj->bxkylc', basis, blocks, basis)
  q = jnp.clip(quality, 1, 100)
  factor = jnp.where(q < 50, jnp.floor(5000 / q), 200 - 2 * q)
  table = jnp.clip(jnp.floor((jnp.asarray(_TABLE) * factor[..., 0] + 50) / 100), 1, 255)
  table = table[:, None, :, None, :, None]
  found = jnp.round(found / table) * table
  x = jnp.einsum('ki,bxkylc,lj->bxiyjc', basis, found, basis).reshape(b, n, n, c)
  x = jnp.clip(jnp.round(x[:, :side, :side] + 128), 0, 255) / 255
  return jnp.round(x * levels) / levels
