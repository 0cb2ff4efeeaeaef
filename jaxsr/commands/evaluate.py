"""`jaxsr evaluate`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxsr import __version__, evaluate, pictures, predictor
from jaxsr.commands import report
from jaxsr.data import sources
from jaxsr.data.images import ImageError
from jaxsr.errors import UserError, brief
from jaxsr.files import make_folder


@dataclass(frozen=True)
class Evaluate:
  """Measure a network on whole images, bicubic beside it."""

  checkpoint: str
  """The folder of a run, or 'bicubic', 'lanczos' or 'back_projection'."""
  data: Path
  """A folder of high-resolution images, read recursively, or one image."""
  output: Path
  """A folder for per_image.csv, summary.json and contact_sheet.png."""
  protocol: Literal['xray', 'luma'] = 'xray'
  """How images become pairs: chest X-rays, or the luma of natural images."""
  scale: int | None = None
  """The scale of an interpolation (default 4); a run knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Measure, write and print; return the exit code."""
    model = predictor.load(self.checkpoint, scale=self.scale, step=self.step)
    channels = 3 if self.protocol == 'luma' else model.channels
    source = sources.Folder(self.data, channels=channels)
    make_folder(self.output)
    if uneven := sources.uneven(source, model.scale):
      print(
        f'{len(uneven)} images are cut to a multiple of {model.scale}: {brief(uneven)}',
        file=sys.stderr,
      )
    evaluator = evaluate.Evaluator(model.network, source, scale=model.scale, protocol=self.protocol)
    rows, indices, failed = self._measure(model, evaluator, source)
    summary = evaluate.summarise(rows) | {
      'failed': [str(error) for error in failed],
      'network': model.name,
      'parameters': model.parameters,
      'scale': model.scale,
      'protocol': self.protocol,
      'checkpoint_step': model.step,
      'version': __version__,
    }
    examples = [
      evaluator.measure(model.variables, indices[i])[1]._replace(
        title=evaluate.caption(rank, rows[i])
      )
      for rank, i in evaluate.ranks(rows).items()
    ]
    evaluate.write(self.output, rows, summary, pictures.contact_sheet(examples))
    _print_summary(summary)
    return report.failures(failed, 'left out')

  def _measure(
    self, model: predictor.Predictor, evaluator: evaluate.Evaluator, source: sources.Folder
  ) -> tuple[list[evaluate.Row], list[int], list[ImageError]]:
    rows, indices, failed = [], [], list(source.rejected)
    results = evaluator.measure_all(model.variables)
    for i, result in enumerate(report.progress(results, len(source), 'evaluate')):
      if isinstance(result, ImageError):
        failed.append(result)
      else:
        rows.append(result[0])
        indices.append(i)
    if not rows:
      raise UserError(f'{self.data}: no image can be measured; {failed[0]}')
    return rows, indices, failed


def _print_summary(summary: evaluate.Row) -> None:
  step = '' if summary['checkpoint_step'] is None else f', step {summary["checkpoint_step"]}'
  print(
    f'{summary["network"]}{step}, x{summary["scale"]}, protocol {summary["protocol"]}, '
    f'{summary["n"]} images'
  )
  line = '{:12s} {:>15s} {:>9s} {:>8s}'.format
  print(line('', summary['network'][:15], 'bicubic', 'gain'))
  for label, name, digits in (
    ('PSNR', 'psnr', 3),
    ('SSIM', 'ssim', 4),
    ('  centre', 'psnr_centre', 3),
    ('  centre', 'ssim_centre', 4),
    ('  pooled', 'psnr_pooled', 3),
    ('  uncropped', 'psnr_uncropped', 3),
  ):
    ours, bicubic = summary[name], summary[f'bicubic_{name}']
    number = f'{{:.{digits}f}}'.format
    print(line(label, number(ours), number(bicubic), f'{ours - bicubic:+.{digits}f}'))
  if summary['images_below_bicubic'] and summary['network'] != 'bicubic':
    print(f'worse than bicubic on {summary["images_below_bicubic"]} of {summary["n"]} images')
