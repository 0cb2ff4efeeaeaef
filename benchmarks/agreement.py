"""Agreement with the input: its exactness, its effect on metrics, and its cost.

python -m benchmarks.agreement --data NIH/val --checkpoints edsr_x4 edsr_x2
python -m benchmarks.agreement --data NIH/val --checkpoints edsr_x4 --bits 16
python -m benchmarks.agreement --data NIH/val --checkpoints edsr_x4 --times

The films are reduced by Pillow's bicubic filter. With `--bits 16` they get 16 bits first, by random
values between their gray levels. `--times` needs an otherwise idle machine.
"""

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from jaxsr import metrics, runtime
from jaxsr.data import degradation, sources
from jaxsr.evaluation import figures
from jaxsr.inference import agreement, tiling
from jaxsr.inference.agreeing import to_levels
from jaxsr.inference.agreement import Agreement, Reduction
from jaxsr.inference.model import Model, load

HEADS = (
  'network',
  'films in all pixels',
  'pixels',
  'most off, levels',
  'dB by projection (worst film)',
  'PSNR, whole',
  'center',
  'lowest film',
)
TIMES = ('network', 'alone, s', 'with projection, s', 'exact step, s (largest)')


class Row(NamedTuple):
  """One film: its agreement, the consistency of the projected image, and changes of PSNR in dB."""

  found: Agreement
  projected: float
  whole: float
  center: float


def main(
  data: Path,
  checkpoints: tuple[str, ...],
  scale: int | None = None,
  films: int = 0,
  bits: int = 8,
  tile: int = tiling.SIDE,
  times: bool = False,
) -> None:
  """Print a table of the checkpoints, measured on the films of a folder (0: all)."""
  measure = _times if times else _agreement
  rows = []
  for name in checkpoints:
    model = load(name, scale=scale)
    source: sources.Source = sources.Folder(data, channels=model.channels)
    source = sources.Subset(source, films) if films else source
    images = (_image(source[i], model.scale, bits, i) for i in range(len(source)))
    rows.append([f'{model.name} x{model.scale}', *measure(model, images, tile)])
  print(figures.markdown(TIMES if times else HEADS, rows))


def _image(film: np.ndarray, scale: int, bits: int, seed: int) -> np.ndarray:
  film = degradation.cut(film, scale)
  if bits == 8:
    return film
  between = np.random.default_rng(seed).integers(0, 257, film.shape)
  return np.clip(film.astype(np.int64) * 257 + between - 128, 0, 65535).astype(np.uint16)


def _agreement(model: Model, images: Any, tile: int) -> list[str]:
  found = [_row(model, hr, tile) for hr in images]
  equal, pixels = (sum(getattr(r.found, n) for r in found) for n in ('equal', 'pixels'))
  exact = sum(r.found.equal == r.found.pixels for r in found)
  mean = lambda name: statistics.fmean(getattr(r, name) for r in found)  # noqa: E731
  return [
    f'{exact} of {len(found)}',
    f'{100 * equal / pixels:.5f} %',
    f'{max(r.found.most for r in found)}',
    f'{mean("projected"):.2f} ({min(r.projected for r in found):.2f})',
    f'{mean("whole"):+.3f}',
    f'{mean("center"):+.3f}',
    f'{min(r.whole for r in found):+.3f}',
  ]


def _row(model: Model, hr: np.ndarray, tile: int) -> Row:
  lr, white = degradation.downscale(hr, model.scale), np.iinfo(hr.dtype).max
  raw = model.enlarge(lr, agree=False, tile=tile)
  rule = model.agreement_rule(True)
  assert rule is not None
  if max(lr.shape) > tile:
    made = model.enlarge(lr, agree=True, tile=tile)
  else:  # the same without enlarging again
    low = lr[None] / np.float32(white)
    sr = _project(rule.reduction)(raw.sr[None], low, np.float32(white))
    made = rule.finish(np.asarray(sr)[0], lr, white=white, width=0.0)
  assert made.agreement is not None
  again = degradation.downscale(to_levels(made.sr, white, hr.dtype), model.scale)
  consistency = np.square((again.astype(np.float64) - lr) / white).mean()
  one, other = (_psnr(x.image, hr, model.scale) for x in (made, raw))
  return Row(made.agreement, metrics.psnr(float(consistency)), *(one - other))


def _psnr(image: np.ndarray, hr: np.ndarray, scale: int) -> np.ndarray:
  """Returns the PSNR of the whole image and of its center."""
  found = _measure(scale)(*(x[None] / np.float32(np.iinfo(x.dtype).max) for x in (image, hr)))
  return np.array([metrics.psnr(float(x)) for x in found])


@functools.cache
def _project(reduction: Reduction) -> Callable[..., jax.Array]:
  return jax.jit(functools.partial(agreement.project, reduction=reduction))


@functools.cache
def _measure(scale: int) -> Callable[..., Any]:
  def measure(sr: jax.Array, hr: jax.Array) -> tuple[jax.Array, jax.Array]:
    found = metrics.measure(sr, hr, scale=scale)
    return found['mse'][0], found['mse_centre'][0]

  return jax.jit(measure)


def _times(model: Model, images: Any, tile: int) -> list[str]:
  """Time films one by one: without, with projection, and the exact step."""
  rule = model.agreement_rule(True)
  assert rule is not None
  found = []
  for hr in images:
    lr = degradation.downscale(hr, model.scale)
    alone, _ = _timed(lambda lr=lr: model.enlarge(lr, agree=False, tile=tile))
    whole, made = _timed(lambda lr=lr: model.enlarge(lr, agree=True, tile=tile))
    finish = functools.partial(rule.finish, made.sr, lr, white=np.iinfo(lr.dtype).max, width=0.0)
    exact, _ = _timed(finish)
    found.append((alone, whole - exact, exact))
  found = found[1:] or found  # the first one compiles
  alone, projected, exact = (statistics.median(column) for column in zip(*found, strict=True))
  largest = max(exact for *_, exact in found)
  return [f'{alone:.3f}', f'{projected:.3f}', f'{exact:.3f} ({largest:.3f})']


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
  begun = time.perf_counter()
  result = run()
  return time.perf_counter() - begun, result


if __name__ == '__main__':
  runtime.keep_freed_memory()
  tyro.cli(main)
