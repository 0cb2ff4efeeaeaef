"""Doubt: the tiles of an upscaled image whose error may be large.

A tile is bad if its root mean square error exceeds a limit. It is doubtful if its score is at least
a threshold. The score is the blurred difference from bicubic interpolation, or from the image of a
second network, averaged over the tile.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxsr.inference.uncertainty import maps

TILE = 16  # pixels of the upscaled image; tiles at its right and lower end may be smaller
_BLUR = 2.0  # standard deviation in pixels; half the scale for a difference from bicubic


def scores(
  lr: maps.Levels, sr: np.ndarray, scale: int, second: np.ndarray | None = None
) -> Float[np.ndarray, 'rows columns']:
  """Returns the score of each tile, in gray levels.

  Args:
    lr: the low resolution, uint8 [h, w].
    sr: the upscaled image, uint8 [sh, sw].
    scale: the upscaling factor.
    second: the image of a second network, uint8 [sh, sw]; None compares with bicubic.
  """
  if second is not None:
    apart = np.abs(sr.astype(np.float32) - second)
    return tile_means(maps.blur(apart, _BLUR))
  return tile_means(maps.difference(lr, sr, scale))


def errors(hr: np.ndarray, sr: np.ndarray) -> Float[np.ndarray, 'rows columns']:
  """Returns the root mean square error of each tile of two images in gray levels, [sh, sw]."""
  return np.sqrt(tile_means(np.square(hr.astype(np.float32) - sr)))


def tile_means(image: Float[np.ndarray, 'sh sw']) -> Float[np.ndarray, 'rows columns']:
  """Average an image over its tiles."""
  rows, columns = (np.arange(0, side, TILE) for side in image.shape)
  sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, 0), columns, 1)
  tall, wide = (
    np.diff([*starts, side]) for starts, side in zip((rows, columns), image.shape, strict=True)
  )
  return (sums / np.outer(tall, wide)).astype(np.float32)


def spread(
  tiles: Bool[np.ndarray, 'rows columns'], shape: tuple[int, int]
) -> Bool[np.ndarray, 'sh sw']:
  """Returns the mask of the pixels of tiles, for an image of a shape."""
  return tiles.repeat(TILE, 0).repeat(TILE, 1)[: shape[0], : shape[1]]
