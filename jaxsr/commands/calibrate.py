"""`jaxsr calibrate`: calibrate intervals and doubt on films, and measure them on others."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsr import __version__, models
from jaxsr.commands import report
from jaxsr.commands.options import Calibrate
from jaxsr.data import acquisition, bit_depth, degradation, film_digests, records, sources
from jaxsr.data.acquisition.film import acquire
from jaxsr.errors import ImageError, UserError, count
from jaxsr.evaluation import conditions, inputs, stratified
from jaxsr.files import make_folder, write_json
from jaxsr.inference import confidence, package, training_films
from jaxsr.inference.model import Model, load
from jaxsr.inference.uncertainty import calibration as calibrating
from jaxsr.inference.uncertainty import maps
from jaxsr.inference.uncertainty.samples import Sample, draw, title

_SMALLEST = 64  # pixels of a side


def run(options: Calibrate) -> int:
  """Calibrate, measure, write and print; returns the exit code."""
  _check(options)
  bit_depth.check(options.bits, '--bits')
  model = load(options.checkpoint, step=options.step)
  second = None if options.second is None else load(options.second)
  if second is not None and (second.scale, second.channels) != (model.scale, model.channels):
    raise UserError(f'--second {options.second}: is of another scale or for other channels')
  if second is not None and package.find(second.name) is None:
    raise UserError(f'--second {options.second}: is not the name of a package, as images need it')
  target = confidence.file_of(options.output)
  if os.path.lexists(target):
    confidence.read(target)  # only a calibration is replaced
  films = _Films(options, model, second)
  samples = list(films.draw(options.data, 'calibrate'))
  test = [] if options.test is None else list(films.draw(options.test, 'test'))
  if both := {s.patient for s in samples} & {s.patient for s in test}:
    raise UserError(f'--test {options.test}: {count(len(both), "patient")} of it calibrate, too')
  interval = calibrating.fit_interval(samples, coverage=options.coverage, rule=options.rule)
  doubt = calibrating.fit_doubt(samples, bad=options.bad, missed=options.missed)
  found: dict[str, Any] = {
    'version': confidence.VERSION,
    'jaxsr': __version__,
    'network': confidence.identify(model),
    'agree': confidence.agreement_of(model, _agree(options)),
    'second': None if second is None else confidence.identify(second),
    **calibrating.to_json(interval, doubt),
    'data': _brief(options.data),
    'conditions': films.conditions,
    'training_films': films.training,
    'calibrated': calibrating.measure(samples, interval, doubt),
  }
  if test:
    measured = calibrating.measure(test, interval, doubt)
    found['tested'] = {'data': _brief(options.test), **measured}
  make_folder(options.output)
  write_json(options.output / package.CALIBRATION, found)
  print(_table(found))
  print(f'wrote {options.output / package.CALIBRATION}')
  return report.failures(films.failed, 'left out')


def _check(options: Calibrate) -> None:
  for name in ('coverage', 'missed'):
    if not 0 < (value := getattr(options, name)) < 1:
      raise UserError(f'--{name} {value}: must be between 0 and 1')
  if options.bad <= 0:
    raise UserError(f'--bad {options.bad}: must be positive')
  if options.checkpoint in models.PARAMETER_FREE:
    raise UserError(f'{options.checkpoint} has no weights to calibrate')


class _Films:
  """Draws the samples of films, and counts those that the network was trained on."""

  def __init__(self, options: Calibrate, model: Model, second: Model | None):
    self.options, self.model, self.second = options, model, second
    self.failed: list[ImageError] = []
    noisy = model.degradation == 'acquisition'
    self.conditions = conditions.choose(options.conditions or ('all' if noisy else 'clean'))
    known = _training_films(options, model)
    self.known = known or set()
    self.training = 'excluded' if known else 'unknown'
    if not known:
      text = (
        'note: the training images are not known, so none is refused; name them: --train FOLDER'
      )
      print(text, file=sys.stderr)

  def draw(self, folder: Path, name: str) -> Iterator[Sample]:
    """Yield a sample per film and condition; raises UserError for a training film."""
    source = self._source(folder)
    rows, _ = inputs.read_metadata(source, self.options.tables)
    self.failed += source.rejected
    for i, film in enumerate(report.progress(source.names, len(source), name)):
      try:
        image = source[i]
      except ImageError as error:
        self.failed.append(error)
        continue
      self._check(film, image)
      row = rows.get(Path(film).name)
      strata = () if row is None else tuple(stratified.strata_of(row))
      hr = degradation.cut(image, self.model.scale)
      for condition in self.conditions:
        rng = acquisition.generator(Path(film).name, condition)
        lr = acquire(hr, acquisition.CONDITIONS[condition], rng, scale=self.model.scale)
        groups = strata if len(self.conditions) == 1 else (*strata, ('condition', condition))
        yield self._sample(hr, lr, source.identities[i], groups)

  def _source(self, folder: Path) -> sources.Source:
    channels = self.model.channels
    if records.holds(folder):
      return records.Records(folder, self.options.split, channels=channels)
    smallest = max(_SMALLEST, self.model.scale)
    return sources.Folder(
      folder, channels=channels, minimum=smallest, stored_bits=self.options.bits
    )

  def _check(self, name: str, image: Any) -> None:
    if film_digests.of(image) not in self.known:
      return
    if not self.options.allow_training:
      raise UserError(
        f'{name}: {self.model.name} was trained on this film, and errors on training films are no '
        'measure of others; give other films, or allow it with --allow-training'
      )
    self.training = 'allowed'

  def _sample(self, hr: Any, lr: Any, patient: str, strata: tuple[tuple[str, str], ...]) -> Sample:
    model, white = self.model, 2 ** (8 * hr.itemsize) - 1
    small = maps.levels(lr, white)
    bits, other = 8 * hr.itemsize, None
    if self.second is not None:
      other = maps.levels(self.second.upscale(lr, bits=bits, agree=False), white)
    sr = model.upscale(lr, bits=bits, agree=_agree(self.options))
    true, made = (x.mean(axis=2) * (255 / white) for x in (hr, sr))
    return draw(patient, true, small, made, scale=model.scale, second=other, strata=strata)


def _agree(options: Calibrate) -> bool | None:
  """Returns the option `agree` of `Model.upscale`: None is the model's own choice."""
  return None if options.agree else False


def _training_films(options: Calibrate, model: Model) -> set[str] | None:
  """Returns the digests of the training films; None if they are not known."""
  if options.train:
    folders = [
      sources.Folder(folder, channels=model.channels, stored_bits=options.bits)
      for folder in options.train
    ]
    return set().union(*(film_digests.of_source(folder) for folder in folders))
  return training_films.of(model)


def _brief(path: Path | None) -> str:
  """Returns the last two parts of a path, which do not show where it is on the machine."""
  return '' if path is None else '/'.join(path.resolve().parts[-2:])


def _table(found: dict[str, Any]) -> str:
  """Returns the figures of a calibration as text."""
  percent = f'{found["interval"]["coverage"]:.0%}'
  lines = [f'{"":26s}{"calibrated":>11s}{"tested":>11s}']
  columns = [found['calibrated'], *([found['tested']] if 'tested' in found else [])]

  def row(name: str, form: str, *keys: str) -> None:
    cells = []
    for column in columns:
      value: Any = column
      for key in keys:
        value = value[key]
      cells.append(f'{format(value, form):>11s}')
    lines.append(f'{name:26s}{"".join(cells)}')

  row('patients', ',d', 'patients')
  row(f'coverage of {percent} intervals', '.1%', 'coverage', 'mean')
  for region in columns[0]['regions']:
    row(f'  {title(region)}', '.1%', 'regions', region)
  for condition in columns[0]['strata'].get('condition', ()):
    row(f'  {condition}', '.1%', 'strata', 'condition', condition, 'coverage')
  row('  worst patient', '.1%', 'coverage', 'worst_patient')
  row('  deviation over films', '.1%', 'coverage', 'sd_over_films')
  row('half width, gray levels', '.2f', 'half_width')
  row('  of a constant', '.2f', 'constant_half_width')
  row('bad tiles', '.2%', 'tiles', 'bad')
  row('  missed', '.1%', 'tiles', 'missed')
  row('flagged tiles', '.1%', 'tiles', 'flagged')
  return '\n'.join(lines)
