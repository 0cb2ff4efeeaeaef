"""Images in the memory of the devices: crops are cut and turned inside the jitted step.

The host draws where crops lie, with the same random numbers as for images on the host, and sends
only that. The batches are equal to those of the host, bit by bit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt

from jaxsr import runtime, sharding
from jaxsr.data.batch import Batch, normalize
from jaxsr.data.image_cache import Films
from jaxsr.errors import UserError

SHARE = 0.8  # of the memory of a device that images may take


class CropIndex(NamedTuple):
  """The facts about images on the device that the host draws crops by.

  Attributes:
    lengths: Height and width of the low resolution, the same for all images.
    errors: The running sums of bicubic's error (`crops.Film.error`) per image.
  """

  lengths: tuple[int, int]
  errors: Float[np.ndarray, 'n blocks']


def load(films: Films, mesh: Mesh) -> tuple[CropIndex, dict[str, Any]]:
  """Put all images on every device.

  Returns:
    The index of the images, and the arrays `hr`, `lr` and, if there is a teacher, `teacher`,
    uint8 or uint16 [n, h, w, c].

  Raises:
    UserError: The images differ in size, or do not fit into the memory of a device.
  """
  sizes, names = films.source.sizes, films.source.names
  other = next((i for i, size in enumerate(sizes) if size != sizes[0]), 0)
  if other:
    named = (f'{names[i]} is {sizes[i][1]}x{sizes[i][0]}' for i in (0, other))
    raise UserError(
      f'config.data.cache=device needs images of one size, but {" and ".join(named)}; set '
      'config.data.cache=host'
    )
  first = films[0]
  count = len(films)
  _check_memory(count * sum(x.nbytes for x in (first.hr, first.lr, first.teacher) if x is not None))
  arrays = {'hr': first.hr, 'lr': first.lr}
  arrays |= {} if first.teacher is None else {'teacher': first.teacher}
  stacked = {name: np.empty((count, *x.shape), x.dtype) for name, x in arrays.items()}
  errors = np.empty((count, first.error.size))
  for i, film in enumerate(
    runtime.prefetch_map(films.__getitem__, range(count), runtime.cpu_count())
  ):
    errors[i] = film.error
    for name, stack in stacked.items():
      stack[i] = getattr(film, name)
  height, width, _ = first.lr.shape
  return CropIndex((height, width), errors), sharding.put_everywhere(stacked, mesh)


def _check_memory(size: int) -> None:
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  if limit and size > SHARE * limit:
    raise UserError(
      f'config.data.cache=device: the images take {size / 2**30:.1f} GiB, but a device has '
      f'{limit / 2**30:.1f} GiB; set config.data.cache=host'
    )


def to_batch(where: Batch, films: Batch, *, patch: int, margin: int) -> Batch:
  """Cut a batch out of images on the device, as floats; part of the jitted step."""
  return normalize(cut(films, where, patch=patch, margin=margin))


def cut(
  films: dict[str, UInt[Array, '...']],
  where: dict[str, Int[Array, '...']],
  *,
  patch: int,
  margin: int,
) -> dict[str, UInt[Array, 'b h w c']]:
  """Cut a batch out of images on the device.

  Args:
    films: `hr`, `lr` and perhaps `teacher`, [n, h, w, c].
    where: For each crop the number of its image [b], its corner in low-resolution pixels [b, 2],
      and its turn from 0 to 7 [b].
    patch: Low-resolution pixels of a crop that the loss sees.
    margin: Low-resolution pixels around them.

  Returns:
    The same arrays as a host batch holds.
  """
  side, scale = patch + 2 * margin, films['hr'].shape[1] // films['lr'].shape[1]
  factors = {name: 1 if name == 'lr' else scale for name in films}
  batch = {name: _gather(films[name], where, side, factor) for name, factor in factors.items()}
  return batch | {'mask': _mask(where, films['lr'].shape[1:3], side, margin, scale)}


def _turned(where: dict[str, Int[Array, '...']], side: int) -> tuple[Int[Array, 'b s s'], ...]:
  """Returns the row and column in the unturned crop of each pixel of the turned crop."""
  turn = where['turn'][:, None, None]
  index = jnp.arange(side)
  rows, columns = index[None, :, None], index[None, None, :]
  rows = jnp.where(turn & 2, side - 1 - rows, rows)
  columns = jnp.where(turn & 1, side - 1 - columns, columns)
  rows, columns = jnp.broadcast_arrays(rows, columns)
  swapped = (turn & 4) > 0
  return jnp.where(swapped, columns, rows), jnp.where(swapped, rows, columns)


def _gather(
  stack: UInt[Array, 'n h w c'], where: dict[str, Int[Array, '...']], side: int, scale: int
) -> UInt[Array, 'b s s c']:
  rows, columns = _turned(where, scale * side)
  corner = scale * where['corner'][:, :, None, None]
  return stack[where['film'][:, None, None], corner[:, 0] + rows, corner[:, 1] + columns]


def _mask(
  where: dict[str, Int[Array, '...']], lengths: tuple[int, ...], side: int, margin: int, scale: int
) -> UInt[Array, 'b s s 1']:
  """Returns 0 in the margin and 1 elsewhere; there is no margin at the edge of an image."""
  rows, columns = _turned(where, scale * side)
  inside = []
  for axis, place in enumerate((rows, columns)):
    start = where['corner'][:, axis, None, None]
    low = jnp.where(start > 0, scale * margin, 0)
    high = jnp.where(start + side < lengths[axis], scale * (side - margin), scale * side)
    inside.append((place >= low) & (place < high))
  return (inside[0] & inside[1])[..., None].astype(jnp.uint8)
