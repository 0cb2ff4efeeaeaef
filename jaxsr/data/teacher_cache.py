"""A teacher's images of whole films, made once and kept on disk.

They are better than those of crops, which lack what lies around them, and cost a run nothing.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxsr.data import degradation
from jaxsr.data.sources import Source, deepen
from jaxsr.errors import ImageError
from jaxsr.files import atomic

Raw = UInt[np.ndarray, 'h w c']
LEVELS = 65535


class Labels:
  """Labels of a source's images by number, uint16 [h, w, c], in a folder."""

  def __init__(self, folder: Path, names: Sequence[str]):
    self.folder, self.names = folder, names

  def path(self, index: int) -> Path:
    """Name the file of a label."""
    return self.folder / f'{self.names[index]}.npz'

  def read(self, index: int, lr: Raw) -> Raw:
    """Read the label of a low-resolution image; raises ImageError if it is not that."""
    path = self.path(index)
    try:
      with np.load(path, allow_pickle=False) as file:
        label, checksum = file['label'], int(file['checksum'])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      raise ImageError(path, f'cannot be read ({error}); delete it') from error
    if checksum != zlib.crc32(lr.tobytes()):
      raise ImageError(path, 'is the label of another image; delete it')
    return label


def make(
  labels: Labels, source: Source, enlarge: Callable[[np.ndarray], np.ndarray], *, scale: int
) -> Iterator[Path]:
  """Make the labels that are missing; yields the file of each.

  `enlarge` takes a float32 image in [0, 1] and gives one. Films that are damaged have none.
  """
  for index in range(len(source)):
    path = labels.path(index)
    if path.exists():
      continue
    try:
      image = deepen(source[index], source.bits)
    except ImageError:
      continue  # the run names it when it meets it
    lr = degradation.downscale(degradation.cut(image, scale), scale)
    sr = enlarge(lr.astype(np.float32) / np.iinfo(lr.dtype).max)
    label = np.rint(np.clip(sr, 0, 1) * LEVELS).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open('wb') as file:
      np.savez(file, label=label, checksum=zlib.crc32(lr.tobytes()))
    yield path
