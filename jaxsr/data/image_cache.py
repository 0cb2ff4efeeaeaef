"""Training images in memory: decoded once, downscaled once, cropped many times."""

import errno
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from jaxsr.data import crops, sources
from jaxsr.data.crops import Film
from jaxsr.data.reading import ReadBoard
from jaxsr.data.records import Records
from jaxsr.data.sources import Folder, Paired, Source, deepen
from jaxsr.data.teacher_cache import Labels
from jaxsr.errors import ImageError, Interruption, warn

# Of file servers and broken disks, and of a process that lacks memory or open files for a moment.
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENXIO, errno.ENODEV)
_PASSING += (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH)
_PASSING += (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class Films:
  """The images of a source by number, the least recently used dropped above `capacity` bytes.

  A damaged image is reported once on stderr and replaced by the next valid one, so that the image
  of a number depends on the files alone. If the folder of all images is away, reading waits for it
  for `sum(pauses)` seconds.
  """

  pauses = (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

  def __init__(
    self,
    source: Source,
    *,
    scale: int,
    capacity: int,
    labels: Labels | None = None,
    board: ReadBoard | None = None,
  ):
    self.source, self.scale, self.capacity, self.labels = source, scale, capacity, labels
    self.board = board or ReadBoard(0)
    self._start()

  def _start(self) -> None:
    self._kept: OrderedDict[int, Film] = OrderedDict()
    self._bytes = 0
    self._bad: set[int] = set()
    self._lock = threading.Lock()

  def __getstate__(self) -> dict:  # a worker process starts with an empty cache
    names = ('source', 'scale', 'capacity', 'labels', 'board')
    return {name: vars(self)[name] for name in names}

  def __setstate__(self, state: dict) -> None:
    vars(self).update(state)
    self._start()

  def __repr__(self) -> str:  # grain prints its source, and an address would differ in every run
    return f'Films({len(self)}, scale={self.scale})'

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Film:
    for candidate in range(index, index + len(self)):
      candidate %= len(self)
      found = self._get(candidate)
      if found is not None:
        return found
    raise ImageError(Path(self.source.names[index]), 'is damaged, as are all other images')

  def _get(self, index: int) -> Film | None:
    with self._lock:
      if index in self._bad:
        return None
      if index in self._kept:
        self._kept.move_to_end(index)
        return self._kept[index]
    try:
      with self.board.reading(index):
        made = self._make_patiently(index)
    except ImageError as error:
      self._reject(index, error)
      return None
    self._keep(index, made)
    return made

  def _make_patiently(self, index: int) -> Film:
    """Read an image; wait if the folder of all images is away, and read again after an I/O error.

    Raises Interruption if the folder stays away.
    """
    for pause in (*self.pauses, None):
      try:
        return self._make(index)
      except ImageError as error:
        away = self._away()
        passing = getattr(error.__cause__, 'errno', None) in _PASSING
        came_back = error.reason == 'is missing' and os.path.exists(error.path)
        if not (away or passing or came_back):
          raise
        if pause is None and away:
          text = f'{away}: no image can be read there, for {sum(self.pauses):g} s'
          raise Interruption(text) from error
        if pause is None:
          raise
        time.sleep(pause)
    raise AssertionError  # the last pause is None

  def _away(self) -> Path | None:
    """Returns the folder of images, records or labels that cannot be read, as if not mounted."""
    source, labels = self.source, self.labels
    parts = [source.hr, source.lr] if isinstance(source, Paired) else [source]
    folders = [part for part in parts if isinstance(part, Folder | Records)]
    if gone := [folder.root for folder in folders if folder.is_away()]:
      return gone[0]
    return labels.folder if labels and not os.path.exists(labels.folder) else None

  def _make(self, index: int) -> Film:
    source = self.source
    if isinstance(source, Records):
      made = source.film(index, self.scale)
    else:
      lr = sources.low_resolution(source, index)
      made = crops.make_film(deepen(source[index], source.bits), self.scale, lr)
    if self.labels is None:
      return made
    return made._replace(teacher=self.labels.read(index, made.lr))

  def _keep(self, index: int, made: Film) -> None:
    with self._lock:
      if index not in self._kept:
        self._kept[index] = made
        self._bytes += _size(made)
      while self._bytes > self.capacity and len(self._kept) > 1:
        _, dropped = self._kept.popitem(last=False)
        self._bytes -= _size(dropped)

  def _reject(self, index: int, error: ImageError) -> None:
    with self._lock:
      known = index in self._bad
      self._bad.add(index)
    if not known:
      warn(f'left out of training: {error}')


def _size(made: Film) -> int:
  return sum(array.nbytes for array in made if array is not None)
