"""A full epoch, loader and steps: each film of a folder is used once, as in a run."""

from pathlib import Path

from benchmarks import jaxsr_side, pytorch_side
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
  """Time alternating epochs of both sides after one that is not counted: seconds per image.

  This implementation keeps films decoded and prepares batches in a thread. PyTorch's side prepares
  them in a process and opens the film again for each crop, as the usual data set does.
  """
  case = CASES[name]
  size, side = batch or case.batch, SCALE * case.patch
  own, variables = jaxsr_side.train(name, batch, precision)
  other = pytorch_side.train(name, batch, precision, variables, compiled=compiled)
  source, mesh = sources.Folder(data, minimum=side), sharding.make_mesh()
  if len(source) < size:
    raise UserError(f'{data}: contains {len(source)} films; at least {size}, one batch, are needed')
  kept = image_cache.Films(source, scale=SCALE, capacity=8 * 2**30)
  dataset = pipeline.batches(kept, Windows(0, case.patch, 0, 0.5), batch_size=size)
  stream = pipeline.iterate(dataset, start=0, threads=1, workers=0)
  loader = torch_batches(source.paths, side=side, batch_size=size, workers=1)
  steps = len(source) // size

  def run_jaxsr() -> None:
    for _ in range(steps):
      own.run(sharding.put(next(stream), mesh))

  def run_pytorch() -> None:
    for _ in range(steps):
      lr, hr = next(loader)
      other.run((pytorch_side.to_device(lr[:, None]), pytorch_side.to_device(hr[:, None])))

  found = alternate(run_jaxsr, run_pytorch, pairs)
  stream.close()
  by_image = lambda seconds: [s / (steps * size) for s in seconds]  # noqa: E731
  return Ratios(by_image(found.jaxsr), by_image(found.other))
