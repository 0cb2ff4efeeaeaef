"""`jaxsr evaluate`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from jaxsr import __version__, files
from jaxsr import config as configs
from jaxsr.commands import report
from jaxsr.data import records, sources
from jaxsr.data.nih import constants, local_copy, metadata
from jaxsr.errors import ImageError, UserError, brief
from jaxsr.evaluation import boxes as regions
from jaxsr.evaluation import evaluator as evaluate
from jaxsr.evaluation import plots, stratified
from jaxsr.files import make_folder, write_text
from jaxsr.inference.model import Model, load
from jaxsr.training import setup

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

  data: Path
  """A folder of high-resolution images, read recursively, one image, or a folder of records."""
  output: Path
  """A folder for per_image.csv, summary.json and contact_sheet.png."""
  checkpoint: str | None = None
  """A run's or package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection'; by
  default the package that comes along for the scale."""
  protocol: Literal['xray', 'luma'] = 'xray'
  """How images become pairs: chest X-rays, or the luma of natural images."""
  scale: int | None = None
  """2, 3, 4 or 8 (default 4); a run or package knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  width: float = 1.0
  """A width that a slimmable network was trained at."""
  depth: float = 1.0
  """A depth that a slimmable network was trained at."""
  ensemble: bool = False
  """Average over the eight flips and turns of each image: better, at eight times the cost."""
  split: str = 'test'
  """The split of records, SPLIT or SPLIT/FINDING."""
  tables: Path | None = None
  """A folder with NIH's Data_Entry_2017*.csv and BBox_List_2017.csv, to break figures down by."""
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
    perceptual = self._perceptual()
    model = load(
      self.checkpoint, scale=self.scale, step=self.step, width=self.width, depth=self.depth
    )
    channels = 3 if self.protocol == 'luma' else model.channels
    source = self._source(channels)
    known, boxes = self._known(source)
    make_folder(self.output)
    if uneven := sources.uneven(source, model.scale):
      print(
        f'{len(uneven)} images are cut to a multiple of {model.scale}: {brief(uneven)}',
        file=sys.stderr,
      )
    evaluator = evaluate.Evaluator(
      model.network,
      source,
      scale=model.scale,
      protocol=self.protocol,
      perceptual=perceptual,
      ensemble=self.ensemble,
      devices=jax.local_devices(),
    )
    rows, indices, failed, inside = self._measure(model, evaluator, source, known, boxes)
    summary = evaluate.summarise(rows) | {
      'failed': [str(error) for error in failed],
      'network': model.architecture,
      'parameters': model.parameters,
      'scale': model.scale,
      'protocol': self.protocol,
      'features': None if perceptual is None else f'{self.features}/{perceptual[0].module.layer}',
      'checkpoint_step': model.step,
      'width': self.width,
      'depth': self.depth,
      'ensemble': self.ensemble,
      'version': __version__,
    }
    if broken := stratified.summarise(rows, known):
      summary['strata'] = broken
      write_text(self.output / 'strata.csv', files.to_csv(stratified.lines(broken)))
    if inside:
      summary['regions'] = regions.summarise(inside)
      write_text(self.output / 'regions.csv', files.to_csv(inside))
    examples = [
      evaluator.measure(model.variables, indices[i])[1]._replace(
        title=evaluate.caption(rank, rows[i])
      )
      for rank, i in evaluate.ranks(rows).items()
    ]
    evaluate.write(self.output, rows, summary, plots.contact_sheet(examples))
    _print_summary(summary)
    return report.failures(failed, 'left out')

  def _perceptual(self) -> tuple[Any, Any] | None:
    if self.features is None:
      return None
    options = configs.base().content[self.features]
    options.update(weights=self.feature_weights, layer=self.feature_layer or options.layer)
    return setup.load_extractor(self.features, options, 'float32')

  def _source(self, channels: int) -> sources.Source:
    if records.holds(self.data):
      return records.Records(self.data, self.split, channels=channels)
    return sources.Folder(self.data, channels=channels)

  def _known(
    self, source: sources.Source
  ) -> tuple[dict[str, records.IndexRow], Mapping[str, list[metadata.Box]]]:
    """Read what is known of the images, and of places in them."""
    known = {row.name: row for row in source.rows} if isinstance(source, records.Records) else {}
    if self.tables is None:
      return known, {}
    tables = local_copy.tables(self.tables)
    if entries := next((tables[n] for n in constants.ENTRY_TABLES if n in tables), None):
      known = {name: metadata.index_row(x) for name, x in metadata.read_entries(entries).items()}
    boxes = (
      metadata.read_boxes(tables[constants.BOX_TABLE]) if constants.BOX_TABLE in tables else []
    )
    if not known and not boxes:
      raise UserError(f'--tables {self.tables}: has neither {constants.ENTRY_TABLES[0]} nor boxes')
    return known, regions.by_image(boxes)

  def _measure(
    self,
    model: Model,
    evaluator: evaluate.Evaluator,
    source: sources.Source,
    known: Mapping[str, records.IndexRow],
    boxes: Mapping[str, list[metadata.Box]],
  ) -> tuple[list[evaluate.Figures], list[int], list[ImageError], list[evaluate.Figures]]:
    rows, indices, failed, inside = [], [], list(source.rejected), []
    results = evaluator.measure_all(model.variables)
    for i, result in enumerate(report.progress(results, len(source), 'evaluate')):
      if isinstance(result, ImageError):
        failed.append(result)
      else:
        row, example = result
        rows.append(row)
        indices.append(i)
        name = Path(row['file']).name
        if here := boxes.get(name):
          inside += regions.measure(example, here)
    if not rows:
      raise UserError(f'{self.data}: no image can be measured; {failed[0]}')
    return rows, indices, failed, inside


def _print_summary(summary: evaluate.Figures) -> None:
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
  for kind, values in summary.get('strata', {}).items():
    _print_strata(kind, values)
  if 'regions' in summary:
    _print_strata('inside boxes', summary['regions'])
  if summary['images_below_bicubic'] and summary['network'] != 'bicubic':
    print(f'worse than bicubic on {summary["images_below_bicubic"]} of {summary["n"]} images')


def _print_strata(kind: str, values: Mapping[str, Any]) -> None:
  """Print figures by stratum, each with its 95 % interval."""
  print(f'{kind:19s} {"n":>5s} {"patients":>8s}  {"PSNR":22s} {"gain":20s} SSIM')
  figures = (('psnr', 2), ('psnr_gain', 2), ('ssim', 4))
  for value, found in values.items():
    shown = [_with_interval(found, *figure) for figure in figures]
    counts = f'{found["n"]:5d} {found["patients"]:8d}'
    print(f'  {value:17s} {counts}  {shown[0]:22s} {shown[1]:20s} {shown[2]}')


def _with_interval(found: Mapping[str, Any], name: str, digits: int) -> str:
  ends = found[f'{name}_interval']
  text = f'{found[name]:.{digits}f}'
  return text if ends is None else f'{text} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]'
