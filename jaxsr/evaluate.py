"""Whole images in, a table out: `per_image.csv`, `summary.json` and a contact sheet."""

import csv
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsr import metrics, pictures
from jaxsr.data import images
from jaxsr.data.images import ImageError
from jaxsr.data.sources import Source
from jaxsr.files import write_json, write_text
from jaxsr.models.interpolation import Bicubic
from jaxsr.protocol import Pair, preparation
from jaxsr.step import make_eval_step

Row = dict[str, Any]


def smallest(scale: int) -> int:
  """Tell the smallest side that can be measured."""
  return metrics.SMALLEST + 2 * scale


class Evaluator:
  """Measures a network on the images of a source.

  Bicubic's own figures are computed once for each image and kept. One program is compiled for
  each image size.
  """

  def __init__(self, network: nn.Module, source: Source, *, scale: int, protocol: str = 'xray'):
    self.source, self.scale = source, scale
    self._protocol = protocol
    self._prepare = preparation(protocol, getattr(network, 'channels', 1))
    self._interpolates = isinstance(network, Bicubic)
    self._step = jax.jit(make_eval_step(network, border=scale))
    self._measure = jax.jit(functools.partial(metrics.measure, border=scale))
    self._bicubic: dict[int, Row] = {}

  def pair(self, index: int) -> Pair:
    """Read and prepare image `index`; raises ImageError where it cannot be measured."""
    image = self.source[index]
    path = Path(self.source.names[index])
    if image.dtype != np.uint8 and self._protocol == 'luma':
      raise ImageError(path, 'has 16 bit; the protocol luma is defined on 8')
    if min(image.shape[:2]) < smallest(self.scale):
      rule = f'smaller than the {smallest(self.scale)} pixels that SSIM needs'
      raise ImageError(path, f'is {image.shape[1]}x{image.shape[0]}, {rule}')
    return self._prepare(image, self.scale)

  def measure(self, variables: Any, index: int) -> tuple[Row, pictures.Example]:
    """Measure one image; figures are means, not yet decibels."""
    pair = self.pair(index)
    hr = jnp.asarray(pair.hr[None])
    if index not in self._bicubic:
      self._bicubic[index] = _floats(self._measure(jnp.asarray(pair.bicubic[None]), hr))
    if self._interpolates:  # what stands beside every figure is the protocol's own bicubic
      sr, figures = pair.bicubic, self._bicubic[index]
    else:
      lr, levels = jnp.asarray(pair.lr[None]), jnp.float32(pair.levels)
      sr, figures = self._step(variables, lr, hr, levels)
      sr, figures = np.asarray(sr[0]), _floats(figures)
      if not np.isfinite(figures['mse']):
        raise ImageError(Path(self.source.names[index]), 'comes out not finite')
    row = _row(self.source.names[index], figures, self._bicubic[index])
    return row, pictures.Example(row['file'], pair.lr, pair.bicubic, sr, pair.hr)

  def measure_all(self, variables: Any) -> Iterator[tuple[Row, pictures.Example] | ImageError]:
    """Measure every image; one that cannot be is given as its error."""
    for index in range(len(self.source)):
      try:
        yield self.measure(variables, index)
      except ImageError as error:
        yield error


def _floats(figures: dict[str, jax.Array]) -> Row:
  return {name: float(value[0]) for name, value in jax.device_get(figures).items()}


def _row(name: str, figures: Row, bicubic: Row) -> Row:
  return {
    'file': name,
    'psnr': metrics.psnr(figures['mse']),
    'ssim': figures['ssim'],
    'bicubic_psnr': metrics.psnr(bicubic['mse']),
    'bicubic_ssim': bicubic['ssim'],
    'psnr_centre': metrics.psnr(figures['mse_centre']),
    'ssim_centre': figures['ssim_centre'],
    'bicubic_psnr_centre': metrics.psnr(bicubic['mse_centre']),
    'bicubic_ssim_centre': bicubic['ssim_centre'],
    'psnr_uncropped': metrics.psnr(figures['mse_uncropped']),
    'bicubic_psnr_uncropped': metrics.psnr(bicubic['mse_uncropped']),
    'mse': figures['mse'],
    'bicubic_mse': bicubic['mse'],
  }


def summarise(rows: Sequence[Row]) -> Row:
  """Average a table: plain means of each column, PSNR's spread, and the PSNR of the mean error."""
  mean = lambda name: float(np.mean([row[name] for row in rows]))  # noqa: E731
  names = [name for name in rows[0] if name not in ('file', 'mse', 'bicubic_mse')]
  summary = {'n': len(rows)} | {name: mean(name) for name in names}
  spread = [row['psnr'] for row in rows]
  return summary | {
    'psnr_sd': float(np.std(spread, ddof=1)) if len(rows) > 1 else 0.0,
    'psnr_pooled': metrics.psnr(mean('mse')),
    'bicubic_psnr_pooled': metrics.psnr(mean('bicubic_mse')),
    'psnr_gain': mean('psnr') - mean('bicubic_psnr'),
    'psnr_gain_centre': mean('psnr_centre') - mean('bicubic_psnr_centre'),
    'images_below_bicubic': sum(row['psnr'] < row['bicubic_psnr'] for row in rows),
  }


def to_csv(rows: Sequence[Row]) -> str:
  """Write rows as a CSV with a header."""
  text = io.StringIO()
  names = dict.fromkeys(name for row in rows for name in row)
  writer = csv.DictWriter(text, list(names), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def ranks(rows: Sequence[Row]) -> dict[str, int]:
  """Name the best, the median and the worst row by PSNR."""
  order = sorted(range(len(rows)), key=lambda i: rows[i]['psnr'])
  return {'best': order[-1], 'median': order[len(order) // 2], 'worst': order[0]}


def write(output: Path, rows: Sequence[Row], summary: Row, sheet: np.ndarray) -> None:
  """Write an evaluation's files."""
  write_text(output / 'per_image.csv', to_csv(rows))
  write_json(output / 'summary.json', summary)
  images.write(output / 'contact_sheet.png', sheet)


def caption(rank: str, row: Row) -> str:
  """Say how an image fared."""
  psnr, bicubic = row['psnr'], row['bicubic_psnr']
  return (
    f'{rank}: {row["file"]}   PSNR {psnr:.2f} dB (bicubic {bicubic:.2f}, {psnr - bicubic:+.2f})   '
    f'SSIM {row["ssim"]:.4f} ({row["bicubic_ssim"]:.4f})   '
    f'centre {row["psnr_centre"]:.2f} dB ({row["bicubic_psnr_centre"]:.2f})'
  )
