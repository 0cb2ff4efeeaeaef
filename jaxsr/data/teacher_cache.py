"""A teacher's images of full training images, computed once and kept on disk.

They cost a run no time, and near the edges of a crop they are better than the teacher's images of
the crop alone, since the teacher saw the surroundings.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxsr.data import degradation, sources
from jaxsr.data.sources import Source, deepen
from jaxsr.errors import ImageError, one_line
from jaxsr.files import atomic

Image = UInt[np.ndarray, 'h w c']
LEVELS = 65535


class Labels:
  """The teacher's images of a source by number, uint16 [sh, sw, c], in a folder."""

  def __init__(self, folder: Path, names: Sequence[str]):
    self.folder, self.names = folder, names

  def path(self, index: int) -> Path:
    """Returns the file of a label."""
    return self.folder / f'{self.names[index]}.npz'

  def read(self, index: int, lr: Image) -> UInt[np.ndarray, 'sh sw c']:
    """Load the label of a low-resolution image.

    Raises:
      ImageError: The file cannot be read, or is the label of another image.
    """
    path = self.path(index)
    try:
      with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
        label, checksum = arrays['label'], int(arrays['checksum'])
    except Exception as error:  # `zipfile` raises many kinds
      raise ImageError(path, f'cannot be read ({one_line(error)}); delete it') from error
    if checksum != zlib.crc32(lr.tobytes()):
      raise ImageError(path, 'is the label of another image; delete it')
    return label


def make(
  labels: Labels, source: Source, enlarge: Callable[[np.ndarray], np.ndarray], *, scale: int
) -> Iterator[Path]:
  """Compute the labels that are missing.

  Args:
    labels: Where they are kept.
    source: The training images; damaged ones get no label.
    enlarge: The teacher, a function of a float32 image [h, w, c] in [0, 1].
    scale: The upsampling factor.

  Yields:
    The file of each new label.
  """
  for index in range(len(source)):
    path = labels.path(index)
    if path.exists():
      continue
    try:
      given = sources.low_resolution(source, index)
      image = deepen(source[index] if given is None else given, source.bits)
    except ImageError:
      continue  # reported when the run reads it
    lr = image
    if given is None:
      lr = degradation.downscale(degradation.cut(image, scale), scale)
    sr = enlarge(lr.astype(np.float32) / np.iinfo(lr.dtype).max)
    label = np.rint(np.clip(sr, 0, 1) * LEVELS).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open('wb') as file:
      np.savez(file, label=label, checksum=zlib.crc32(lr.tobytes()))
    yield path
