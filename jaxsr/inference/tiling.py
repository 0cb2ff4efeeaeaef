"""Large images in windows: the image that the whole would give, in less memory on the device."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsr import analysis

SIDE = 512  # low-resolution pixels that a window gives, along each axis


class Window(NamedTuple):
  """A stretch of low-resolution pixels: where it is read, and which part of it counts."""

  start: int
  first: int
  last: int


def grid_of(network: Any) -> int:
  """Tell what windows must begin at multiples of, since the network counts from where they do.

  That is its `GRID`; 0 is a network to which the size of the window matters as well.
  """
  return getattr(network, 'GRID', 1)


def margin_of(network: Any) -> int | None:
  """Tell how far beyond what it gives a window must see; None where it must see the whole."""
  return analysis.receptive_radius(network) if grid_of(network) else None


def windows(length: int, side: int, margin: int, grid: int = 1) -> tuple[int, list[Window]]:
  """Lay windows of one size over a length, each pixel given by one; return that size and them.

  A window begins at a multiple of `grid`, and sees `margin` pixels beyond what it gives but for
  the ends of the image, which are then its own: there a network does what it does on the whole.
  `side` is the most that one gives, but at least twice `margin`.
  """
  side = max(side, 2 * margin)  # else most of the work would be done twice
  side = -(-length // -(-length // side))  # as even as may be
  side, margin = (-(-n // grid) * grid for n in (side, margin))
  size = side + 2 * margin
  size += (length - size) % grid
  if size >= length:
    return length, [Window(0, 0, length)]
  starts = (min(max(0, first - margin), length - size) for first in range(0, length, side))
  found = zip(starts, range(0, length, side), strict=True)
  return size, [Window(start, first, min(first + side, length)) for start, first in found]


def enlarge(
  predict: Callable[[np.ndarray], Any],
  lr: Float[np.ndarray, 'h w c'],
  *,
  scale: int,
  side: int,
  margin: int,
  grid: int = 1,
  together: int = 1,
) -> Float[np.ndarray, 'sh sw c']:
  """Enlarge an image window by window, `together` of them in each call of `predict`.

  `lr` is in [0, 1]; `side` and `margin` are in its pixels. `predict` takes images [together, h, w,
  c] of one size; what fills up the last call is dropped.
  """
  height, width, channels = lr.shape
  (tall, rows), (wide, columns) = (windows(n, side, margin, grid) for n in (height, width))
  made = np.empty((scale * height, scale * width, channels), np.float32)
  for places in _groups(itertools.product(rows, columns), together):
    cut = [lr[y.start : y.start + tall, x.start : x.start + wide] for y, x in places]
    images = predict(np.stack(cut + cut[-1:] * (together - len(cut))))
    for (y, x), image in zip(places, np.asarray(images), strict=False):
      (top, bottom), (left, right) = ((scale * n.first, scale * n.last) for n in (y, x))
      ours = image[top - scale * y.start : bottom - scale * y.start]
      made[top:bottom, left:right] = ours[:, left - scale * x.start : right - scale * x.start]
  return made


def _groups(places: Iterator[Any], size: int) -> Iterator[list[Any]]:
  while group := list(itertools.islice(places, size)):
    yield group
