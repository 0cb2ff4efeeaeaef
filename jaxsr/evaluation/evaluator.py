"""Measure a network on full images, beside bicubic interpolation."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import metrics, runtime
from jaxsr.data import sources
from jaxsr.data.image_files import NO_MEMORY
from jaxsr.data.reading import ReadBoard
from jaxsr.data.sources import Source
from jaxsr.errors import ImageError, UserError, count, warn
from jaxsr.evaluation import plots
from jaxsr.evaluation.figures import of_image
from jaxsr.evaluation.protocol import Pair, of_given, preparation, shrink
from jaxsr.inference.agreeing import Rule, Upscaled
from jaxsr.inference.agreement import project
from jaxsr.inference.upscale import make_upscale
from jaxsr.models import Network
from jaxsr.models.interpolation import Bicubic
from jaxsr.perceptual import FeatureExtractor

Figures = dict[str, Any]

INFINITE = metrics.EQUAL  # dB that an infinite PSNR is counted as
_NOT_AVERAGED = ('file', 'mse', 'bicubic_mse')  # columns of a row; the latter are pooled
READERS = 2  # threads that prepare the next images


def min_size(scale: int) -> int:
  """Returns the smallest side of an image that can be measured, in pixels."""
  return metrics.SMALLEST + 2 * scale


class Evaluator:
  """Measures a network on the images of a source.

  Bicubic's own figures are computed once for each image and kept. One program is compiled for
  each image size. `perceptual` is a feature network with its variables, and adds the feature
  distance.
  `ensemble` and `devices` are those of `make_upscale`. With `agree`, the rule of a model, images
  are measured as `Model.upscale` writes them, agreeing with their low resolution, and so is
  bicubic; the figures of the unchanged images begin with `raw_` and `bicubic_raw_`.
  `baseline` is an evaluator of the same images and options, whose figures of bicubic are used.
  """

  def __init__(
    self,
    network: Network,
    source: Source,
    *,
    scale: int,
    protocol: str = 'xray',
    perceptual: tuple[FeatureExtractor, Any] | None = None,
    ensemble: bool = False,
    devices: Sequence[Any] = (),
    agree: Rule | None = None,
    baseline: 'Evaluator | None' = None,
  ):
    self.source, self.scale = source, scale
    self._protocol, self._perceptual = protocol, perceptual
    self._prepare = preparation(protocol, network.channels)
    self._interpolates = isinstance(network, Bicubic)
    self._agree = None if agree is None else _Agree(agree)
    self._enlarge = make_upscale(network, ensemble=ensemble, devices=devices, rounded=agree is None)
    self._measure = jax.jit(functools.partial(metrics.measure, scale=scale))
    self._extract = jax.jit(perceptual[0].extract) if perceptual else None
    self._board = ReadBoard(0)
    self._bicubic: dict[int, Figures] = {} if baseline is None else baseline._bicubic
    self._bicubic_agreed: dict[int, Figures] = {} if baseline is None else baseline._bicubic_agreed

  def pair(self, index: int) -> Pair:
    """Read and prepare image `index`; raises ImageError if it cannot be measured."""
    image = self.source[index]
    path = Path(self.source.names[index])
    if image.dtype != np.uint8 and self._protocol == 'luma':
      raise ImageError(path, 'has 16 bit; the protocol luma is defined on 8')
    if min(image.shape[:2]) < min_size(self.scale):
      rule = f'smaller than the {min_size(self.scale)} pixels that SSIM needs'
      raise ImageError(path, f'is {image.shape[1]}x{image.shape[0]}, {rule}')
    lr = sources.low_resolution(self.source, index)
    return self._prepare(image, self.scale) if lr is None else of_given(image, lr)

  def reading(self, seconds: float) -> str:
    """Describe the image that has been read for more than some seconds; '' if there is none."""
    longest = self._board.longest()
    if longest is None or longest[1] < seconds:
      return ''
    return f'{self.source.names[longest[0]]} is being read for {longest[1]:.0f} s'

  def measure(
    self, variables: Any, index: int, pair: Pair | None = None
  ) -> tuple[Figures, plots.Example]:
    """Measure one image, of which `pair` may have been prepared already."""
    pair = self.pair(index) if pair is None else pair
    if index not in self._bicubic:
      self._bicubic[index] = self._figures(pair.bicubic, pair)
    sr = pair.bicubic  # the baseline of every figure is the protocol's own bicubic
    if not self._interpolates:
      sr = np.asarray(self._enlarge(variables, pair.lr[None], np.float32(pair.levels)))[0]
      if not np.isfinite(sr).all():
        reason = 'gives an output with NaN or infinite values'
        raise ImageError(Path(self.source.names[index]), reason)
    name = self.source.names[index]
    if self._agree is None:
      sr = metrics.luma(sr) if sr.shape[-1] > pair.hr.shape[-1] else sr
      figures = self._bicubic[index] if self._interpolates else self._figures(sr, pair)
      row = _row(name, figures, self._bicubic[index])
    else:
      sr, row = self._measure_agreed(name, index, sr, pair)
    return row, plots.Example(row['file'], pair.lr, pair.bicubic, sr, pair.hr)

  def _measure_agreed(
    self, name: str, index: int, sr: np.ndarray, pair: Pair
  ) -> tuple[np.ndarray, Figures]:
    """Make an image agree and measure it, with the figures of the image as it was."""
    assert self._agree is not None
    if index not in self._bicubic_agreed:
      made = self._agree(pair.bicubic, pair)
      self._bicubic_agreed[index] = self._figures(made.image / np.float32(pair.levels), pair)
    made = self._agree(sr, pair)
    agreed, equal = made.image / np.float32(pair.levels), made.agreement
    assert equal is not None
    row = _row(name, self._figures(agreed, pair), self._bicubic_agreed[index])
    rounded = np.rint(sr * np.float32(pair.levels)) / np.float32(pair.levels)
    raw = {'raw': self._figures(rounded, pair), 'bicubic_raw': self._bicubic[index]}
    for prefix, found in raw.items():
      row |= {f'{prefix}_{key}': value for key, value in of_image(found).items()}
    return agreed, row | {'agreeing': equal.equal / equal.pixels, 'most_off': equal.most}

  def _figures(self, sr: np.ndarray, pair: Pair) -> Figures:
    """Returns the means of an upscaled image, rounded to its gray levels."""
    images = jnp.asarray(sr[None]), jnp.asarray(pair.hr[None])
    found = {name: float(value[0]) for name, value in self._measure(*images).items()}
    lr = metrics.luma(pair.lr) if pair.lr.shape[-1] > sr.shape[-1] else pair.lr
    again = shrink(self._protocol, sr, self.scale, pair.levels)
    found['mse_consistency'] = float(np.square(again - lr).mean())
    if self._perceptual and self._extract:
      seen = [self._extract(self._perceptual[1], image) for image in images]
      found['feature_distance'] = float(metrics.feature_distance(*seen)[0])
    return found

  def measure_all(
    self, variables: Any, indices: Sequence[int] | None = None
  ) -> Iterator[tuple[Figures, plots.Example] | ImageError]:
    """Measure every image, or those of some indices.

    Yields an ImageError for an image that cannot be measured.
    """
    chosen = range(len(self.source)) if indices is None else indices

    def prepare(index: int) -> Pair | ImageError:
      try:
        with self._board.reading(index):
          return self.pair(index)
      except ImageError as error:
        return error
      except MemoryError:
        return ImageError(Path(self.source.names[index]), NO_MEMORY)

    pairs = runtime.prefetch_map(prepare, chosen, READERS)
    for index, pair in zip(chosen, pairs, strict=True):
      if isinstance(pair, ImageError):
        yield pair
        continue
      try:
        yield self.measure(variables, index, pair)
      except ImageError as error:
        yield error


class _Agree:
  """Makes images agree with the low resolution of a pair, as `Model.upscale` does."""

  def __init__(self, rule: Rule):
    self._rule = rule
    self._project = jax.jit(functools.partial(project, reduction=rule.reduction))

  def __call__(self, sr: np.ndarray, pair: Pair) -> Upscaled:
    levels = np.float32(pair.levels)
    lr = np.rint(pair.lr * levels).astype(np.uint8 if pair.levels == 255 else np.uint16)
    if (width := self._rule.width(lr, pair.levels)) is not None:
      projected = self._project(sr[None], pair.lr[None], levels, width=np.float32(width))
      projected = np.asarray(projected)[0]
      result = self._rule.finish(projected, lr, white=pair.levels, width=width)
      if result.settled:
        return result
    return self._rule.round_only(sr, lr, white=pair.levels)


def _row(name: str, figures: Figures, bicubic: Figures) -> Figures:
  """Returns the figures of an image, each followed by bicubic's; None if it does not apply."""
  row: Figures = {'file': name}
  own, baseline = of_image(figures), of_image(bicubic)
  for key, value in own.items():
    row |= {key: value, f'bicubic_{key}': baseline[key]}
  return row | {'mse': figures['mse'], 'bicubic_mse': bicubic['mse']}


def summarize(rows: Sequence[Figures]) -> Figures:
  """Average the figures of images: means, standard deviation of PSNR, PSNR of the mean error.

  Images without a figure are left out of its mean, which is None if no image has it.
  """

  def mean(name: str) -> float | None:
    found = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(found)) if found else None

  names = [name for name in rows[0] if name not in _NOT_AVERAGED]
  summary: Figures = {'n': len(rows)} | {name: mean(name) for name in names}
  spread = [row['psnr'] for row in rows]
  summary |= {'most_off': max(row['most_off'] for row in rows)} if 'most_off' in rows[0] else {}
  return summary | {
    'psnr_sd': float(np.std(spread, ddof=1)) if len(rows) > 1 else 0.0,
    'psnr_pooled': metrics.psnr(float(np.mean([row['mse'] for row in rows]))),
    'bicubic_psnr_pooled': metrics.psnr(float(np.mean([row['bicubic_mse'] for row in rows]))),
    'psnr_gain': summary['psnr'] - summary['bicubic_psnr'],
    'psnr_gain_centre': summary['psnr_centre'] - summary['bicubic_psnr_centre'],
    'images_below_bicubic': sum(row['psnr'] < row['bicubic_psnr'] for row in rows),
  }


def split_exact(rows: Sequence[Figures]) -> tuple[list[Figures], str]:
  """Separate the images that bicubic gives exactly, as constant ones: their PSNR is infinite.

  Returns:
    The rows of the other images, and a line that says how many are separated; '' if none are.
  """
  others = [row for row in rows if row['bicubic_mse'] > 0]
  if not (exact := len(rows) - len(others)):
    return others, ''
  which = f'{exact} of {count(len(rows), "image")}'
  return others, f'bicubic gives {which} exactly (constant?), so that PSNR is infinite there'


def measure(network: Network, variables: Any, source: Source, *, scale: int) -> Figures:
  """Measure a network on all images of a source, and average; raises UserError if none can be."""
  results = list(Evaluator(network, source, scale=scale).measure_all(variables))
  rows = [result[0] for result in results if not isinstance(result, ImageError)]
  failed = [result for result in results if isinstance(result, ImageError)]
  if not rows:
    raise UserError(f'no image can be measured: {failed[0]}')
  for error in failed:
    warn(f'left out: {error}')
  return summarize(rows) | {'failed': [error.reason for error in failed]}  # without names
