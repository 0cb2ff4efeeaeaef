"""Compare several models on the same images: one table, one page."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from jaxsr import __version__
from jaxsr.data import fingerprint
from jaxsr.data.nih.metadata import Box
from jaxsr.errors import ImageError, UserError
from jaxsr.evaluation import boxes as box_figures
from jaxsr.evaluation import doubt, figures, inputs, page, report, stratified, unfinished
from jaxsr.evaluation import html as pages
from jaxsr.evaluation.evaluator import Evaluator, Figures, summarize
from jaxsr.evaluation.measurement import Measurement
from jaxsr.evaluation.shards import Measured
from jaxsr.files import make_folder, to_csv, write_text
from jaxsr.inference import provenance
from jaxsr.inference.agreeing import Rule
from jaxsr.inference.agreement import Reduction
from jaxsr.inference.model import Model

TABLE, PER_IMAGE = 'compare.csv', 'compare_per_image.csv'


def compare(
  models: Mapping[str, Model], measurement: Measurement, *, parts: page.Parts | None = None
) -> list[page.Result]:
  """Measure models on the same high-resolution images, beside bicubic interpolation.

  Images that one of the models cannot be measured on are left out of all rows. After an
  interruption, the same call continues.

  Args:
    models: the models by the names to show, all of one scale.
    measurement: the images, and how they are measured. Its output folder, which is required, gets
      `compare.csv`, `compare_per_image.csv` and `report.html`. With the protocol luma, images are
      not made to agree.
    parts: computes further sections of the page, as `jaxsr.trust.parts.measure`.

  Returns:
    The result of each model, with the films that are the best, the median and the worst of the
    first.

  Raises:
    UserError: no image can be measured, scales differ, or an option does not fit.
  """
  folder, output, protocol = measurement.data, measurement.output, measurement.protocol
  assert output is not None
  scales = {name: model.scale for name, model in models.items()}
  if len(set(scales.values())) > 1:
    found = ', '.join(f'{name} x{scale}' for name, scale in scales.items())
    raise UserError(f'the models have different scales: {found}; choose models of one scale')
  inputs.check_output(folder, output)
  make_folder(output)
  agrees = measurement.agree and protocol == 'xray'
  rule = Rule(Reduction(next(iter(scales.values())))) if agrees else None
  measured, known, baselines = {}, {}, {}
  for name, model in models.items():
    channels = 3 if protocol == 'luma' else model.channels
    source = inputs.open_images(folder, measurement.split, measurement.bits, channels=channels)
    evaluator = Evaluator(
      model.network,
      source,
      scale=model.scale,
      protocol=protocol,
      ensemble=measurement.ensemble,
      devices=jax.local_devices(),
      agree=rule,
      baseline=baselines.get(channels),
    )
    baselines.setdefault(channels, evaluator)
    known, boxes = inputs.read_metadata(source, measurement.tables)
    options = {
      'network': str(provenance.of(model, ensemble=measurement.ensemble)),
      'images': fingerprint.of(source),
      'boxes': boxes,
      'protocol': protocol,
      'bits': measurement.bits,
      'agree': None if rule is None else rule.name,
      'version': __version__,
    }
    kept = unfinished.Unfinished(output, options)
    measured[name] = evaluator, *_measure(name, evaluator, model.variables, boxes, kept)
  found = [rows for _, rows, _ in measured.values()]
  files = [file for file in found[0] if all(file in rows for rows in found)]
  if not files:
    failed = next(failed for _, _, failed in measured.values() if failed)
    raise UserError(f'{folder}: no image can be measured; {failed[0]}')

  ranks = report.ranks([found[0][file][1] for file in files])
  results = []
  for name, (evaluator, rows, failed) in measured.items():
    indices = {rank: rows[files[i]][0] for rank, i in ranks.items()}
    shown = {rank: evaluator.measure(models[name].variables, i) for rank, i in indices.items()}
    doubts = {}
    if protocol == 'xray' and not measurement.ensemble:
      doubts = doubt.masks(models[name], evaluator, indices)
    chosen = [rows[file][1] for file in files]
    summary = summarize(chosen) | {
      'failed': [str(error) for error in failed],
      'parameters': models[name].parameters,
      'data': folder.resolve().name,
      'scale': models[name].scale,
      'protocol': protocol,
      'agree': 'none' if rule is None else rule.name,
      'version': __version__,
    }
    inside = [row for file in files for row in rows[file][2]]
    strata = stratified.summarize(chosen, known)
    summary |= {'strata': strata} if strata else {}
    summary |= {'regions': box_figures.summarize(inside)} if inside else {}
    results.append(page.Result(name, summary, chosen, shown, doubts))
  more = ()
  if parts is not None:
    more = parts(
      models, inputs.open_images(folder, measurement.split, measurement.bits, channels=1), output
    )
  _write(output, results, more)
  unfinished.remove(output)
  return results


def _measure(
  name: str,
  evaluator: Evaluator,
  variables: Any,
  boxes: Mapping[str, Sequence[Box]],
  kept: unfinished.Unfinished,
) -> tuple[dict[str, tuple[int, Figures, Sequence[Figures]]], list[ImageError]]:
  """Measure all images that are not kept.

  Returns the index, the figures and the figures inside boxes of each image by its file, and the
  errors of the images that cannot be measured.
  """
  names, failed = evaluator.source.names, list(evaluator.source.rejected)
  kept.found = unfinished.of_same_images(kept.found, evaluator.source)
  todo = [i for i, file in enumerate(names) if file not in kept.found]
  results = tqdm(
    evaluator.measure_all(variables, todo),
    total=len(todo),
    desc=name,
    unit='image',
    disable=not sys.stderr.isatty(),
  )
  for index, result in zip(todo, results, strict=True):
    if isinstance(result, ImageError):
      failed.append(result)
    else:
      row, example = result
      here = boxes.get(Path(row['file']).name, ())
      inside = box_figures.measure(example, here) if here else []
      content = fingerprint.of_image(evaluator.source, index)
      kept.add(names[index], Measured(row, inside, content=content))
  rows = {}
  for index, file in enumerate(names):
    if (found := kept.found.get(file)) is not None and found.row is not None:
      rows[file] = index, found.row, found.inside
  return rows, failed


def _write(output: Path, results: Sequence[page.Result], more: Sequence[pages.Section]) -> None:
  names = [f.name for f in figures.compared(results[0].summary)]
  table = [{'network': page.BICUBIC, 'parameters': 0, 'n': results[0].summary['n']}]
  table[0] |= {name: results[0].summary[f'bicubic_{name}'] for name in names}
  for result in results:
    if result.name != page.BICUBIC:
      keys = ('parameters', 'n', *names, 'images_below_bicubic')
      table.append({'network': result.name} | {key: result.summary[key] for key in keys})
  write_text(output / TABLE, to_csv(table))
  rows = [{'network': result.name} | row for result in results for row in result.rows]
  write_text(output / PER_IMAGE, to_csv(rows))
  page.write(output, results, more)
  if not more:
    page.remove_parts(output)
