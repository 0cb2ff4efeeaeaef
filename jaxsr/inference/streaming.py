"""Upscale images that are too large for memory in strips of rows, from the top.

A strip is read with the rows around it that the network needs, as tiles are, so that the result is
that of the full image up to rounding.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt
from PIL import Image

from jaxsr.inference import tiling

FROM = 2**25  # pixels of a result; larger ones are made in strips
MOST = 400 * 10**6  # pixels of a result
_STRIP = 2**24  # pixels of a result that are held in memory
_SUPPORT = 2  # radius of the bicubic filter in pixels of its result

Levels = UInt[np.ndarray, '_ _ c']


def strips(
  enlarge: Callable[[Levels], Levels],
  image: Levels,
  *,
  scale: int,
  margin: int,
  multiple: int = 1,
) -> Iterator[Levels]:
  """Yield the upscaled image in strips of rows.

  Args:
    enlarge: upscales an image of integer levels, all of one size.
    image: the image.
    scale: the factor of `enlarge`.
    margin: low-resolution rows that `enlarge` needs around a row.
    multiple: strips start at multiples of it.

  Yields:
    uint8 or uint16 [rows, scale * w, c], from the top.
  """
  height, width, _ = image.shape
  rows = _STRIP // (scale**2 * width)
  tall, places = tiling.spans(height, max(rows, multiple), margin, multiple)
  for place in places:
    strip = enlarge(image[place.start : place.start + tall])
    yield strip[scale * (place.first - place.start) : scale * (place.last - place.start)]


def resize_rows(
  strips: Iterator[Levels], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[Levels]:
  """Reduce an image that comes in strips by Pillow's bicubic filter, which avoids aliasing.

  Levels are resampled as floats and rounded once, so 16 bits keep their precision.

  Args:
    strips: rows of the image, from the top.
    source: height and width of the image.
    target: height and width of the result, which is not larger.

  Yields:
    Rows of the result, from the top.
  """
  (height, width), (tall, wide) = source, target
  ratio = height / tall
  reach = math.ceil(_SUPPORT * max(ratio, 1.0)) + 1
  held, top, done = np.empty((0, width, 0)), 0, 0
  for strip in strips:
    held = np.concatenate([held, strip]) if len(held) else strip
    bottom = top + len(held)
    ready = tall if bottom == height else int((bottom - reach) / ratio)
    if ready <= done:
      continue
    box = (0, done * ratio - top, width, min(ready * ratio, height) - top)
    yield _resize(held, (wide, ready - done), box)
    done = ready
    first = max(top, int(done * ratio) - reach)
    held, top = held[first - top :], first


def _resize(levels: Levels, size: tuple[int, int], box: Any) -> Levels:
  planes = []
  for c in range(levels.shape[2]):
    plane = Image.fromarray(levels[..., c].astype(np.float32))
    resized = np.asarray(plane.resize(size, Image.Resampling.BICUBIC, box=box))
    planes.append(np.clip(np.rint(resized), 0, np.iinfo(levels.dtype).max).astype(levels.dtype))
  return np.stack(planes, axis=-1)
