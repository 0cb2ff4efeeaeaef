"""`jaxsr evaluate`: measure a network on full-size images."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxsr import __version__, files
from jaxsr import config as configs
from jaxsr.commands import report
from jaxsr.commands.options import Evaluate
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


def run(options: Evaluate) -> int:
  """Measure, write and print the results; return the exit code."""
  perceptual = _perceptual(options)
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  channels = 3 if options.protocol == 'luma' else model.channels
  source = _source(options, channels)
  known, boxes = _known(options, source)
  make_folder(options.output)
  if uneven := sources.uneven(source, model.scale):
    print(
      f'{len(uneven)} images are cut to a multiple of {model.scale}: {brief(uneven)}',
      file=sys.stderr,
    )
  evaluator = evaluate.Evaluator(
    model.network,
    source,
    scale=model.scale,
    protocol=options.protocol,
    perceptual=perceptual,
    ensemble=options.ensemble,
    devices=jax.local_devices(),
  )
  rows, indices, failed, inside = _measure(options, model, evaluator, source, known, boxes)
  summary = evaluate.summarise(rows) | {
    'failed': [str(error) for error in failed],
    'network': model.architecture,
    'parameters': model.parameters,
    'scale': model.scale,
    'protocol': options.protocol,
    'features': None if perceptual is None else f'{options.features}/{perceptual[0].module.layer}',
    'checkpoint_step': model.step,
    'width': options.width,
    'depth': options.depth,
    'ensemble': options.ensemble,
    'version': __version__,
  }
  if broken := stratified.summarise(rows, known):
    summary['strata'] = broken
    write_text(options.output / 'strata.csv', files.to_csv(stratified.lines(broken)))
  if inside:
    summary['regions'] = regions.summarise(inside)
    write_text(options.output / 'regions.csv', files.to_csv(inside))
  examples = [
    evaluator.measure(model.variables, indices[i])[1]._replace(
      title=evaluate.caption(rank, rows[i])
    )
    for rank, i in evaluate.ranks(rows).items()
  ]
  evaluate.write(options.output, rows, summary, plots.contact_sheet(examples))
  _print_summary(summary)
  return report.failures(failed, 'left out')


def _perceptual(options: Evaluate) -> tuple[Any, Any] | None:
  if options.features is None:
    return None
  content = configs.base().content[options.features]
  content.update(weights=options.feature_weights, layer=options.feature_layer or content.layer)
  return setup.load_extractor(options.features, content, 'float32', flag='--feature-weights')


def _source(options: Evaluate, channels: int) -> sources.Source:
  if records.holds(options.data):
    return records.Records(options.data, options.split, channels=channels)
  return sources.Folder(options.data, channels=channels, stored_bits=options.bits)


def _known(
  options: Evaluate, source: sources.Source
) -> tuple[dict[str, records.IndexRow], Mapping[str, list[metadata.Box]]]:
  """Returns the metadata of the images, and the boxes inside them."""
  known = {row.name: row for row in source.rows} if isinstance(source, records.Records) else {}
  if options.tables is None:
    return known, {}
  tables = local_copy.tables(options.tables)
  if entries := next((tables[n] for n in constants.ENTRY_TABLES if n in tables), None):
    known = {name: metadata.index_row(x) for name, x in metadata.read_entries(entries).items()}
  boxes = metadata.read_boxes(tables[constants.BOX_TABLE]) if constants.BOX_TABLE in tables else []
  if not known and not boxes:
    raise UserError(
      f'--tables {options.tables}: has neither {constants.ENTRY_TABLES[0]} nor '
      f'{constants.BOX_TABLE}'
    )
  return known, regions.by_image(boxes)


def _measure(
  options: Evaluate,
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
    raise UserError(f'{options.data}: no image can be measured; {failed[0]}')
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
  """Print the metrics of each subgroup with their 95% intervals."""
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
