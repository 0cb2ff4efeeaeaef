"""The grain pipeline: batch i is a pure function of i.

A batch is `{'lr': [b, h, w, c], 'hr': [b, sh, sw, c], 'mask': [b, sh, sw, 1]}` in the images' own
integers (a fourth of the bytes of floats; `normalise` turns them into floats on the device), with
`teacher` like `hr` where a teacher's images of whole films are kept. The
mask is 0 in the margin, whose pixels a network would have to explain by what the crop cut away,
and 1 elsewhere; where a crop ends at the image's edge it has no margin there.
"""

import ctypes
import dataclasses
import functools
import signal
import sys
from collections.abc import Generator

import grain
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxsr.data.films import BLOCK, Film, Films
from jaxsr.losses import Batch

ENDLESS = 2**48  # samples: as good as without end

Raw = dict[str, np.ndarray]
Stream = Generator[Raw, None, None]


@dataclasses.dataclass(frozen=True)
class Crop:
  """Draw an aligned crop of a film, of `patch` low-resolution pixels and a margin around them.

  With probability `by_error` it lies around a pixel drawn by bicubic's squared error, else
  anywhere. One of the eight flips and quarter turns is applied. Samples are numbered through all
  epochs; each epoch shows every film once, in an order of its own.
  """

  films: Films
  seed: int
  patch: int
  margin: int
  by_error: float

  def __call__(self, number: int, rng: np.random.Generator) -> Raw:
    epoch, place = divmod(number, len(self.films))
    film = self.films[int(_order(self.seed, epoch, len(self.films))[place])]
    scale, side = self.films.scale, self.patch + 2 * self.margin
    lengths = film.lr.shape[:2]
    wanted = self._corner_by_error(film, rng) if rng.random() < self.by_error else None
    corner = [
      _place(None if wanted is None else wanted[axis], lengths[axis], side, self.margin, rng)
      for axis in (0, 1)
    ]
    turn = int(rng.integers(8))
    mask = _mask(corner, lengths, side, self.margin, scale)
    large = {'hr': film.hr} | ({} if film.teacher is None else {'teacher': film.teacher})
    start = [scale * c for c in corner]
    cropped = {name: _turn(_window(x, start, scale * side), turn) for name, x in large.items()}
    return {'lr': _turn(_window(film.lr, corner, side), turn), 'mask': _turn(mask, turn)} | cropped

  def _corner_by_error(self, film: Film, rng: np.random.Generator) -> list[int]:
    """Draw a block by error, then a patch that holds a pixel of it; return the window's corner."""
    columns = -(-film.lr.shape[1] // BLOCK)
    block = int(np.searchsorted(film.error, rng.random(), side='right'))
    block = min(block, film.error.size - 1)
    pixel = np.array(divmod(block, columns)) * BLOCK + rng.integers(BLOCK, size=2)
    return (pixel - rng.integers(self.patch, size=2) - self.margin).tolist()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Shuffle the films of an epoch; grain's own shuffle takes milliseconds where they are few."""
  return np.random.default_rng((seed, epoch)).permutation(count)


def _place(
  wanted: int | None, length: int, side: int, margin: int, rng: np.random.Generator
) -> int:
  """Choose where a window starts along one axis.

  The range reaches beyond the image by the margin before it is cut off, or the image's edges
  would hardly ever be learnt from.
  """
  if wanted is None:
    wanted = int(rng.integers(-margin, length - side + margin + 1))
  return min(max(int(wanted), 0), length - side)


def _window(image: np.ndarray, corner: list[int], side: int) -> np.ndarray:
  return image[corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _mask(
  corner: list[int], lengths: tuple[int, ...], side: int, margin: int, scale: int
) -> np.ndarray:
  axes = []
  for start, length in zip(corner, lengths, strict=True):
    axis = np.ones(scale * side, np.uint8)
    axis[: scale * margin * (start > 0)] = 0
    axis[scale * (side - margin * (start + side < length)) :] = 0
    axes.append(axis)
  return np.outer(*axes)[..., None]


def _turn(image: np.ndarray, turn: int) -> np.ndarray:
  """Apply one of the eight symmetries of the square."""
  image = image.swapaxes(0, 1) if turn & 4 else image
  return np.ascontiguousarray(image[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1])


def batches(
  films: Films,
  *,
  batch_size: int,
  patch: int,
  margin: int,
  by_error: float,
  seed: int,
  process: int = 0,
  processes: int = 1,
) -> grain.MapDataset:
  """Describe this process's share of all batches; `[i]` is batch i."""
  crop = Crop(films, seed, patch, margin, by_error)
  dataset = grain.MapDataset.range(ENDLESS).seed(seed)
  dataset = dataset.random_map(crop).batch(batch_size // processes)
  return dataset[process::processes] if processes > 1 else dataset


def iterate(dataset: grain.MapDataset, *, start: int, threads: int, workers: int) -> Stream:
  """Yield batches from `start` on, prepared ahead by threads or by worker processes."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  stream = dataset[start:].to_iter_dataset(ahead)
  if workers:
    if not flags.FLAGS.is_parsed():  # grain reads absl flags, which only absl's own main parses
      flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    stream = stream.mp_prefetch(options, worker_init_fn=_die_with_parent)
  iterator = iter(stream)
  try:
    yield from iterator
  finally:
    if hasattr(iterator, 'close'):
      iterator.close()


def _die_with_parent(worker: int, workers: int) -> None:
  """Ask Linux to end a worker with its trainer, which may be killed without a chance to."""
  del worker, workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
  if sys.platform == 'linux':
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def normalise(batch: Batch) -> Batch:
  """Turn a batch of integers into float32 in [0, 1]; part of the jitted step."""
  peak = lambda x: jnp.iinfo(x.dtype).max  # noqa: E731
  floats = {n: x.astype(jnp.float32) / peak(x) for n, x in batch.items() if n != 'mask'}
  return {**floats, 'mask': batch['mask'].astype(jnp.float32)}
