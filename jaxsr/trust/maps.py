"""Maps of an audit: where detail is invented, and the energy that the reduction does not see."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxsr.evaluation import plots
from jaxsr.trust.audit import SIDE, Gray, Patches

MOST = 40  # films on a sheet
INVENTED, NULL = 1.0, 10 / 255  # what the brightest color stands for
_CELL = 160  # pixels of the side of a map on a sheet
_LETTERS = 24  # of a name above it


class AuditedFilm(NamedTuple):
  """A film, reduced to the size of a map, and its patches by the names of networks."""

  index: int
  name: str
  thumbnail: UInt8[np.ndarray, 'h w']
  shape: tuple[int, ...]
  patches: Mapping[str, Patches]

  @property
  def flagged(self) -> float:
    """The largest share of flagged patches of a network."""
    return max(found.share for found in self.patches.values())


def place(found: Patches, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
  """Returns row, column and side of the flagged patch with the largest null-space error."""
  if not found.flagged.any():
    return None
  row, column = divmod(
    int(np.where(found.flagged, found.null_error, -1).argmax()), shape[1] // SIDE
  )
  return row * SIDE, column * SIDE, SIDE


def thumbnail(film: Gray) -> UInt8[np.ndarray, 'rows columns']:
  """Returns a film in [0, 1] with a longer side of at most the size of a map."""
  image = Image.fromarray(film.astype(np.float32))
  image.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
  return np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8)


def invented(found: Patches) -> Float[np.ndarray, ' n']:
  """Returns the invented energy of patches from 0 to 1, the film's own energy; 0 where flat."""
  return np.where(found.kept, np.clip(found.invented / INVENTED, 0, 1), 0)


def null(found: Patches) -> Float[np.ndarray, ' n']:
  """Returns the null-space component of patches from 0 to 1, which is 10 gray levels of 255."""
  return np.clip(np.sqrt(found.null) / NULL, 0, 1)


def pixels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the values of the patches of a film for each of its pixels; 0 beyond the patches."""
  rows, columns = (length // SIDE for length in shape[:2])
  found = np.zeros(shape[:2], values.dtype)
  tiles = values.reshape(rows, columns).repeat(SIDE, 0).repeat(SIDE, 1)
  found[: rows * SIDE, : columns * SIDE] = tiles
  return found


def sheet(films: Sequence[AuditedFilm]) -> UInt8[np.ndarray, 'h w c']:
  """Draw the maps of films, a row per film: the film, invented energy, then null space."""
  rows = []
  for film in films:
    cells, names = [Image.fromarray(film.thumbnail)], ['HR']
    for label, measure in (('invented', invented), ('null', null)):
      for name, found in film.patches.items():
        tiles = pixels(measure(found), film.shape)[:: SIDE // 4, :: SIDE // 4]
        image = Image.fromarray(np.rint(tiles * 255).astype(np.uint8))
        cells.append(image.resize(film.thumbnail.shape[::-1], Image.Resampling.NEAREST))
        names.append(f'{label}, {name}'[:_LETTERS])
    shares = ', '.join(f'{name} {found.share:.1%}' for name, found in film.patches.items())
    rows.append((f'{film.name}   flagged: {shares}', cells, names))
  return plots.sheet(rows, cell=_CELL)
