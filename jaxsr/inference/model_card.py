"""The model card of a package."""

import json
from typing import Any

from jaxsr.errors import argument
from jaxsr.inference.model import Model
from jaxsr.inference.uncertainty.samples import title

_CLEAN = """It was trained on bicubic reductions of clean images. On other inputs (noise, JPEG,
  another reduction) the metrics are worse."""
_LIMITS = """## Limits

- For research. **Not for diagnosis**, and not a medical device: detail beyond the low resolution is
  plausible, but not evidence of anything in the patient.
- {inputs}
- Images of other devices, projections and bit depths may differ from the training images.
"""


def write(
  name: str,
  model: Model,
  config: dict[str, Any],
  origin: dict[str, Any],
  measured: str,
  *,
  int8: bool,
  calibration: str | None = None,
) -> str:
  """Returns the text of the card, with `{hashes}` in place of the table of SHA-256 sums.

  Args:
    name: the name of the package.
    model: the packaged model.
    config: the `config` of the package.
    origin: the `origin` of the package.
    measured: the metrics and on which images they were measured, in Markdown.
    int8: whether kernels are stored as 8-bit integers.
    calibration: the text of `calibration.json`, from which the section *Trust* is made.
  """
  kind = {1: 'gray', 3: 'RGB'}[model.channels]
  bits = 'int8 kernels, float32 vectors' if int8 else 'float32'
  sizes = ''
  heading = f'{model.architecture} x{model.scale}'
  if slim := config.get('slimmable'):
    widths, depths = (', '.join(map(str, slim[key])) for key in ('widths', 'depths'))
    sizes = f'\nIt runs at widths {widths} and depths {depths} (`--width`, `--depth`).\n'
  options = ', '.join(f'{key}={value}' for key, value in config['model'].items() if key != 'name')
  return f"""# {name}

{heading} for {kind} chest radiographs, {model.parameters:,} parameters, {bits}.
{sizes}
```
jaxsr upscale image.png --checkpoint {argument(name)} --output large.png
```

Network: {options}.

## Training

{_training(origin)}

## Metrics

{measured}

{trust(calibration)}
{_LIMITS.format(inputs=_inputs(origin))}
## Files

{{hashes}}
"""


def _inputs(origin: dict[str, Any]) -> str:
  """Describe the low-resolution images of the training."""
  found = origin.get('degradation')
  if found is None:
    return _CLEAN
  (least, most), (worst, best) = found['dose'], found['jpeg']
  blur, noise = found['blur'][1], found['noise'][1]
  return f"""It was trained on clean reductions, and on others with blur of up to {blur:g} pixels,
  {least:g} to {most:g} of the usual dose, noise of up to {noise:g} gray levels, and JPEG at quality
  {worst} to {best}. Beyond these the metrics are worse."""


def trust(calibration: str | None) -> str:
  """Returns the section *Trust* of a card, or '' without a calibration."""
  if calibration is None:
    return ''
  found = json.loads(calibration)
  interval, doubt = found['interval'], found['doubt']
  tested = found.get('tested')
  shown = tested or found['calibrated']
  where = f'{tested["data"]}, who had no part in it' if tested else 'the same films'
  regions = ', '.join(f'{title(name)} {100 * x:.1f}' for name, x in shown['regions'].items())
  if by_condition := shown.get('strata', {}).get('condition'):
    named = (f'{name} {100 * x["coverage"]:.1f}' for name, x in by_condition.items())
    regions += '; by condition: ' + ', '.join(named)
  keys, tiles = ('mean', 'worst_patient', 'sd_over_films'), shown['tiles']
  mean, worst, spread = (100 * shown['coverage'][key] for key in keys)
  training = {
    'excluded': 'None of these films was trained on.',
    'allowed': '**Training films are among them**, so that the figures are no measure of others.',
    'unknown': 'Whether training films are among them was not checked.',
  }[found['training_films']]
  results = 'that agree with their input' if found['agree'] != 'none' else 'of `--no-agree`'
  target = 100 * interval['coverage']
  compared = 'bicubic interpolation' if not found['second'] else found['second']['name']
  return f"""## Trust

`jaxsr upscale film.png --confidence` also writes the interval of each pixel and the doubtful tiles,
for results {results}.
Both were calibrated on {found['calibrated']['patients']} patients of {found['data']}. {training}
The figures are of {shown['patients']} patients of {where}.

- **Intervals.** {target:g} % intervals contain {mean:.1f} % of the pixels: the mean over
  patients, of whom the worst has {worst:.1f} % (standard deviation over films {spread:.1f} points).
  By region, in %: {regions}. Half of their width is
  {shown['half_width']:.2f} gray levels on average, mostly the film's noise.
- **Doubt.** Tiles of 16x16 pixels are marked where the image differs much from {compared},
  {100 * tiles['flagged']:.1f} % of all. Of the tiles with a root mean square error above
  {doubt['bad']:g} gray levels, {100 * tiles['bad']:.1f} % of all,
  {100 * tiles['missed']:.1f} % are not marked.
- **Not covered.** Other devices, hospitals and reductions, for which it must be calibrated anew.
"""


def _training(origin: dict[str, Any]) -> str:
  if not origin.get('loss'):
    return 'Imported weights; how they were trained is not known.'
  terms = ' + '.join(f'{weight:g} {name}' for name, weight in origin['loss'].items())
  versions = origin.get('environment', {})
  names = ', '.join(f'{k} {versions[k]}' for k in ('jaxsr', 'jax', 'flax') if k in versions)
  optimizer = origin.get('optimizer', {})
  by = f' by {optimizer["name"]} at {optimizer["learning_rate"]:g}' if 'name' in optimizer else ''
  return (
    f'Trained on {origin["train"]}: '
    f'{terms}{by}, step {origin["step"]} of {origin["steps"]}, batches of '
    f'{origin["batch_size"]}, seed {origin["seed"]}. {names}.'
  )
