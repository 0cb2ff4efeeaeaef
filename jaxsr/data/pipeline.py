"""The grain pipeline: batch i is a pure function of i.

A batch is `{'lr': [b, h, w, c], 'hr': [b, sh, sw, c], 'mask': [b, sh, sw, 1]}` in the images' own
integers (a fourth of the bytes of floats; `batch.normalize` turns them into floats on the device),
with `teacher` like `hr` where a teacher's images of whole films are kept. The mask is 0 in the
margin, whose pixels a network would have to explain by what the crop cut away, and 1 elsewhere;
where a crop ends at the image's edge it has no margin there.
"""

import dataclasses
import signal
from collections.abc import Generator

import grain
import numpy as np
from absl import flags

from jaxsr import runtime
from jaxsr.data import degradation, synthetic_edges
from jaxsr.data.crops import Windows
from jaxsr.data.device_cache import CropIndex
from jaxsr.data.image_cache import Films

ENDLESS = 2**48  # samples: as good as without end

Raw = dict[str, np.ndarray]
Stream = Generator[Raw, None, None]


@dataclasses.dataclass(frozen=True)
class CropSampler:
  """Cut the crop of a number, in the low resolution, the high one, and its mask."""

  films: Films
  windows: Windows
  edges: float = 0.0  # the share of crops that edges are drawn on

  def __call__(self, number: int, rng: np.random.Generator) -> Raw:
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
    return {name: _turn(x, turn) for name, x in {'lr': lr, 'mask': mask, **cropped}.items()}


@dataclasses.dataclass(frozen=True)
class CropLocation:
  """Say where the crop of a number lies, for films that are on the device."""

  index: CropIndex
  windows: Windows

  def __call__(self, number: int, rng: np.random.Generator) -> Raw:
    film = self.windows.film(number, len(self.index.errors))
    corner, turn = self.windows.draw(self.index.lengths, self.index.errors[film], rng)
    where = {'film': film, 'corner': corner, 'turn': turn}
    return {name: np.array(value, np.int32) for name, value in where.items()}


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
  films: Films | CropIndex,
  windows: Windows,
  *,
  batch_size: int,
  edges: float = 0.0,
  process: int = 0,
  processes: int = 1,
) -> grain.MapDataset:
  """Describe this process's share of all batches; `[i]` is batch i.

  `edges` is the share of crops that hard edges are drawn on. Of `CropIndex`, a batch says where its
  crops lie, and the device cuts them.
  """
  make = (
    CropSampler(films, windows, edges) if isinstance(films, Films) else CropLocation(films, windows)
  )
  dataset = grain.MapDataset.range(ENDLESS).seed(windows.seed)
  dataset = dataset.random_map(make).batch(batch_size // processes)
  return dataset[process::processes] if processes > 1 else dataset


def iterate(dataset: grain.MapDataset, *, start: int, threads: int, workers: int) -> Stream:
  """Yield batches from `start` on, prepared ahead by threads or by worker processes."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  stream = dataset[start:].to_iter_dataset(ahead)
  if workers:
    if not flags.FLAGS.is_parsed():  # grain reads absl flags, which only absl's own main parses
      flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    stream = stream.mp_prefetch(options, worker_init_fn=_init_worker)
  iterator = iter(stream)
  try:
    yield from iterator
  finally:
    if hasattr(iterator, 'close'):
      iterator.close()


def _init_worker(worker: int, workers: int) -> None:
  """Leave Ctrl-C to the trainer, and end with it."""
  del worker, workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
  runtime.die_with_parent()
