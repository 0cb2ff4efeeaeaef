"""Reductions by an integer factor as matrices, one per axis: low = rows @ image @ columns.T.

Pillow's bicubic filter is the degradation of the chest X-ray protocol, `imresize` that of the
natural-image benchmarks, and area binning that of a detector with larger pixels.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import degradation

KINDS = ('bicubic', 'imresize', 'area')
_SUPPORT = 2  # radius of the bicubic kernel, in low-resolution pixels


class Reduction(NamedTuple):
  """A reduction by an integer factor.

  Attributes:
    scale: the factor, 2 or more.
    kind: 'bicubic' (Pillow's), 'imresize' (MATLAB's bicubic) or 'area' (means of blocks).
  """

  scale: int
  kind: str = 'bicubic'

  def __call__(self, image: UInt[np.ndarray, 'sh sw c']) -> UInt[np.ndarray, 'h w c']:
    """Reduce an integer image and round it: 'bicubic' exactly as the protocol does."""
    if self.kind == 'bicubic':
      return degradation.downscale(image, self.scale)
    rows, columns = (matrix(self, side) for side in image.shape[:2])
    low = np.einsum('ys,stc,xt->yxc', rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(np.rint(low), 0, np.iinfo(image.dtype).max).astype(image.dtype)


@functools.lru_cache(maxsize=16)
def matrix(reduction: Reduction, size: int) -> Float[np.ndarray, 'target size']:
  """Returns the matrix of a reduction along an axis of `size` high-resolution pixels."""
  scale, kind = reduction
  target = size // scale
  if kind == 'imresize':
    found = degradation.imresize_matrix(size, target)
  elif kind == 'area':
    found = np.kron(np.eye(target), np.full((1, scale), 1 / scale))
  else:
    center = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - center) / scale
    found = degradation.cubic(distance)
    found /= found.sum(axis=1, keepdims=True)  # the part of a kernel inside the image counts
  found.setflags(write=False)
  return found
