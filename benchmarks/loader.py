"""How fast the loader is: python -m benchmarks.loader --data DIR [--against-torch].

Prints decoded films a second, then aligned crops a second in steady state, by the wall clock and a
core (by the processor time of the whole process). `--against-torch` measures PyTorch's DataLoader
on the same folder beside it: the usual dataset that opens, crops and shrinks a film for each item.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from jaxsr.data import films, pipeline, sources
from jaxsr.data.windows import Windows


def main(
  data: Path,
  scale: int = 4,
  patch: int = 24,
  margin: int = 12,
  batch_size: int = 16,
  batches: int = 400,
  threads: int = 1,
  against_torch: bool = False,
) -> None:
  """Measure on a folder of films; the default crop is of 192x192 high-resolution pixels."""
  side = scale * (patch + 2 * margin)
  source = sources.Folder(data, minimum=side)
  kept = films.Films(source, scale=scale, capacity=8 * 2**30)
  print(f'{len(source)} films; crops of {side} pixels; {threads} threads')
  _measure('decode and degrade', len(source), lambda: [kept[i] for i in range(len(kept))])
  dataset = pipeline.batches(kept, Windows(0, patch, margin, 0.5), batch_size=batch_size)
  stream = pipeline.iterate(dataset, start=0, threads=threads, workers=0)
  _measure('steady state', batches * batch_size, lambda: [next(stream) for _ in range(batches)])
  stream.close()
  if against_torch:
    plain_torch(source.paths, side=side, scale=scale, batch_size=batch_size)


def plain_torch(
  paths: list[Path], *, side: int, scale: int, batch_size: int, batches: int = 20
) -> None:
  """Measure PyTorch's DataLoader with the usual data set."""
  from torch.utils.data import DataLoader, Dataset  # the extra 'benchmarks'

  class Plain(Dataset):
    def __len__(self) -> int:
      return len(paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
      film = Image.open(paths[index]).convert('L')
      left, top = (random.randrange(length - side + 1) for length in film.size)
      hr = film.crop((left, top, left + side, top + side))
      lr = hr.resize((side // scale, side // scale), Image.Resampling.BICUBIC)
      return np.asarray(lr), np.asarray(hr)

  loader = iter(DataLoader(Plain(), batch_size=batch_size, shuffle=True))
  most = min(batches, len(paths) // batch_size)
  _measure('PyTorch DataLoader', most * batch_size, lambda: [next(loader) for _ in range(most)])


def _measure(name: str, count: int, work: Callable[[], object]) -> None:
  wall, processor = time.perf_counter(), time.process_time()
  work()
  wall, processor = time.perf_counter() - wall, time.process_time() - processor
  print(f'{name:20s} {count / wall:8.0f}/s {count / processor:8.0f}/s a core')


if __name__ == '__main__':
  tyro.cli(main)
