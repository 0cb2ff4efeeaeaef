"""Data upcycling: further inputs for a student and its teacher, made from a batch.

Zhang et al., Data Upcycling Knowledge Distillation for Image Super-Resolution, 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr.data.batch import Batch

Image = Float[Array, 'b h w c']
CHANCE = 0.3  # of each change, per image


class UpcycledBatch(NamedTuple):
  """Images that were made from a batch to be enlarged.

  The teacher enlarges `lr`. The student enlarges `student_lr`, the same images changed as `changes`
  marks per image: inverted, mirrored up and down, mirrored left and right, transposed. `hr` are
  the true images if they are known.
  """

  lr: Image
  changes: jax.Array | None = None  # bool [4, b]
  hr: Image | None = None

  @property
  def student_lr(self) -> Image:
    """The images that the student enlarges."""
    return self.lr if self.changes is None else _change(self.lr, self.changes)

  def undo(self, sr: Image) -> Image:
    """Take the changes back in the student's enlarged images."""
    return sr if self.changes is None else _change(sr, self.changes, back=True)


def upcycle(batch: Batch, key: jax.Array, *, scale: int) -> list[UpcycledBatch]:
  """Make further inputs from a batch.

  Zooming in takes a part of the high-resolution images for low-resolution ones, changed for the
  student. Zooming out downsamples the low-resolution images once more, so that the true images are
  known; it is left out if their sides are no multiple of the scale.
  """
  lr, hr = batch['lr'], batch['hr']
  size = lr.shape[1:3]
  keys = jax.random.split(key)
  corner = jax.random.randint(keys[0], (2,), 0, scale) * jnp.asarray(size)
  start = (0, corner[0], corner[1], 0)
  part = jax.lax.dynamic_slice(hr, start, (hr.shape[0], *size, hr.shape[3]))
  upcycled = [UpcycledBatch(part, changes=jax.random.bernoulli(keys[1], CHANCE, (4, hr.shape[0])))]
  if not any(side % scale for side in size):
    small = (lr.shape[0], size[0] // scale, size[1] // scale, lr.shape[3])
    upcycled.append(UpcycledBatch(jax.image.resize(lr, small, 'cubic', antialias=True), hr=lr))
  return upcycled


def _change(images: Image, changes: jax.Array, *, back: bool = False) -> Image:
  """Apply the marked changes to each image, or undo them in the opposite order."""
  functions = (
    lambda x: 1 - x,
    lambda x: x[:, ::-1],
    lambda x: x[:, :, ::-1],
    lambda x: x.swapaxes(1, 2),
  )
  order = list(zip(functions, changes, strict=True))
  for function, marked in reversed(order) if back else order:
    images = jnp.where(marked[:, None, None, None], function(images), images)
  return images
