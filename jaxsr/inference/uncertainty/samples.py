"""The data of a film that calibration uses: some of its pixels, and all of its tiles."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxsr.inference.uncertainty import doubt, maps

COUNT = 16_384  # pixels per film
REGIONS = ('edges', 'flat', 'centre', 'outside')  # as in files; `title` spells them for readers
_TITLES = {'centre': 'center'}  # files keep the spelling of the first version
_GRADIENT = maps.NAMES.index('gradient')


def title(region: str) -> str:
  """Returns the spelling of a region in tables and cards."""
  return _TITLES.get(region, region)


class Sample(NamedTuple):
  """Pixels and tiles of one film.

  Attributes:
    patient: the identifier of the patient.
    values: the maps at random pixels.
    errors: the absolute errors there, in gray levels.
    center: whether a pixel lies in the middle three quarters of each side.
    tile_scores, tile_errors: the score and the root mean square error of each tile.
    strata: groups that the film belongs to, as (kind, value).
  """

  patient: str
  values: Float[np.ndarray, 'n 10']
  errors: Float[np.ndarray, ' n']
  center: Bool[np.ndarray, ' n']
  tile_scores: Float[np.ndarray, ' t']
  tile_errors: Float[np.ndarray, ' t']
  strata: tuple[tuple[str, str], ...] = ()

  def regions(self) -> dict[str, np.ndarray]:
    """Returns which pixels lie in each region.

    Edges are the tenth of the pixels with the largest gradient, flat is the half with the smallest.
    """
    slope = self.values[:, _GRADIENT]
    low, high = np.quantile(slope, (0.5, 0.9))
    masks = slope > high, slope <= low, self.center, ~self.center
    return dict(zip(REGIONS, masks, strict=True))


def draw(
  patient: str,
  hr: Float[np.ndarray, 'sh sw'],
  lr: maps.Levels,
  sr: Float[np.ndarray, 'sh sw'],
  *,
  scale: int,
  second: np.ndarray | None = None,
  count: int = COUNT,
  strata: tuple[tuple[str, str], ...] = (),
) -> Sample:
  """Draw the sample of a film.

  Args:
    patient: whose film it is.
    hr: the true image, in 8-bit gray levels.
    lr: its low resolution, uint8 [h, w].
    sr: the upscaled image, in 8-bit gray levels.
    scale: the upscaling factor.
    second: the image of a second network, uint8 [sh, sw], for the scores of the tiles.
    count: the number of pixels.
    strata: groups that the film belongs to, as (kind, value).
  """
  height, width = sr.shape
  rounded = np.rint(sr).astype(np.uint8)
  chosen = np.sort(np.random.default_rng(0).integers(height * width, size=count))
  rows, columns = np.divmod(chosen, width)
  values = np.empty((count, len(maps.NAMES)), np.float32)
  for part in maps.strips(lr, rounded, scale):
    here = (rows >= part.first) & (rows < part.first + len(part.values))
    values[here] = part.values[rows[here] - part.first, columns[here]]
  inside = [(i >= n // 8) & (i < n - n // 8) for i, n in ((rows, height), (columns, width))]
  return Sample(
    patient,
    values,
    np.abs(hr - sr)[rows, columns].astype(np.float32),
    inside[0] & inside[1],
    doubt.scores(lr, rounded, scale, second).ravel(),
    doubt.errors(hr, sr).ravel(),
    strata,
  )
