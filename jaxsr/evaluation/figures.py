"""The table of metrics: their names in files, titles, formats, definitions and formulas.

`jaxsr evaluate`, its parts, pages and conditions, model cards and `benchmarks.compare` take them
from here. The compression study, subgroups and TensorBoard show a choice of their own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxsr import metrics


class Figure(NamedTuple):
  """A metric of an evaluation's summary.

  Attributes:
    name: its key in `summary.json`. Bicubic's is `bicubic_NAME`, unless `has_bicubic` is false.
    title: its heading in tables.
    format: how a number is printed, as for `format`.
    definition: its definition, in one line.
    has_bicubic: whether bicubic interpolation is measured as well.
    means: the means of an image that it is computed from, by their names in `metrics.measure`, or
      `mse_consistency` and `feature_distance`. Empty for a metric of several images.
    compute: its value for an image, of these means; None if an image has none.
    always: whether every image has a finite value, so that a row without one is damaged.
    optional: whether tables leave it out if its means are not computed.
    by_condition: whether it is measured under the conditions of acquisition; it is `always` then.
    drawn: whether the page shows its distribution over images.
  """

  name: str
  title: str
  format: str
  definition: str
  has_bicubic: bool = True
  means: tuple[str, ...] = ()
  compute: Callable[..., float | None] = float
  always: bool = False
  optional: bool = False
  by_condition: bool = False
  drawn: bool = False


def _relative(have: float, want: float) -> float | None:
  return have / want if want > 0 else None


_ALL = (
  Figure(
    'psnr',
    'PSNR',
    '.3f',
    'dB, mean over images, `scale` pixels cut off each side',
    means=('mse',),
    compute=metrics.psnr,
    drawn=True,
    always=True,
    by_condition=True,
  ),
  Figure(
    'ssim',
    'SSIM',
    '.4f',
    'mean over images, `scale` pixels cut off each side',
    means=('ssim',),
    drawn=True,
    always=True,
    by_condition=True,
  ),
  Figure(
    'psnr_centre',
    'PSNR, center',
    '.3f',
    'PSNR of the inner 3/4 of each side',
    means=('mse_centre',),
    compute=metrics.psnr,
    drawn=True,
    always=True,
    by_condition=True,
  ),
  Figure(
    'ssim_centre',
    'SSIM, center',
    '.4f',
    'SSIM of the inner 3/4 of each side',
    means=('ssim_centre',),
    always=True,
    by_condition=True,
  ),
  Figure('psnr_pooled', 'PSNR, pooled', '.3f', 'PSNR of the mean squared error of all images'),
  Figure(
    'psnr_uncropped',
    'PSNR, uncropped',
    '.3f',
    'PSNR of the full image, with its borders',
    means=('mse_uncropped',),
    compute=metrics.psnr,
    always=True,
  ),
  Figure(
    'ms_ssim',
    'MS-SSIM',
    '.4f',
    'SSIM over five octaves, from 176 + 2 * `scale` pixels on',
    means=('ms_ssim',),
  ),
  Figure(
    'consistency',
    'LR consistency',
    '.3f',
    'PSNR between the output, reduced again, and the input',
    means=('mse_consistency',),
    compute=metrics.psnr,
    always=True,
    by_condition=True,
  ),
  Figure(
    'high_frequency',
    'high frequencies',
    '.4f',
    "energy above the low resolution's Nyquist frequency, relative to the original's; 1 is best",
    means=('high_energy', 'high_energy_hr'),
    compute=_relative,
    drawn=True,
  ),
  Figure(
    'raw_psnr', 'PSNR, raw', '.3f', 'PSNR of images that are not made to agree with the input'
  ),
  Figure(
    'raw_ssim', 'SSIM, raw', '.4f', 'SSIM of images that are not made to agree with the input'
  ),
  Figure(
    'raw_psnr_centre',
    'PSNR, center, raw',
    '.3f',
    'PSNR, center, of images that are not made to agree',
  ),
  Figure(
    'feature_distance',
    'feature distance',
    '.4f',
    "squared distance between features of an ImageNet network, relative to the original's",
    means=('feature_distance',),
    optional=True,
  ),
  Figure(
    'images_below_bicubic',
    'below bicubic',
    'd',
    "number of images with a PSNR below bicubic's",
    has_bicubic=False,
  ),
)
FIGURES = {figure.name: figure for figure in _ALL}

_PATCHES = 'patches of 64x64 pixels'
_OCTAVE = "in the octave beyond the low resolution's Nyquist frequency"
_TRUST = (  # of the audit, the lesion study and the reader; their keys in `trust.json`
  Figure(
    'flagged',
    'flagged',
    '.1%',
    f"share of {_PATCHES} whose energy {_OCTAVE} is at least half of the original's and correlates "
    'with it by less than 0.5: detail that is not in the original',
  ),
  Figure(
    'invented',
    'invented energy',
    '.3f',
    f"energy {_OCTAVE} that does not correlate with the original, relative to the original's: "
    f'g (1 - r²); median over {_PATCHES}',
  ),
  Figure('energy', 'energy g', '.3f', f"energy {_OCTAVE}, relative to the original's; median"),
  Figure('correlation', 'correlation r', '.3f', f'with the original {_OCTAVE}; median'),
  Figure(
    'crossing',
    'sFRC crossing',
    '.3f',
    'lowest frequency, relative to Nyquist, at which the Fourier ring correlation with the '
    'original falls below 0.5; median. It ignores energy: no detail looks like wrong detail',
  ),
  Figure(
    'contradicted',
    'crossing < 0.25',
    '.1%',
    f'share of {_PATCHES} whose ring correlation falls below 0.5 below a quarter of the Nyquist '
    "frequency, which at x4 is the low resolution's own",
  ),
  Figure(
    'null',
    'null space',
    '.2f',
    'root mean square, in gray levels of 255, of the part of the output that the reduction to the '
    'low resolution does not see',
  ),
  Figure('null_error', 'its error', '.2f', 'the same of the difference to the original'),
  Figure(
    'unsupported',
    'unsupported',
    '.3f',
    'energy of the difference to the default network, which is trained on pixels, beyond the low '
    "resolution's Nyquist frequency, relative to the output's energy; needs no original",
  ),
  Figure(
    'auc',
    'AUC',
    '.3f',
    'area under the ROC curve of a channelized Hotelling observer, trained on one half of the '
    'patients and tested on the other: 0.5 is chance, 1 is always right',
  ),
  Figure(
    'contrast_kept',
    'contrast kept',
    '.2f',
    'projection of the change that a lesion makes in the output onto the change that it makes in '
    'the original, relative to the latter; median over places, and the 10th percentile',
  ),
  Figure(
    'hits',
    'hits / false alarms',
    '.2f',
    'shares of an observer that is trained on the originals themselves, at its threshold for 5 % '
    'false alarms there: a reader who is used to the full resolution',
  ),
  Figure('auroc', 'AUROC', '.3f', 'area under the ROC curve of the reader, for one finding'),
  Figure('auroc_hr', 'AUROC of HR', '.3f', 'the same on the originals'),
  Figure('to_hr', 'to HR', '+.3f', 'AUROC less that of the originals, with its 95 % interval'),
  Figure('to_bicubic', 'to bicubic', '+.3f', 'AUROC less that of bicubic, with its 95 % interval'),
  Figure(
    'hr_to_bicubic',
    'HR to bicubic',
    '+.3f',
    'AUROC of the originals less that of bicubic: the most that a better resolution can restore',
  ),
  Figure('change', 'change', '.4f', 'mean absolute change of the probability against HR'),
  Figure(
    'flips',
    'flips',
    '.1%',
    "share of images whose decision differs from HR's, at HR's best threshold (Youden's)",
  ),
)
TRUST = {figure.name: figure for figure in _TRUST}


def of_image(means: Mapping[str, float], chosen: Iterable[Figure] | None = None) -> dict[str, Any]:
  """Compute the metrics of an image.

  Args:
    means: the means of the image, by name.
    chosen: the metrics; None computes all.

  Returns:
    The values by name, of metrics that an image can have. None if a mean is missing.
  """
  row = {}
  for figure in FIGURES.values() if chosen is None else chosen:
    known = all(name in means for name in figure.means)
    if figure.means and (known or not figure.optional):
      row[figure.name] = figure.compute(*(means[n] for n in figure.means)) if known else None
  return row


def compared(summary: Mapping[str, Any]) -> list[Figure]:
  """List the metrics that a summary has both for the model and for bicubic."""
  return [f for f in FIGURES.values() if f.has_bicubic and summary.get(f.name) is not None]


def comparison(summary: Mapping[str, Any], **others: Mapping[str, Any]) -> str:
  """Lay out a table in Markdown: a row per metric, a column each for the model and bicubic.

  Args:
    summary: the summary of the model.
    **others: summaries of other forms of it, each a column with its name.
  """
  columns = {'this model': ('', summary)}
  columns |= {f'this model, {name}': ('', other) for name, other in others.items()}
  columns |= {'bicubic': ('bicubic_', summary)}
  rows = [
    [f.title, *(f'{found[prefix + f.name]:{f.format}}' for prefix, found in columns.values())]
    for f in compared(summary)
  ]
  return markdown(['metric', *columns], rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Lay out a table in Markdown, without a newline at its end."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
