"""`jaxsr package`: export a run as a folder of weights, config, metrics and a model card."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from jaxsr import __version__, models
from jaxsr import config as configs
from jaxsr.checkpoint import run_dir
from jaxsr.commands.options import PackageCommand
from jaxsr.compression import quantize
from jaxsr.data import bit_depth, film_digests, sources
from jaxsr.errors import UserError, argument
from jaxsr.evaluation import evaluator, figures
from jaxsr.inference import confidence, input_range, model_card, package, training_films
from jaxsr.inference.model import Model, load
from jaxsr.inference.package import Package
from jaxsr.inference.stored import is_slimmable, read_config


def run(options: PackageCommand) -> int:
  """Load the run, measure it and write the package; returns the exit code."""
  if options.int8 and options.data is None:
    raise UserError('--int8 needs --data, to measure the loss of quality')
  if options.checkpoint in models.PARAMETER_FREE:
    raise UserError(f'{options.checkpoint} has no weights to package')
  bit_depth.check(options.bits, '--bits')
  saved = read_config(options.checkpoint)
  model = load(options.checkpoint, step=options.step, width=options.width, depth=options.depth)
  config = {
    'model': models.describe(model.network),
    'scale': model.scale,
    'channels': model.channels,
    'precision': 'float32',  # also of weights that were trained in bfloat16, which CPUs emulate
  }
  if is_slimmable(saved) and (options.width, options.depth) == (1.0, 1.0):
    whole = load(options.checkpoint, step=options.step, fold=False)
    model = replace(model, network=whole.network, variables=whole.variables)
    config |= {'model': models.describe(model.network)}
    config |= {'slimmable': dict(saved['slimmable'])}
  config |= _inputs(saved)
  origin = _origin(options, saved, model)
  metrics = _metrics(options, model, origin)
  measured = _describe(metrics, model.scale)
  more = _more(options, model)
  text = model_card.write(
    options.output.name,
    model,
    config,
    origin,
    measured,
    int8=options.int8,
    calibration=more.get(package.CALIBRATION),
  )
  made = Package(config, origin)
  package.write(
    options.output, model.variables, made, metrics=metrics, card=text, int8=options.int8, more=more
  )
  _report(options, model, metrics)
  return 0


def _inputs(config: dict[str, Any]) -> dict[str, Any]:
  """Returns the section with the range of inputs: a package's own, or that of a run's images."""
  if input_range.SECTION in config:
    return {input_range.SECTION: config[input_range.SECTION]}
  if not any(config.get('loss', {}).values()):
    return {}  # imported weights, or an older package
  data = {**configs.base().data.to_dict(), **config['data']}
  try:
    found = input_range.of_training(ConfigDict({**config, 'data': data}))
  except UserError as error:
    print(f'jaxsr upscale will not warn of noisy or compressed images: {error}', file=sys.stderr)
    return {}
  return {input_range.SECTION: found._asdict()}


def _origin(options: PackageCommand, config: dict[str, Any], model: Model) -> dict[str, Any]:
  """Returns the training data, settings and versions, without the paths of this machine."""
  if (packed := package.find(options.checkpoint)) is not None:
    return package.read_config(packed).origin
  saved = run_dir.read_config(Path(options.checkpoint))
  origin: dict[str, Any] = {'step': model.step, 'jaxsr': __version__}
  origin |= {k: _brief(Path(str(config['data'][k]))) for k in ('train', 'val')}
  origin['loss'] = {name: weight for name, weight in config['loss'].items() if weight}
  origin |= {key: config[key] for key in ('precision', 'seed', 'steps', 'batch_size')}
  origin['optimizer'] = dict(config['optimizer'])
  degradation = dict(config['data'].get('degradation', {}))  # older runs have none
  if degradation.get('kind') == 'acquisition':
    origin['degradation'] = degradation
  return origin | ({'environment': saved['environment']} if saved else {})


def _metrics(options: PackageCommand, model: Model, origin: dict[str, Any]) -> dict[str, Any]:
  """Returns the metrics on `data`, or those of the package or of the run's last validation."""
  packed = package.find(options.checkpoint)
  if options.data is None and packed is not None:
    return package.read_metrics(packed)
  if options.data is None:
    found = run_dir.last_row(Path(options.checkpoint), step=model.step)
    return {'of': f'the validation of its run, {origin["val"]}', **found} if found else {}
  source = sources.Folder(options.data, channels=model.channels, stored_bits=options.bits)
  measure = lambda variables: evaluator.measure(  # noqa: E731
    model.network, variables, source, scale=model.scale
  )
  metrics = {'of': _brief(options.data.resolve()), 'protocol': 'xray', **measure(model.variables)}
  if options.int8:
    metrics = {**metrics, **measure(_rounded(model.variables)), 'float32': metrics}
  return metrics


def _describe(metrics: dict[str, Any], scale: int) -> str:
  """Returns the metrics as text for the model card."""
  if 'psnr' not in metrics:
    return 'Not measured.'
  others = {'float32': metrics['float32']} if 'float32' in metrics else {}
  return (
    f'On {metrics["of"]}, protocol xray (8 bits, {scale} pixels cropped, mean over images):\n\n'
    + figures.comparison(metrics, **others)
  )


def _more(options: PackageCommand, model: Model) -> dict[str, str]:
  """Returns the texts of the calibration and of the list of training films, if there are any."""
  found = {}
  if films := training_films.of(model):
    found[package.TRAINING_FILMS] = film_digests.to_text(films)
  if options.int8:  # a calibration is for the weights that are stored
    model = replace(model, variables=_rounded(model.variables))
  if options.calibration is not None:
    path = confidence.file_of(options.calibration)
    confidence.check(confidence.read(path), model)
  elif model.folder is None or not (path := model.folder / package.CALIBRATION).is_file():
    return found
  elif confidence.read(path).network['weights'] != confidence.fingerprint(model):
    print('  the calibration is left out: the weights changed')
    return found
  return found | {package.CALIBRATION: path.read_text(encoding='utf-8')}


def _rounded(variables: Any) -> Any:
  """Returns variables as a package with 8-bit weights restores them."""
  found = quantize.restore(quantize.quantize(package.to_tensors(variables)))
  return unflatten_dict({tuple(name.split('/')): x for name, x in found.items()})


def _report(options: PackageCommand, model: Model, metrics: dict[str, Any]) -> None:
  size = (options.output / package.WEIGHTS).stat().st_size
  print(f'{model.architecture} x{model.scale}, {model.parameters:,} parameters, {size:,} bytes')
  if 'psnr' in metrics:
    gain = metrics['psnr'] - metrics['bicubic_psnr']
    print(f'  {metrics["psnr"]:.3f} dB on {metrics["of"]}, {gain:+.3f} over bicubic')
  if options.int8:
    loss = metrics['psnr'] - metrics['float32']['psnr']
    print(f'  8-bit weights cost {-loss:.4f} dB')
  data = 'FOLDER' if options.data is None else argument(options.data)
  output = argument(options.output)
  print(f'  to measure it: jaxsr evaluate --checkpoint {output} --data {data} --output eval')


def _brief(path: Path) -> str:
  """Returns the last two parts of a path, which do not show where it is on the machine."""
  return '/'.join(path.parts[-2:])
