"""Speed of the loader: python -m benchmarks.loader --data DIR.

Prints decoded films per second, then aligned crops per second in steady state, by wall clock and
per core (by the processor time of the process). For a comparison with PyTorch's DataLoader and the
usual data set, which opens, crops and downsamples a film for each item, run
python -m benchmarks --mode load --data DIR.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.pairs import Ratios, alternate
from jaxsr.data import image_cache, pipeline, sources
from jaxsr.data.crops import Windows

SCALE, PATCH, MARGIN = 4, 24, 12
SIDE = SCALE * (PATCH + 2 * MARGIN)


def main(data: Path, batch_size: int = 16, batches: int = 400, threads: int = 1) -> None:
  """Measure on a folder of films; crops are of 192x192 high-resolution pixels."""
  kept, stream = _open(data, batch_size, threads)
  print(f'{len(kept)} films; crops of {SIDE} pixels; {threads} threads')
  _measure('decode and degrade', len(kept), lambda: [kept[i] for i in range(len(kept))])
  _measure('steady state', batches * batch_size, lambda: [next(stream) for _ in range(batches)])
  stream.close()


def _open(data: Path, batch_size: int, threads: int) -> tuple[image_cache.Films, pipeline.Stream]:
  source = sources.Folder(data, minimum=SIDE)
  kept = image_cache.Films(source, scale=SCALE, capacity=8 * 2**30)
  dataset = pipeline.batches(kept, Windows(0, PATCH, MARGIN, 0.5), batch_size=batch_size)
  return kept, pipeline.iterate(dataset, start=0, threads=threads, workers=0)


def beside_torch(data: Path, pairs: int, batch_size: int = 16) -> Ratios:
  """Time both loaders alternately in steady state: seconds per crop."""
  kept, stream = _open(data, batch_size, 1)
  for i in range(len(kept)):
    kept[i]  # decoded once, as in the first epoch of a run
  other = torch_batches(sources.Folder(data, minimum=SIDE).paths, side=SIDE, batch_size=batch_size)
  many, few = 100, 2

  def run_jaxsr() -> None:
    for _ in range(many):
      next(stream)

  def run_pytorch() -> None:
    for _ in range(few):
      next(other)

  found = alternate(run_jaxsr, run_pytorch, pairs)
  stream.close()
  by_crop = lambda seconds, n: [s / (n * batch_size) for s in seconds]  # noqa: E731
  return Ratios(by_crop(found.jaxsr, many), by_crop(found.other, few))


def torch_batches(
  paths: list[Path], *, side: int, batch_size: int, workers: int = 0
) -> Iterator[Any]:
  """Yields batches of PyTorch's DataLoader with the usual data set, endlessly."""
  from torch.utils.data import DataLoader, Dataset  # the extra 'benchmarks'

  class Plain(Dataset):
    def __len__(self) -> int:
      return len(paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
      film = Image.open(paths[index]).convert('L')
      left, top = (random.randrange(length - side + 1) for length in film.size)
      hr = film.crop((left, top, left + side, top + side))
      lr = hr.resize((side // SCALE, side // SCALE), Image.Resampling.BICUBIC)
      return np.asarray(lr), np.asarray(hr)

  loader = DataLoader(
    Plain(),
    batch_size=batch_size,
    shuffle=True,
    drop_last=len(paths) >= batch_size,
    num_workers=workers,
    persistent_workers=workers > 0,
  )
  while True:
    yield from loader


def _measure(name: str, count: int, work: Callable[[], object]) -> None:
  wall, processor = time.perf_counter(), time.process_time()
  work()
  wall, processor = time.perf_counter() - wall, time.process_time() - processor
  print(f'{name:20s} {count / wall:8.0f}/s {count / processor:8.0f}/s per core')


if __name__ == '__main__':
  tyro.cli(main)
