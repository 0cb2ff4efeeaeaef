"""`jaxsr evaluate`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxsr import __version__, evaluate, experiment, pictures, predictor
from jaxsr import config as configs
from jaxsr.commands import report
from jaxsr.data import sources
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.files import make_folder

FIGURES = (
  ('PSNR', 'psnr', 3),
  ('SSIM', 'ssim', 4),
  ('  centre', 'psnr_centre', 3),
  ('  centre', 'ssim_centre', 4),
  ('  pooled', 'psnr_pooled', 3),
  ('  uncropped', 'psnr_uncropped', 3),
  ('MS-SSIM', 'ms_ssim', 4),
  ('LR consistency', 'consistency', 3),
  ('high frequencies', 'high_frequency', 4),
  ('feature distance', 'feature_distance', 4),
)


@dataclass(frozen=True)
class Evaluate:
  """Measure a network on whole images, bicubic beside it."""

  checkpoint: str
  """A run's or package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection'."""
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
  width: float = 1.0
  """A width that a slimmable network was trained at."""
  depth: float = 1.0
  """A depth that a slimmable network was trained at."""
  features: Literal['mobilenet_v2', 'vgg16', 'vgg19'] | None = None
  """A feature network whose distance between output and truth is measured, too."""
  feature_layer: str | None = None
  """Its layer (default: that of `config.content`)."""
  feature_weights: str = ''
  """Its weights, safetensors or npz; by default the published ones, which are fetched once."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Measure, write and print; return the exit code."""
    gaze = self._gaze()
    model = predictor.load(
      self.checkpoint, scale=self.scale, step=self.step, width=self.width, depth=self.depth
    )
    channels = 3 if self.protocol == 'luma' else model.channels
    source = sources.Folder(self.data, channels=channels)
    make_folder(self.output)
    if uneven := sources.uneven(source, model.scale):
      print(
        f'{len(uneven)} images are cut to a multiple of {model.scale}: {brief(uneven)}',
        file=sys.stderr,
      )
    evaluator = evaluate.Evaluator(
      model.network, source, scale=model.scale, protocol=self.protocol, gaze=gaze
    )
    rows, indices, failed = self._measure(model, evaluator, source)
    summary = evaluate.summarise(rows) | {
      'failed': [str(error) for error in failed],
      'network': model.name,
      'parameters': model.parameters,
      'scale': model.scale,
      'protocol': self.protocol,
      'features': None if gaze is None else f'{self.features}/{gaze[0].module.layer}',
      'checkpoint_step': model.step,
      'width': self.width,
      'depth': self.depth,
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

  def _gaze(self) -> tuple[Any, Any] | None:
    if self.features is None:
      return None
    options = configs.base().content[self.features]
    options.update(weights=self.feature_weights, layer=self.feature_layer or options.layer)
    return experiment.load_lens(self.features, options, 'float32')

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
  line = '{:17s} {:>15s} {:>9s} {:>8s}'.format
  print(line('', summary['network'][:15], 'bicubic', 'gain'))
  for label, name, digits in FIGURES:
    if summary.get(name) is None:
      continue
    ours, bicubic = summary[name], summary[f'bicubic_{name}']
    number = f'{{:.{digits}f}}'.format
    print(line(label, number(ours), number(bicubic), f'{ours - bicubic:+.{digits}f}'))
  if summary['images_below_bicubic'] and summary['network'] != 'bicubic':
    print(f'worse than bicubic on {summary["images_below_bicubic"]} of {summary["n"]} images')
