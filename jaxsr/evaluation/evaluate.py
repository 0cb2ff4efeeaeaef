"""Measure a model on a folder of images, beside bicubic interpolation."""

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
from tqdm import tqdm

from jaxsr import __version__
from jaxsr.data import acquisition, fingerprint, registration, sources
from jaxsr.data.nih import metadata
from jaxsr.data.shard import Shard
from jaxsr.errors import ImageError, UserError, brief, count
from jaxsr.evaluation import boxes as box_figures
from jaxsr.evaluation import conditions as by_condition
from jaxsr.evaluation import doubt, inputs, page, report, shards, stratified, unfinished
from jaxsr.evaluation.evaluator import INFINITE, Evaluator, split_exact, summarize
from jaxsr.evaluation.measurement import Measurement, Protocol
from jaxsr.evaluation.protocol import PROTOCOLS
from jaxsr.files import digest_arrays, digest_json, make_folder
from jaxsr.inference import package, provenance
from jaxsr.inference.agreeing import Rule
from jaxsr.inference.model import Model
from jaxsr.perceptual import FeatureExtractor


def evaluate(
  model: Model,
  folder: str | os.PathLike[str],
  *,
  lr: str | os.PathLike[str] | None = None,
  output: str | os.PathLike[str] | None = None,
  protocol: str = 'xray',
  split: str = 'test',
  bits: int = 0,
  tables: str | os.PathLike[str] | None = None,
  features: tuple[str, FeatureExtractor, Any] | None = None,
  ensemble: bool = False,
  conditions: str | Sequence[str] = (),
  beside: Sequence[Model] = (),
  shard: Shard | None = None,
  parts: page.Parts | None = None,
  agree: bool = True,
) -> dict[str, Any]:
  """Measure a model on high-resolution images, beside bicubic interpolation.

  The low resolution is computed from the images, or given. Images that cannot be read or are too
  small are left out and listed.

  Args:
    model: the model.
    folder: a folder of images, read recursively, one image, or a folder of NIH records.
    lr: a folder with the low resolution of each image, under equal names; None computes it.
    output: a folder for `summary.json`, `per_image.csv`, `contact_sheet.png` and `report.html`;
      None writes nothing.
    protocol: 'xray', or 'luma' for natural images: see `jaxsr.evaluation.protocol`.
    split: the split of records, SPLIT or SPLIT/FINDING.
    bits: the number of bits that 16-bit files hold, if they do not say so; 0 trusts the files.
    tables: a folder with NIH's tables of findings and boxes, by which figures are broken down.
    features: a name, a feature network and its variables: `feature_distance` is measured as well.
    ensemble: average over the eight flips and quarter turns of each image.
    conditions: names of `jaxsr.data.acquisition.CONDITIONS`, also as a text with commas, or 'all':
      noise, blur and compression under which the model is measured as well. `output` then also gets
      `conditions.csv`, `conditions_per_image.csv` and `conditions.png`; the figures per image that
      an interrupted evaluation left there are used.
    beside: further models for the table by condition.
    shard: measure only a part of the images, and write only its figures; a later evaluation of all
      images with the same options and output takes them from there.
    parts: computes further sections of the page, as `jaxsr.trust.parts.measure`.
    agree: measure what `Model.upscale` writes, which agrees with the low resolution, and make
      bicubic agree as well; figures without that are in `raw_psnr` and so on. Interpolations,
      networks for noisy images, the protocol luma and images in `lr` are always measured without.

  Returns:
    The content of `summary.json`: means over images by the names in
    `jaxsr.evaluation.figures.FIGURES` ('psnr', 'ssim', 'psnr_centre', ...; bicubic's as
    'bicubic_psnr', ...), 'n' (the number of images), 'failed' (the errors of the other images), and
    the settings: 'checkpoint', 'data', 'network', 'scale' and the options. With conditions,
    'conditions' holds the figures by condition and by method.

  Raises:
    UserError: no image can be measured, or an option does not fit.

  Example:
    >>> import jaxsr
    >>> import numpy as np
    >>> jaxsr.write('film.png', np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    >>> table = jaxsr.evaluate(jaxsr.load('bicubic'), 'film.png')
    >>> table['n'], table['psnr'] == table['bicubic_psnr']
    (1, True)
  """
  if protocol not in PROTOCOLS:
    raise UserError(f'protocol {protocol!r}: choose one of {", ".join(PROTOCOLS)}')
  measurement = Measurement(
    data=Path(folder).expanduser(),
    output=None if output is None else Path(output).expanduser(),
    protocol=cast(Protocol, protocol),
    split=split,
    bits=bits,
    tables=None if tables is None else Path(tables).expanduser(),
    ensemble=ensemble,
    agree=agree,
  )
  return measure(
    model,
    measurement,
    lr=lr,
    features=features,
    conditions=conditions,
    beside=beside,
    shard=shard,
    parts=parts,
  )


def measure(
  model: Model,
  measurement: Measurement,
  *,
  lr: str | os.PathLike[str] | None = None,
  features: tuple[str, FeatureExtractor, Any] | None = None,
  conditions: str | Sequence[str] = (),
  beside: Sequence[Model] = (),
  shard: Shard | None = None,
  parts: page.Parts | None = None,
) -> dict[str, Any]:
  """Measure a model as `evaluate` does.

  Args:
    model: the model.
    measurement: the images, the output folder, and the options that `evaluate` and `compare` share.
    lr, features, conditions, beside, shard, parts: as for `evaluate`.

  Returns:
    The summary, as for `evaluate`.

  Raises:
    UserError: as for `evaluate`.
  """
  folder, output, protocol = measurement.data, measurement.output, measurement.protocol
  bits, ensemble = measurement.bits, measurement.ensemble
  names, measured = _conditions(model, conditions, beside, protocol, ensemble=ensemble)
  channels = 3 if protocol == 'luma' else model.channels
  source = inputs.open_images(folder, measurement.split, bits, channels=channels)
  known, boxes = inputs.read_metadata(source, measurement.tables)
  if lr is not None:
    if protocol != 'xray' or conditions:
      raise UserError(f'{lr}: given low resolutions need the protocol xray and no conditions')
    lr_folder = sources.Folder(Path(lr).expanduser(), channels=channels, stored_bits=bits)
    source = sources.Paired(source, lr_folder, model.scale)
    _note(registration.describe(source))
  if output is not None:
    for images in (folder, *([] if lr is None else [Path(lr).expanduser()])):
      inputs.check_output(images, output)
    make_folder(output)
  if uneven := sources.uneven(source, model.scale):
    _note(f'cut to a multiple of {model.scale}: {count(len(uneven), "image")}, {brief(uneven)}')
  agrees = measurement.agree and protocol == 'xray' and lr is None
  rule = model.agreement_rule() if agrees else None
  about = _settings(model, measurement, lr, features, rule)
  evaluator = Evaluator(
    model.network,
    source,
    scale=model.scale,
    protocol=protocol,
    perceptual=None if features is None else features[1:],
    ensemble=ensemble,
    devices=jax.local_devices(),
    agree=rule,
  )
  settings = about | {'bits': bits, 'split': measurement.split}
  settings['images'] = fingerprint.of(source)
  settings['made_by'] = str(provenance.of(model, ensemble=ensemble))
  settings |= {'boxes': digest_json(boxes), 'rule': None if rule is None else digest_json(rule)}
  settings['feature_weights'] = None if features is None else _digest(*features[1:])
  found = shards.read(output, settings) if output is not None and shard is None else {}
  kept = unfinished.Unfinished(output if shard is None else None, settings)
  found = unfinished.of_same_images(kept.found | found, source)
  wanted = [i for i, name in enumerate(source.names) if shard is None or shard.holds(name)]
  todo = [i for i in wanted if source.names[i] not in found]
  for name, one in _measure_images(evaluator, model.variables, todo, boxes):
    found[name] = one
    if one.row is not None:
      kept.add(name, one)
  if shard is not None:
    assert output is not None
    shards.write(output, shard, settings, found)
  indices = [i for i in wanted if found[source.names[i]].row is not None]
  rows = [row for i in indices if (row := found[source.names[i]].row)]
  inside = [each for i in indices for each in found[source.names[i]].inside]
  failed = [str(error) for error in source.rejected]
  failed += [reason for i in wanted if (reason := found[source.names[i]].reason)]
  if not rows:
    if shard is not None and not failed:
      return {}
    raise UserError(f'{folder}: no image can be measured; {failed[0]}')
  if exact := split_exact(rows)[1]:
    _note(f'{exact}, and {INFINITE:.0f} dB are counted')
  strata = stratified.summarize(rows, known)
  summary = summarize(rows) | {'failed': failed} | about
  summary |= {'strata': strata} if strata else {}
  summary |= {'regions': box_figures.summarize(inside)} if inside else {}
  if names and shard is None:
    summary['conditions_version'] = acquisition.VERSION
    summary['conditions'] = by_condition.measure(
      measured,
      source,
      names,
      scale=model.scale,
      images=indices,
      folder=output,
      progress=functools.partial(_progress, name='conditions'),
    )
  if output is not None and shard is None:
    chosen = {rank: indices[i] for rank, i in report.ranks(rows).items()}
    shown = {rank: evaluator.measure(model.variables, i) for rank, i in chosen.items()}
    doubts = {} if protocol == 'luma' or ensemble else doubt.masks(model, evaluator, chosen)
    more = () if parts is None else parts({model.name: model}, source, output)
    report.write(output, inside, page.Result(model.name, summary, rows, shown, doubts), more)
    unfinished.remove(output)
  return summary


def _settings(
  model: Model,
  measurement: Measurement,
  lr: str | os.PathLike[str] | None,
  features: tuple[str, FeatureExtractor, Any] | None,
  rule: Rule | None,
) -> dict[str, Any]:
  """Returns the model and the settings of an evaluation, as `summary.json` names them."""
  return {
    'checkpoint': model.name,
    'data': measurement.data.resolve().name,
    'lr': None if lr is None else Path(lr).resolve().name,
    'network': model.architecture,
    'parameters': model.parameters,
    'scale': model.scale,
    'protocol': measurement.protocol,
    'features': None if features is None else features[0],
    'checkpoint_step': model.step,
    'width': model.width,
    'depth': model.depth,
    'ensemble': measurement.ensemble,
    'agree': 'none' if rule is None else rule.name,
    'version': __version__,
  }


def _digest(extractor: FeatureExtractor, variables: Any) -> str:
  """Returns a digest of a feature network and its weights."""
  return digest_arrays([package.to_tensors(variables)], extractor)


def _measure_images(
  evaluator: Evaluator,
  variables: Any,
  indices: Sequence[int],
  boxes: Mapping[str, Sequence[metadata.Box]],
) -> Iterator[tuple[str, shards.Measured]]:
  """Measure images and the boxes in them; yields the name and the result, or the error, of each."""
  results = evaluator.measure_all(variables, indices)
  for i, result in zip(indices, _progress(results, len(indices)), strict=True):
    name, content = evaluator.source.names[i], fingerprint.of_image(evaluator.source, i)
    if isinstance(result, ImageError):
      yield name, shards.Measured(None, reason=str(result), content=content)
    else:
      here = boxes.get(Path(name).name)
      inside = box_figures.measure(result[1], here) if here else ()
      yield name, shards.Measured(result[0], inside, content=content)


def _conditions(
  model: Model,
  conditions: str | Sequence[str],
  beside: Sequence[Model],
  protocol: str,
  *,
  ensemble: bool,
) -> tuple[list[str], list[by_condition.Method]]:
  """Returns the names of the conditions, and the methods that are measured under them."""
  if not conditions:
    if beside:
      raise UserError(f'{beside[0].name} is measured beside {model.name} by conditions only')
    return [], []
  if protocol != 'xray':
    raise UserError(f'conditions are defined for the protocol xray, not {protocol}')
  names = by_condition.choose(conditions)
  measured = by_condition.methods([model, *beside], ensemble=ensemble)
  if by_condition.DENOISER not in [method.name for method in measured]:
    _note("no row of a denoiser: it needs scikit-image (pip install 'jaxsr-xray[conditions]')")
  return names, measured


def _progress(results: Any, total: int, name: str = 'evaluate') -> Any:
  """Show a progress bar if a person looks."""
  return tqdm(results, total=total, desc=name, unit='image', disable=not sys.stderr.isatty())


def _note(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
