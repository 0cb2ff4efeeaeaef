"""Seconds of exported models in onnxruntime beside this implementation's.

python -m benchmarks.exported --models edsr_x4 edsr_x4_small --pairs 5 --json exported.json

Both sides upscale the same 8-bit film to 1024x1024 on all cores, alternately and each in its own
process. The ratio is this implementation's time over onnxruntime's: below 1, this implementation
is faster.
"""

import json as text
import os
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import tyro

from benchmarks.cases import Side
from benchmarks.pairs import alternate, largest_difference
from benchmarks.processes import Process
from jaxsr import analysis, runtime
from jaxsr.data import degradation
from jaxsr.data.phantom import phantom
from jaxsr.export import exportable, onnx_file
from jaxsr.inference.model import load


def main(
  models: tuple[str, ...] = ('edsr_x4',),
  precision: str = 'float32',
  pairs: int = 5,
  json: Path | None = None,
) -> None:
  """Time models with kernels of a precision, and print a table."""
  cores = len(os.sched_getaffinity(0))
  print(f'{cores} cores, onnxruntime {onnxruntime.__version__}, kernels in {precision}')
  print('| Model | Ratio | jaxsr | onnxruntime |')
  print('|---|---|---|---|')
  rows = []
  for name in models:
    content = onnx_file.serialize(exportable.prepare(load(name), precision=precision))[0]
    with (
      Process(True, build_jaxsr, name) as own,
      Process(False, build_onnx, name, content) as other,
    ):
      difference = largest_difference(name, own.outcome, other.outcome, precision)
      found = alternate(own.run, other.run, pairs, twice=True)
    ratios = [a / b for a, b in zip(*found, strict=True)]
    rows.append({'model': name, 'difference': difference} | found._asdict())
    ratio = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
    seconds = ' | '.join(f'{statistics.median(side):.3f} s' for side in found)
    print(f'| `{name}` | {ratio} | {seconds} |', flush=True)
  if json:
    result = {'cores': cores, 'onnxruntime': onnxruntime.__version__, 'precision': precision}
    json.write_text(text.dumps(result | {'results': rows}, indent=2) + '\n', encoding='utf-8')


def build_jaxsr(name: str) -> Side:
  """Build the upscaling of a film as `jaxsr upscale --no-agree` does it."""
  runtime.use_cpu_devices()
  model = load(name)
  film = _film(model.scale)
  begun = time.perf_counter()
  outcome = {'sr': model.enlarge(film, agree=False).sr[..., 0]}
  return Side(lambda: model.upscale(film, agree=False), outcome, time.perf_counter() - begun)


def build_onnx(name: str, content: bytes) -> Side:
  """Build the same of the content of an ONNX file in onnxruntime."""
  begun = time.perf_counter()
  session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
  film = _film(load(name).scale)

  def enlarge() -> np.ndarray:
    (sr,) = session.run(['sr'], {'lr': film[None, :, :, None] / np.float32(255)})
    return np.asarray(sr)[0, :, :, 0].clip(0, 1)

  run = lambda: np.rint(255 * enlarge()).astype(np.uint8)  # noqa: E731
  return Side(run, {'sr': enlarge()}, time.perf_counter() - begun)


def _film(scale: int) -> np.ndarray:
  hr = phantom(0, 0, size=analysis.SIDE)[..., None]
  return degradation.downscale(hr, scale)[..., 0]


if __name__ == '__main__':
  tyro.cli(main)
