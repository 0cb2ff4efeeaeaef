"""Films in the memory of the devices: crops and turns are made inside the jitted step.

The host draws where a crop lies, by the same numbers as without, and sends only that; the batch
that the device cuts is the host's, to the bit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt

from jaxsr import runtime, sharding
from jaxsr.data.image_cache import Films
from jaxsr.errors import UserError

ROOM = 0.8  # of a device's memory that films may take


class CropIndex(NamedTuple):
  """What the host must know of films that are elsewhere: their sides, and where bicubic errs."""

  lengths: tuple[int, int]  # of the low resolution
  errors: Float[np.ndarray, 'n blocks']


def load(films: Films, mesh: Mesh) -> tuple[CropIndex, dict[str, Any]]:
  """Put all films on every device: `hr`, `lr` and, where there is one, `teacher`, [n, h, w, c].

  Raises UserError where they are not of one size, or too many.
  """
  sizes, names = films.source.sizes, films.source.names
  other = next((i for i, size in enumerate(sizes) if size != sizes[0]), 0)
  if other:
    named = (f'{names[i]} is {sizes[i][1]}x{sizes[i][0]}' for i in (0, other))
    raise UserError(f'config.data.cache=device needs films of one size: {" and ".join(named)}')
  first = films[0]
  count = len(films)
  _check_room(count * sum(x.nbytes for x in (first.hr, first.lr, first.teacher) if x is not None))
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


def _check_room(size: int) -> None:
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  if limit and size > ROOM * limit:
    raise UserError(
      f'config.data.cache=device: the films take {size / 2**30:.1f} GiB, and a device has '
      f'{limit / 2**30:.1f}; take host or none'
    )


def cut(
  films: dict[str, UInt[Array, '...']],
  where: dict[str, Int[Array, '...']],
  *,
  patch: int,
  margin: int,
) -> dict[str, UInt[Array, 'b h w c']]:
  """Cut a batch out of films; part of the jitted step.

  `where` has the number of each crop's film [b], its corner in the low resolution [b 2], and its
  turn [b].
  """
  side, scale = patch + 2 * margin, films['hr'].shape[1] // films['lr'].shape[1]
  factors = {name: 1 if name == 'lr' else scale for name in films}
  batch = {name: _gather(films[name], where, side, factor) for name, factor in factors.items()}
  return batch | {'mask': _mask(where, films['lr'].shape[1:3], side, margin, scale)}


def _turned(where: dict[str, Int[Array, '...']], side: int) -> tuple[Int[Array, 'b s s'], ...]:
  """Give, for each pixel of a turned crop, its row and column in the crop as it lies."""
  turn = where['turn'][:, None, None]
  ahead = jnp.arange(side)
  rows, columns = ahead[None, :, None], ahead[None, None, :]
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
  """Leave the margin out, but where the film ends there."""
  rows, columns = _turned(where, scale * side)
  inside = []
  for axis, place in enumerate((rows, columns)):
    start = where['corner'][:, axis, None, None]
    low = jnp.where(start > 0, scale * margin, 0)
    high = jnp.where(start + side < lengths[axis], scale * (side - margin), scale * side)
    inside.append((place >= low) & (place < high))
  return (inside[0] & inside[1])[..., None].astype(jnp.uint8)
