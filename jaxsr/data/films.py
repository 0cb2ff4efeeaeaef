"""Films in memory: decoded once, degraded once, cropped many times."""

import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import degradation
from jaxsr.data.images import ImageError
from jaxsr.data.labels import Labels
from jaxsr.data.sources import Source, deepen

BLOCK = 4  # side, in pixels of the low resolution, of the blocks that the error is summed over


class Film(NamedTuple):
  """An image, its low resolution, and where bicubic errs.

  `error` is the running sum, scaled to end at 1, of bicubic's squared error over blocks of
  `BLOCK` low-resolution pixels, row by row. `teacher` is a teacher's image, where there is one.
  """

  hr: UInt[np.ndarray, 'sh sw c']
  lr: UInt[np.ndarray, 'h w c']
  error: Float[np.ndarray, ' blocks']
  teacher: UInt[np.ndarray, 'sh sw c'] | None = None


def make(image: UInt[np.ndarray, 'h w c'], scale: int) -> Film:
  """Cut and degrade an image, and map bicubic's error."""
  hr = degradation.cut(image, scale)
  lr = degradation.downscale(hr, scale)
  difference = hr.astype(np.float32) - degradation.upscale(lr, scale)
  side = BLOCK * scale
  starts = [np.arange(0, length, side) for length in hr.shape[:2]]
  blocks = np.square(difference).sum(axis=2)
  blocks = np.add.reduceat(np.add.reduceat(blocks, starts[0], axis=0), starts[1], axis=1)
  total = np.cumsum(blocks.astype(np.float64).ravel())
  uniform = np.arange(1, total.size + 1) / total.size  # where bicubic is exact everywhere
  return Film(hr, lr, total / total[-1] if total[-1] > 0 else uniform)


class Films:
  """Films of a source by number, kept in memory up to `capacity` bytes, oldest dropped first.

  An image that turns out to be damaged is named once on stderr and replaced by the next one that
  is not, so that what a number means depends on the files alone.
  """

  def __init__(self, source: Source, *, scale: int, capacity: int, labels: Labels | None = None):
    self.source, self.scale, self.capacity, self.labels = source, scale, capacity, labels
    self._start()

  def _start(self) -> None:
    self._kept: OrderedDict[int, Film] = OrderedDict()
    self._bytes = 0
    self._bad: set[int] = set()
    self._lock = threading.Lock()

  def __getstate__(self) -> dict:  # a worker process starts with nothing in memory
    return {name: vars(self)[name] for name in ('source', 'scale', 'capacity', 'labels')}

  def __setstate__(self, state: dict) -> None:
    vars(self).update(state)
    self._start()

  def __repr__(self) -> str:  # grain prints its source; an address would differ on every run
    return f'Films({len(self)}, scale={self.scale})'

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Film:
    for candidate in range(index, index + len(self)):
      candidate %= len(self)
      film = self._get(candidate)
      if film is not None:
        return film
    raise ImageError(Path(self.source.names[index]), 'is damaged, and so are all the others')

  def _get(self, index: int) -> Film | None:
    with self._lock:
      if index in self._bad:
        return None
      if index in self._kept:
        self._kept.move_to_end(index)
        return self._kept[index]
    try:
      film = make(deepen(self.source[index], self.source.bits), self.scale)
      if self.labels is not None:
        film = film._replace(teacher=self.labels.read(index, film.lr))
    except ImageError as error:
      self._reject(index, error)
      return None
    self._keep(index, film)
    return film

  def _keep(self, index: int, film: Film) -> None:
    with self._lock:
      if index not in self._kept:
        self._kept[index] = film
        self._bytes += _size(film)
      while self._bytes > self.capacity and len(self._kept) > 1:
        _, dropped = self._kept.popitem(last=False)
        self._bytes -= _size(dropped)

  def _reject(self, index: int, error: ImageError) -> None:
    with self._lock:
      known = index in self._bad
      self._bad.add(index)
    if not known:
      print(f'left out of training: {error}', file=sys.stderr, flush=True)


def _size(film: Film) -> int:
  return sum(array.nbytes for array in film if array is not None)
