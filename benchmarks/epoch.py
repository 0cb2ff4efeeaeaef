"""A whole epoch, loader and steps: each film of a folder is seen once, as a run sees it."""

from pathlib import Path

from benchmarks import ours, theirs
from benchmarks.cases import CASES, SCALE
from benchmarks.loader import torch_batches
from benchmarks.pairs import Ratios, alternate
from jaxsr import sharding
from jaxsr.data import image_cache, pipeline, sources
from jaxsr.data.crops import Windows
from jaxsr.errors import UserError


def beside_torch(
  name: str, data: Path, pairs: int, batch: int, precision: str, *, compiled: bool
) -> Ratios:
  """Time epochs of ours and of PyTorch's in turn, after one that is not counted: seconds an image.

  Films are kept decoded here, by a thread that prepares ahead, and opened anew for each crop there,
  which is what the usual data set does, by a process that prepares ahead.
  """
  case = CASES[name]
  size, side = batch or case.batch, SCALE * case.patch
  own, variables = ours.train(name, batch, precision)
  other = theirs.train(name, batch, precision, variables, compiled=compiled)
  source, mesh = sources.Folder(data, minimum=side), sharding.make_mesh()
  if len(source) < size:
    raise UserError(f'{data}: holds {len(source)} films, less than a batch of {size}')
  kept = image_cache.Films(source, scale=SCALE, capacity=8 * 2**30)
  dataset = pipeline.batches(kept, Windows(0, case.patch, 0, 0.5), batch_size=size)
  stream = pipeline.iterate(dataset, start=0, threads=1, workers=0)
  loader = torch_batches(source.paths, side=side, batch_size=size, workers=1)
  steps = len(source) // size

  def run_ours() -> None:
    for _ in range(steps):
      own.run(sharding.put(next(stream), mesh))

  def run_theirs() -> None:
    for _ in range(steps):
      lr, hr = next(loader)
      other.run((theirs.to_device(lr[:, None]), theirs.to_device(hr[:, None])))

  found = alternate(run_ours, run_theirs, pairs)
  stream.close()
  by_image = lambda seconds: [s / (steps * size) for s in seconds]  # noqa: E731
  return Ratios(by_image(found.ours), by_image(found.theirs))
