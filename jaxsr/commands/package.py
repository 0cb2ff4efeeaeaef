"""`jaxsr package`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from flax.traverse_util import unflatten_dict

from jaxsr import __version__, models
from jaxsr.checkpoint import run_dir
from jaxsr.compression import quantize
from jaxsr.data import sources
from jaxsr.errors import UserError
from jaxsr.evaluation import evaluator
from jaxsr.inference import model_card, package
from jaxsr.inference.model import Model, is_slimmable, load, read_config
from jaxsr.inference.package import Package


@dataclass(frozen=True)
class PackageCommand:
  """Make of a run what can be shipped: weights, config, figures and a model card in one folder.

  The weights are the averaged ones, without what only training needs. `jaxsr evaluate` and
  `upscale` take the folder, or its name where it lies in `checkpoints/`.
  """

  checkpoint: Annotated[str, tyro.conf.Positional]
  """The folder of a run, an import or a package."""
  output: Path
  """The new folder, such as checkpoints/NAME."""
  data: Path | None = None
  """Films to measure on; without, the figures are those of the run's last validation."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  width: float = 1.0
  """A width of a slimmable network; without width and depth it stays slimmable."""
  depth: float = 1.0
  """A depth of a slimmable network."""
  int8: bool = False
  """Round the weights to 8 bits, and measure what that costs on `data`."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Read, measure and write; return the exit code."""
    if self.int8 and self.data is None:
      raise UserError('--int8 needs --data, so that what it costs is measured')
    if self.checkpoint in models.PARAMETER_FREE:
      raise UserError(f'{self.checkpoint} has no weights that could be packed')
    saved = read_config(self.checkpoint)
    model = load(self.checkpoint, step=self.step, width=self.width, depth=self.depth)
    config = {
      'model': models.describe(model.network),
      'scale': model.scale,
      'channels': model.channels,
      'precision': saved['precision'],
    }
    if is_slimmable(saved) and (self.width, self.depth) == (1.0, 1.0):
      whole = load(self.checkpoint, step=self.step, fold=False)
      model = replace(model, network=whole.network, variables=whole.variables)
      config |= {'model': models.describe(model.network)}
      config |= {'slimmable': dict(saved['slimmable'])}
    origin = self._origin(saved, model)
    metrics = self._metrics(model, origin)
    text = model_card.write(self.output.name, model, config, origin, metrics, int8=self.int8)
    made = Package(config, origin)
    package.write(self.output, model.variables, made, metrics=metrics, card=text, int8=self.int8)
    self._report(model, metrics)
    return 0

  def _origin(self, config: dict[str, Any], model: Model) -> dict[str, Any]:
    """Say where the weights come from; folders by their names only."""
    if (packed := package.find(self.checkpoint)) is not None:
      return package.read_config(packed).origin
    saved = run_dir.read_config(Path(self.checkpoint))
    origin: dict[str, Any] = {'step': model.step, 'jaxsr': __version__}
    origin |= {k: _brief(Path(str(config['data'][k]))) for k in ('train', 'val')}
    origin['loss'] = {name: weight for name, weight in config['loss'].items() if weight}
    origin |= {key: config[key] for key in ('seed', 'steps', 'batch_size')}
    origin['optimizer'] = dict(config['optimizer'])
    return origin | ({'environment': saved['environment']} if saved else {})

  def _metrics(self, model: Model, origin: dict[str, Any]) -> dict[str, Any]:
    """Measure, or take over the last validation."""
    if self.data is None:
      found = run_dir.last_row(Path(self.checkpoint), step=model.step)
      return {'of': f'the validation of its run, {origin["val"]}', **found} if found else {}
    source = sources.Folder(self.data, channels=model.channels)
    measure = lambda variables: evaluator.measure(  # noqa: E731
      model.network, variables, source, scale=model.scale
    )
    metrics = {'of': _brief(self.data.resolve()), 'protocol': 'xray', **measure(model.variables)}
    if self.int8:
      rounded = quantize.restore(quantize.quantize(package.to_tensors(model.variables)))
      tree = unflatten_dict({tuple(name.split('/')): x for name, x in rounded.items()})
      metrics = {**metrics, **measure(tree), 'float32': metrics}
    return metrics

  def _report(self, model: Model, metrics: dict[str, Any]) -> None:
    size = (self.output / package.WEIGHTS).stat().st_size
    print(f'{model.architecture} x{model.scale}, {model.parameters:,} parameters, {size:,} bytes')
    if 'psnr' in metrics:
      gain = metrics['psnr'] - metrics['bicubic_psnr']
      print(f'  {metrics["psnr"]:.3f} dB on {metrics["of"]}, {gain:+.3f} over bicubic')
    if self.int8:
      loss = metrics['psnr'] - metrics['float32']['psnr']
      print(f'  8 bits cost {-loss:.4f} dB')
    print(f'  evaluate: jaxsr evaluate --checkpoint {self.output} --data DIR --output DIR')


def _brief(path: Path) -> str:
  """Name a folder without saying where on a machine it lies."""
  return '/'.join(path.parts[-2:])
