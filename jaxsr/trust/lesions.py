"""Lesions of known size and contrast, put into films at places chosen by rule.

Lesions are inserted in the attenuation domain: with white at 1, 1 - v stands for the intensity
behind the body, and a lesion holds back a share of it. Positions are jittered by up to half a
low-resolution pixel, so that every phase of the low resolution's grid occurs.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt
from scipy import ndimage

CROP = 128  # pixels around a place that are reduced and upscaled, at most
PLACES = 4  # per film
LENGTH = 40  # pixels of a line
ANGLE = 0.5  # of a line, in radians
_SUPERSAMPLED = 8  # diameters below it are drawn with 4x4 samples per pixel
_BLUR = 0.6  # standard deviation of the detector, in pixels
_LUNG = (40 / 255, 170 / 255)  # gray values of a film's lungs
_INNER = 44 / 256  # of a side on each edge where no lesion is put


class Lesion(NamedTuple):
  """A lesion: its kind, its diameter or width in pixels, and its contrast.

  The contrast is the share of the intensity that it holds back at its peak.
  """

  kind: str
  size: float
  contrast: float

  @property
  def title(self) -> str:
    """Such as 'nodule, 4 px, 5 %'."""
    return f'{self.kind}, {self.size:g} px, {100 * self.contrast:g} %'


DESIGN = (
  *(Lesion('nodule', size, 0.05) for size in (2, 3, 4, 6, 8, 12)),
  *(Lesion('calcification', size, 0.1) for size in (2, 4)),
  *(Lesion('line', size, 0.1) for size in (0.5, 1, 2)),
  Lesion('line', 1, 0.05),
)


def generator(name: str) -> np.random.Generator:
  """Returns the random numbers of a film, from its file name."""
  digest = hashlib.sha256(f'lesions/{name}'.encode(errors='surrogateescape')).digest()
  return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], 'big')))


def crop_side(scale: int) -> int:
  """Returns the side of a crop: a multiple of the scale, and even."""
  return CROP // (2 * scale) * 2 * scale


def places(film: Float[np.ndarray, 'h w'], rng: np.random.Generator) -> list[tuple[int, int]]:
  """Choose places for lesions: as gray as lungs, with no hard edge near, away from the borders.

  Args:
    film: the film in [0, 1].
    rng: the film's random numbers.

  Returns:
    Row and column of up to `PLACES` places; none if the film has too few.
  """
  smooth = ndimage.gaussian_filter(film.astype(np.float32), 8)[::4, ::4]
  slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
  slope = ndimage.maximum_filter(slope, 13)
  inner = np.zeros(smooth.shape, bool)
  edges = [max(round(_INNER * side), CROP // 8) for side in smooth.shape]
  inner[edges[0] : -edges[0], edges[1] : -edges[1]] = True
  if not inner.any():
    return []
  low, high = _LUNG
  flat = slope < np.quantile(slope[inner], 0.7)
  found = np.argwhere(inner & (smooth > low) & (smooth < high) & flat)
  if len(found) < PLACES:
    return []
  chosen = rng.choice(len(found), PLACES, replace=False)
  return [(int(4 * row), int(4 * column)) for row, column in found[chosen]]


def crops(
  film: UInt[np.ndarray, 'h w c'], centers: list[tuple[int, int]], scale: int
) -> UInt[np.ndarray, 'n side side c']:
  """Returns the crops around places, which begin at a low-resolution pixel and lie in the film."""
  side = crop_side(scale)
  found = []
  for center in centers:
    starts = [
      min(max((x - side // 2) // scale * scale, 0), (length - side) // scale * scale)
      for x, length in zip(center, film.shape[:2], strict=True)
    ]
    found.append(film[starts[0] : starts[0] + side, starts[1] : starts[1] + side])
  return np.stack(found)


def profile(
  lesion: Lesion, side: int, offset: tuple[float, float]
) -> Float[np.ndarray, 'side side']:
  """Returns the thickness of a lesion along the rays, 1 at its peak before the detector's blur.

  Args:
    lesion: a ball (nodule, calcification) or a line.
    side: of the crop.
    offset: of its center from the crop's, in pixels down and right.
  """
  y, x = (np.mgrid[:side, :side] - side // 2).astype(np.float64) - np.reshape(offset, (2, 1, 1))
  if lesion.kind == 'line':
    along = x * np.cos(ANGLE) + y * np.sin(ANGLE)
    across = y * np.cos(ANGLE) - x * np.sin(ANGLE)
    wide = np.clip(lesion.size / 2 + 0.5 - np.abs(across), 0, min(1, lesion.size))
    drawn = wide * np.clip(LENGTH / 2 + 0.5 - np.abs(along), 0, 1)
  else:
    steps = (np.arange(4) + 0.5) / 4 - 0.5 if lesion.size < _SUPERSAMPLED else np.zeros(1)
    drawn = np.mean([_chord(y - a, x - b, lesion.size / 2) for a in steps for b in steps], axis=0)
  return ndimage.gaussian_filter(drawn, _BLUR)


def _chord(y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
  """Returns the length of the rays inside a ball, relative to its diameter."""
  return np.sqrt(np.clip(1 - (y**2 + x**2) / radius**2, 0, None))


def insert(
  crop: UInt[np.ndarray, 'side side c'], drawn: Float[np.ndarray, 'side side'], contrast: float
) -> UInt[np.ndarray, 'side side c']:
  """Put a lesion into a crop: the intensity behind it falls by `contrast` at its peak."""
  peak = np.iinfo(crop.dtype).max
  intensity = (peak - crop.astype(np.float64)) * (1 - contrast) ** drawn[..., None]
  return np.rint(np.clip(peak - intensity, 0, peak)).astype(crop.dtype)
