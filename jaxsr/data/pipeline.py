"""The grain pipeline, in which batch i is a pure function of i, and the loader built on it.

A host batch is a dictionary of integer arrays in the bit depth of the images, which take a fourth
of the bytes of floats (b batch, h w crop, sh = scale * h, sw = scale * w, c channels):

  lr       [b, h, w, c]    low-resolution crops
  hr       [b, sh, sw, c]  high-resolution crops
  mask     [b, sh, sw, 1]  0 in the margin, 1 elsewhere
  teacher  [b, sh, sw, c]  a teacher's images, if they were computed in advance

Pixels of the margin depend on pixels outside the crop, so the loss leaves them out. There is no
margin where a crop ends at the edge of the image.

With `config.data.cache=device`, a host batch holds only where its crops lie:

  film [b], corner [b, 2] in low-resolution pixels, turn [b]

With `config.data.degradation.kind=acquisition`, it also holds how each crop is acquired, and the
low resolution is made inside the jitted step:

  acquisition [b, k], see `acquisition.crops.pack`; noise [b], random integers
"""

import contextlib
import dataclasses
import errno
import functools
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator
from multiprocessing import shared_memory
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh

from jaxsr import runtime, sharding
from jaxsr.data import degradation, device_cache, reading, synthetic_edges
from jaxsr.data.acquisition import crops as acquisition
from jaxsr.data.acquisition.crops import Mixture
from jaxsr.data.batch import Batch, normalize
from jaxsr.data.crops import Windows
from jaxsr.data.device_cache import CropIndex
from jaxsr.data.image_cache import Films
from jaxsr.data.reading import ReadBoard
from jaxsr.data.sources import Source
from jaxsr.data.teacher_cache import Labels
from jaxsr.errors import UserError

ENDLESS = 2**48  # samples: as good as without end
# The tracker names batches that were prepared when a run ended, and deletes them.
_QUIET = 'ignore:resource_tracker:UserWarning'

HostBatch = dict[str, np.ndarray]
Stream = Generator[HostBatch, None, None]


class Loader(NamedTuple):
  """The way from files to the batches of a step, wherever the images are kept.

  Attributes:
    batches: Yields batches on the devices, from the given step on. Close it to stop its workers.
    to_batch: Turns such a batch and `device_arrays` into float32 images; part of the jitted step.
    device_arrays: Arrays that are on every device for the whole run.
    reading: Describes the image that is being read for the longest time.
    names: Returns the names of the images of a batch by its number.
  """

  batches: Callable[[int], Generator[Batch, None, None]]
  to_batch: Callable[[Batch, Batch], Batch]
  device_arrays: Batch
  reading: Callable[[], str] = lambda: 'no image is being read'
  names: Callable[[int], list[str]] = lambda number: []


def to_batch(batch: Batch, device_arrays: Batch) -> Batch:
  """Convert a batch that was cropped on the host."""
  del device_arrays
  return normalize(batch)


def make_loader(
  config: Any, source: Source, mesh: Mesh, *, labels: Labels | None = None, order: int = 0
) -> Loader:
  """Build the loader of a run.

  Args:
    config: The config of the run.
    source: The training images.
    mesh: The devices that batches are put on.
    labels: The teacher's images, if they were computed in advance.
    order: The number of the order of the images; 0 is the first.

  Raises:
    UserError: The images do not fit into the memory of a device, or differ in size.
  """
  data = config.data
  capacity = int(data.cache_gib * 2**30 / max(1, data.workers)) if data.cache == 'host' else 0
  board = ReadBoard(data.workers)
  films: Films | CropIndex = Films(
    source, scale=config.scale, capacity=capacity, labels=labels, board=board
  )
  convert, device_arrays = to_batch, {}
  if data.cache == 'device':
    films, device_arrays = device_cache.load(films, mesh)
    convert = functools.partial(device_cache.to_batch, patch=data.patch, margin=data.margin)
  options = dict(data.degradation)
  mixture = None
  if options.pop('kind') == 'acquisition':
    mixture = Mixture(**options)
    convert = functools.partial(_acquire, convert, seed=config.seed)
  windows = Windows(_seed(config.seed, order), data.patch, data.margin, data.by_error)
  dataset = batches(
    films,
    windows,
    batch_size=config.batch_size,
    edges=data.edges,
    mixture=mixture,
    process=jax.process_index(),
    processes=jax.process_count(),
  )

  def stream(start: int) -> Generator[Batch, None, None]:
    """Put each batch on the devices while the one before it is in use."""
    host = iterate(dataset, start=start, threads=data.threads, workers=data.workers)
    ahead: deque[Batch] = deque()
    try:
      for batch in host:
        ahead.append(sharding.put(batch, mesh))
        if len(ahead) > 1:
          yield ahead.popleft()
    finally:
      host.close()

  def describe() -> str:
    found = board.longest()
    if found is None:
      suspended = '; is a worker process suspended?' if data.workers else ''
      return f'no image is being read{suspended}'
    return f'{source.names[found[0]]} is being read for {found[1]:.0f} s'

  def names(number: int) -> list[str]:
    samples = range(number * config.batch_size, (number + 1) * config.batch_size)
    return [source.names[windows.film(sample, len(source))] for sample in samples]

  return Loader(stream, convert, device_arrays, describe, names)


def _seed(seed: int, order: int) -> int:
  """Returns the seed of an order of the images."""
  return int(np.random.SeedSequence((seed, order)).generate_state(1)[0]) if order else seed


def _acquire(
  convert: Callable[[Batch, Batch], Batch], batch: Batch, device_arrays: Batch, *, seed: int
) -> Batch:
  """Convert a batch, and make its low resolution anew by the acquisitions that it holds."""
  rest = {name: x for name, x in batch.items() if name not in ('acquisition', 'noise')}
  levels = jnp.iinfo((device_arrays or batch)['hr'].dtype).max
  converted = convert(rest, device_arrays)
  hr, lr = converted['hr'], converted['lr']
  key = jax.random.fold_in(jax.random.key(seed), batch['noise'][0])
  scale = hr.shape[1] // lr.shape[1]
  lr = acquisition.acquire(hr, batch['acquisition'], key, scale=scale, levels=levels)
  return {**converted, 'lr': lr}


@dataclasses.dataclass(frozen=True)
class CropSampler:
  """Cuts the crop of a sample number, with its mask."""

  films: Films
  windows: Windows
  edges: float = 0.0  # share of the crops that edges are drawn on
  mixture: Mixture | None = None

  def __call__(self, number: int, rng: np.random.Generator) -> HostBatch:
    film = self.films[self.windows.film(number, len(self.films))]
    scale, side, margin = self.films.scale, self.windows.side, self.windows.margin
    lengths = film.lr.shape[:2]
    corner, turn = self.windows.draw(lengths, film.error, rng)
    mask = _mask(corner, lengths, side, margin, scale)
    large = {'hr': film.hr} | ({} if film.teacher is None else {'teacher': film.teacher})
    start = [scale * c for c in corner]
    cropped = {name: _window(x, start, scale * side) for name, x in large.items()}
    lr = _window(film.lr, corner, side)
    if self.edges and rng.random() < self.edges:
      cropped['hr'] = synthetic_edges.draw(cropped['hr'], rng)
      lr = degradation.downscale(cropped['hr'], scale)
    found = {name: _turn(x, turn) for name, x in {'lr': lr, 'mask': mask, **cropped}.items()}
    return found | _numbers(rng, self.mixture)


@dataclasses.dataclass(frozen=True)
class CropLocation:
  """Finds where the crop of a sample number lies, for images that are on the device."""

  index: CropIndex
  windows: Windows
  mixture: Mixture | None = None

  def __call__(self, number: int, rng: np.random.Generator) -> HostBatch:
    film = self.windows.film(number, len(self.index.errors))
    corner, turn = self.windows.draw(self.index.lengths, self.index.errors[film], rng)
    where = {'film': film, 'corner': corner, 'turn': turn}
    found = {name: np.array(value, np.int32) for name, value in where.items()}
    return found | _numbers(rng, self.mixture)


def _numbers(rng: np.random.Generator, mixture: Mixture | None) -> HostBatch:
  return acquisition.draw_numbers(rng, mixture) if mixture else {}


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
  """Apply one of the eight symmetries of a square."""
  image = image.swapaxes(0, 1) if turn & 4 else image
  return np.ascontiguousarray(image[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1])


def batches(
  films: Films | CropIndex,
  windows: Windows,
  *,
  batch_size: int,
  edges: float = 0.0,
  mixture: Mixture | None = None,
  process: int = 0,
  processes: int = 1,
) -> grain.MapDataset:
  """Describe the share of a process in all batches.

  Args:
    films: The images, or an index of images that are on the device.
    windows: Where crops lie.
    batch_size: Crops per batch, of all processes together.
    edges: Share of the crops that synthetic edges are drawn on.
    mixture: How the low resolution is acquired; None for Pillow's bicubic.
    process: The number of this process.
    processes: The number of processes.

  Returns:
    A data set whose element `[i]` is batch i.
  """
  make: CropSampler | CropLocation
  if isinstance(films, Films):
    make = CropSampler(films, windows, edges, mixture)
  else:
    make = CropLocation(films, windows, mixture)
  dataset = grain.MapDataset.range(ENDLESS).seed(windows.seed)
  dataset = dataset.random_map(make).batch(batch_size // processes)
  return dataset[process::processes] if processes > 1 else dataset


def iterate(dataset: grain.MapDataset, *, start: int, threads: int, workers: int) -> Stream:
  """Yield batches from number `start` on, prepared in advance by threads or worker processes."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  stream = dataset[start:].to_iter_dataset(ahead)
  if workers:
    if _QUIET not in sys.warnoptions:
      sys.warnoptions.append(_QUIET)  # which Python's resource tracker gets when it starts
    _check_shared_memory()
    if not flags.FLAGS.is_parsed():  # grain reads absl flags, which only absl's own main parses
      flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    stream = stream.mp_prefetch(options, worker_init_fn=_init_worker)
  iterator = iter(stream)
  try:
    yield from iterator
  except OSError as error:
    if workers and error.errno == errno.ENOSPC:
      raise _no_memory(f'is full ({error.strerror})') from error
    raise
  finally:
    if hasattr(iterator, 'close'):
      with contextlib.suppress(AssertionError):  # of a process that could not be started
        iterator.close()


def _check_shared_memory() -> None:
  """Raise UserError if shared memory, in which workers pass batches, cannot be made."""
  try:
    memory = shared_memory.SharedMemory(create=True, size=1)
  except OSError as error:
    raise _no_memory(f'cannot be written ({error.strerror})') from error
  memory.close()
  memory.unlink()


def _no_memory(reason: str) -> UserError:
  return UserError(
    f'/dev/shm, which worker processes need, {reason}; enlarge it (docker run --shm-size=8g), or '
    'set config.data.workers=0'
  )


def _init_worker(worker: int, workers: int) -> None:
  """Ignore Ctrl-C, which the trainer handles, and end when the trainer ends."""
  del workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  reading.set_worker(worker)
  runtime.mark_shared_memory()
  runtime.die_with_parent()
