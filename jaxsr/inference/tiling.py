"""Upscale large images in overlapping tiles: the result of the full image, in less memory."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsr import analysis
from jaxsr.models import Network

SIDE = 512  # low-resolution pixels that a tile contributes, along each axis


class Span(NamedTuple):
  """A tile along one axis: where it is read from, and the pixels that it contributes."""

  start: int
  first: int
  last: int


def margin(network: Network) -> int | None:
  """Low-resolution pixels that a tile needs around it; None if it needs the full image."""
  return None if network.tile_multiple is None else analysis.receptive_radius(network)


def spans(length: int, side: int, margin: int, multiple: int = 1) -> tuple[int, list[Span]]:
  """Cover a length with overlapping tiles of one size, so that each pixel comes from one of them.

  A tile reads `margin` pixels around those that it contributes, except at the ends of the image,
  where the network's padding then equals that of the full image.

  Args:
    length: pixels of the image along this axis.
    side: the most pixels that a tile contributes; raised to twice `margin`.
    margin: pixels that a tile reads on either side.
    multiple: tiles start at multiples of it.

  Returns:
    The size of the tiles, and the tiles.
  """
  side = max(side, 2 * margin)  # else most of the work would be done twice
  side = -(-length // -(-length // side))  # of nearly equal sizes
  side, margin = (-(-n // multiple) * multiple for n in (side, margin))
  size = side + 2 * margin
  size += (length - size) % multiple
  if size >= length:
    return length, [Span(0, 0, length)]
  starts = (min(max(0, first - margin), length - size) for first in range(0, length, side))
  found = zip(starts, range(0, length, side), strict=True)
  return size, [Span(start, first, min(first + side, length)) for start, first in found]


def upscale(
  predict: Callable[[np.ndarray], Any],
  lr: Float[np.ndarray, 'h w c'],
  *,
  scale: int,
  side: int,
  margin: int,
  multiple: int = 1,
  batch_size: int = 1,
) -> Float[np.ndarray, 'sh sw c']:
  """Upscale an image tile by tile.

  Args:
    predict: upscales a batch of tiles [batch_size, h, w, c], all of one size.
    lr: the image, in [0, 1].
    scale: the upscaling factor.
    side: the most low-resolution pixels that a tile contributes, along each axis.
    margin: low-resolution pixels that a tile reads around them.
    multiple: alignment of tile origins.
    batch_size: tiles per call of `predict`; the last batch is filled up with copies.

  Returns:
    The upscaled image, in [0, 1].
  """
  height, width, channels = lr.shape
  (tall, rows), (wide, columns) = (spans(n, side, margin, multiple) for n in (height, width))
  sr = np.empty((scale * height, scale * width, channels), np.float32)
  for places in _batches(itertools.product(rows, columns), batch_size):
    tiles = [lr[y.start : y.start + tall, x.start : x.start + wide] for y, x in places]
    images = predict(np.stack(tiles + tiles[-1:] * (batch_size - len(tiles))))
    for (y, x), image in zip(places, np.asarray(images), strict=False):
      (top, bottom), (left, right) = ((scale * n.first, scale * n.last) for n in (y, x))
      own = image[top - scale * y.start : bottom - scale * y.start]
      sr[top:bottom, left:right] = own[:, left - scale * x.start : right - scale * x.start]
  return sr


def _batches(places: Iterator[Any], size: int) -> Iterator[list[Any]]:
  while batch := list(itertools.islice(places, size)):
    yield batch
