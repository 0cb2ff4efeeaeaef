"""How fast the loader is: python -m benchmarks.loader --data DIR.

Prints decoded films a second, then aligned crops a second in steady state, each by the wall clock
and a core (by the processor time of the whole process).
"""

import time
from collections.abc import Callable
from pathlib import Path

import tyro

from jaxsr.data import films, pipeline, sources


def main(
  data: Path,
  scale: int = 4,
  patch: int = 24,
  margin: int = 12,
  batch_size: int = 16,
  batches: int = 400,
  threads: int = 1,
) -> None:
  """Measure on a folder of films; the default crop is of 192x192 high-resolution pixels."""
  source = sources.Folder(data, minimum=scale * (patch + 2 * margin))
  kept = films.Films(source, scale=scale, capacity=8 * 2**30)
  print(f'{len(source)} films; crops of {scale * (patch + 2 * margin)} pixels; {threads} threads')
  _measure('decode and degrade', 'films', len(source), lambda: [kept[i] for i in range(len(kept))])
  dataset = pipeline.batches(
    kept, batch_size=batch_size, patch=patch, margin=margin, by_error=0.5, seed=0
  )
  stream = pipeline.iterate(dataset, start=0, threads=threads, workers=0)
  for _ in range(20):
    next(stream)
  _measure(
    'steady state', 'crops', batches * batch_size, lambda: [next(stream) for _ in range(batches)]
  )
  stream.close()


def _measure(name: str, unit: str, count: int, work: Callable[[], object]) -> None:
  wall, processor = time.perf_counter(), time.process_time()
  work()
  wall, processor = time.perf_counter() - wall, time.process_time() - processor
  print(f'{name}: {count / wall:.0f} {unit}/s, {count / processor:.0f} {unit}/s a core')


if __name__ == '__main__':
  tyro.cli(main)
