"""The results of a classifier of findings on upscaled films, beside the originals and bicubic.

A reader is an ONNX file or a Python function from films, float32 [b, c, h, w] or [b, h, w, c], to
one value per finding. Its config says how films are prepared and which findings it names.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import sparse, special

from jaxsr.errors import UserError, one_line
from jaxsr.files import read_json, sha256

MARGIN = 0.01  # of AUROC that an upscaled film may lose: fixed before any result is seen
LEAST = 20  # positive and negative films for a finding to be measured
RESAMPLES, SEED = 2_000, 0
_CHUNK = 100  # resamples at a time
_LARGEST = 8192  # pixels of the side of a reader's input
_ROUNDED = 1e-4  # that a probability may lie outside 0 and 1
_KEYS = {
  'findings': list,
  'size': int,
  'channels': int,
  'layout': str,
  'range': list,
  'output': str,
}
_DEFAULTS = {'channels': 1, 'layout': 'nchw', 'range': [0.0, 1.0], 'output': 'probability'}

Read = Callable[[np.ndarray], Any]


class Reader(NamedTuple):
  """A classifier and how it is called.

  Attributes:
    name: the file or function.
    digest: of the reader and its config.
    read: the classifier.
    findings: the names of its outputs, as NIH's tables have them.
    size: the side of its input in pixels.
    channels: 1 or 3.
    layout: 'nchw' or 'nhwc'.
    range: the values of black and white.
    output: 'probability' or 'logit'.
  """

  name: str
  digest: str
  read: Read
  findings: list[str]
  size: int
  channels: int
  layout: str
  range: list[float]
  output: str

  def __call__(self, film: Float[np.ndarray, 'h w']) -> Float[np.ndarray, ' findings']:
    """Returns the probability of each finding in a film in [0, 1]."""
    plane = Image.fromarray(film.astype(np.float32))
    small = plane.resize((self.size, self.size), Image.Resampling.BILINEAR)
    black, white = self.range
    x = np.repeat(np.asarray(small)[..., None] * (white - black) + black, self.channels, axis=-1)
    x = x[None].astype(np.float32)
    x = x if self.layout == 'nhwc' else x.transpose(0, 3, 1, 2)
    try:
      found = np.asarray(self.read(x))
      if found.dtype.kind in 'cSU':
        raise TypeError(f'it returns {found.dtype}, not real numbers')
      values = found.astype(np.float64)
    except (Exception, SystemExit) as error:  # of somebody else's program
      raise UserError(f'{self.name} fails on float32 {list(x.shape)}: {one_line(error)}') from error
    if values.shape != (1, len(self.findings)):
      raise UserError(
        f'{self.name} returns {list(values.shape)} for one film; its config has '
        f'{len(self.findings)} findings, so [1, {len(self.findings)}] is expected'
      )
    for finding, value in zip(self.findings, values[0], strict=True):
      if not np.isfinite(value):
        raise UserError(f'{self.name} returns {value} for {finding}; a number is expected')
      if self.output == 'probability' and not -_ROUNDED <= value <= 1 + _ROUNDED:
        raise UserError(
          f'{self.name} returns {value:g} for {finding}, which is no probability; if the output is '
          "not between 0 and 1, set 'output': 'logit' in its config"
        )
    return values[0] if self.output == 'probability' else special.expit(values[0])


def load(name: str, config: Path | None) -> Reader:
  """Load a reader: an ONNX file, or `module:function`.

  Args:
    name: the file, or the module and its function.
    config: a JSON file with 'findings' and 'size', and optionally 'channels' (1 or 3), 'layout'
      ('nchw' or 'nhwc'), 'range' ([black, white]) and 'output' ('probability' or 'logit').

  Raises:
    UserError: the reader cannot be loaded, its config has a mistake, or it fails on a gray film.
  """
  if config is None:
    raise UserError(f'--reader {name} needs --reader-config, a JSON file with findings and size')
  settings = _settings(config)
  read, content = _onnx(Path(name)) if name.endswith('.onnx') else _function(name)
  digest = hashlib.sha256(repr((content, sorted(settings.items()))).encode()).hexdigest()[:16]
  reader = Reader(Path(name).name, digest, read, **settings)
  reader(np.full((settings['size'],) * 2, 0.5))  # fails now, not after an hour
  return reader


def _settings(path: Path) -> dict[str, Any]:
  try:
    given = read_json(path)
  except ValueError as error:
    raise UserError(f'{path}: is no JSON: {one_line(error)}') from error
  if not isinstance(given, dict):
    raise UserError(f'{path}: is no JSON object with findings and size but {given!r:.40}')
  found = _DEFAULTS | given
  for key, kind in _KEYS.items():
    if not isinstance(found.get(key), kind) or found[key] is True:
      raise UserError(f'{path}: {key} is {found.get(key)!r}; it must be a {kind.__name__}')
  if unknown := sorted(set(found) - set(_KEYS)):
    raise UserError(f'{path}: {unknown[0]} is unknown; the keys are {", ".join(_KEYS)}')
  choices = {'channels': (1, 3), 'layout': ('nchw', 'nhwc'), 'output': ('probability', 'logit')}
  for key, known in choices.items():
    if found[key] not in known:
      raise UserError(f'{path}: {key} is {found[key]!r}; choose {known[0]} or {known[1]}')
  names, ends = found['findings'], found['range']
  if not names or not all(isinstance(name, str) and name for name in names):
    raise UserError(f'{path}: findings is {names!r}; it must have one name or more')
  if len(set(names)) < len(names):
    raise UserError(f'{path}: findings is {names!r}; each name must occur once')
  if len(ends) != 2 or not all(type(end) in (int, float) for end in ends) or ends[0] == ends[1]:
    raise UserError(f'{path}: range is {ends!r}; it must have the values of black and white')
  if found['size'] not in range(1, _LARGEST + 1):
    raise UserError(f'{path}: size is {found["size"]}; it must be from 1 to {_LARGEST}')
  return found


def _onnx(path: Path) -> tuple[Read, str]:
  try:
    import onnxruntime
  except ImportError as error:
    raise UserError("an ONNX reader needs: pip install 'jaxsr-xray[reader]'") from error
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; its log would add lines of its own
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
  except Exception as error:  # its errors share no class of their own
    raise UserError(f'{path}: is no ONNX model: {one_line(error)}') from error
  source = session.get_inputs()[0].name
  return lambda x: session.run(None, {source: x})[0], sha256(path)


def _function(name: str) -> tuple[Read, str]:
  """Returns a function of a module that is installed or in the current folder, and its digest."""
  module, _, function = name.partition(':')
  if '' not in sys.path:  # as for `python -m`, but not for installed commands
    sys.path.append('')
  try:
    loaded = importlib.import_module(module)
    found = getattr(loaded, function)
  except (ImportError, AttributeError, ValueError) as error:
    reason = f'is neither an ONNX file nor module:function ({one_line(error)})'
    raise UserError(f'--reader {name}: {reason}') from error
  except Exception as error:  # of somebody else's program
    raise UserError(f'--reader {name}: {module} fails: {one_line(error)}') from error
  if not callable(found):
    raise UserError(f'--reader {name}: {function} is no function but {found!r:.40}')
  file = getattr(loaded, '__file__', None)
  return found, name + (sha256(Path(file)) if file else '')


def auroc(
  scores: Float[np.ndarray, ' n'],
  positive: Bool[np.ndarray, ' n'],
  weights: Float[np.ndarray, 'b n'],
) -> Float[np.ndarray, ' b']:
  """Compute the area under the ROC curve for several weightings of the films; ties count half."""
  _, group = np.unique(scores, return_inverse=True)
  places = np.arange(len(group))
  of_group = sparse.csr_array((np.ones(len(group)), (places, group)))
  negatives = (weights * ~positive) @ of_group
  below = np.cumsum(negatives, axis=1) - negatives / 2
  wins = (weights * positive * below[:, group]).sum(1)
  total = (weights * positive).sum(1) * (weights * ~positive).sum(1)
  return np.divide(wins, total, out=np.full(len(wins), np.nan), where=total > 0)


def compare(
  scores: Mapping[str, Float[np.ndarray, 'n findings']],
  labels: Sequence[set[str]],
  patients: Sequence[str],
  reader: Reader,
  *,
  low_side: int,
) -> list[dict[str, Any]]:
  """Compare a reader's results on networks' images with those on HR and on bicubic's.

  Args:
    scores: probabilities by the names of networks; 'HR' and 'bicubic' are among them.
    labels: the findings of each film.
    patients: of each film.
    reader: the reader.
    low_side: the shorter side of the low-resolution films, in pixels; the median.

  Returns:
    A row per finding and network: 'auroc', its paired differences to HR and bicubic with 95 %
    intervals of a bootstrap over patients, 'non_inferior' (the interval to HR lies above -0.01),
    the mean change of the probability, the share of decisions that 'flip' at HR's operating point
    (Youden's), and 'informative': whether the reader sees more than the low resolution holds, and
    HR is better than bicubic beyond the interval; 'verdict' says the same in words. Findings with
    fewer than 20 positive or negative films are left out.
  """
  _, who = np.unique(patients, return_inverse=True)
  count = int(who.max()) + 1
  drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)[
    :, who
  ]
  rows = []
  for i, finding in enumerate(reader.findings):
    positive = np.array([finding in found for found in labels])
    if min(positive.sum(), (~positive).sum()) < LEAST:
      continue
    values = {name: found[:, i] for name, found in scores.items()}
    point = {n: float(auroc(x, positive, np.ones((1, len(x))))[0]) for n, x in values.items()}
    samples = {n: _bootstrap(x, positive, drawn) for n, x in values.items()}
    gap, gap_interval = _difference('HR', 'bicubic', point, samples)
    threshold = _youden(values['HR'], positive)
    for name in values:
      if name == 'HR':
        continue
      row: dict[str, Any] = {'reader': reader.name, 'finding': finding, 'network': name}
      row |= {'positive': int(positive.sum()), 'negative': int((~positive).sum())}
      row |= {'size': reader.size, 'low_side': low_side}
      row |= {'auroc': point[name], 'auroc_hr': point['HR'], 'auroc_bicubic': point['bicubic']}
      for key, other in (('to_hr', 'HR'), ('to_bicubic', 'bicubic')):
        row[key], row[f'{key}_interval'] = _difference(name, other, point, samples)
      row['hr_to_bicubic'], row['hr_to_bicubic_interval'] = gap, gap_interval
      row['non_inferior'] = row['to_hr_interval'][0] > -MARGIN
      row['change'] = float(np.abs(values[name] - values['HR']).mean())
      row['flips'] = float(((values[name] >= threshold) != (values['HR'] >= threshold)).mean())
      row['informative'] = reader.size > low_side and gap_interval[0] > 0
      row['verdict'] = _verdict(row)
      rows.append(row)
  return rows


def _verdict(row: Mapping[str, Any]) -> str:
  if row['size'] <= row['low_side']:
    reason = f'its input has {row["size"]} pixels, the low resolution {row["low_side"]}'
  elif not row['informative']:
    reason = 'HR is not better than bicubic'
  else:
    return 'not inferior' if row['non_inferior'] else 'not shown'
  return f'not informative: {reason}'


def left_out(labels: Sequence[set[str]], reader: Reader) -> dict[str, tuple[int, int]]:
  """Returns the numbers of positive and negative films of findings that are not measured."""
  positive = {finding: sum(finding in found for found in labels) for finding in reader.findings}
  counts = {finding: (n, len(labels) - n) for finding, n in positive.items()}
  return {finding: found for finding, found in counts.items() if min(found) < LEAST}


def _bootstrap(scores: np.ndarray, positive: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  parts = [drawn[i : i + _CHUNK].astype(float) for i in range(0, len(drawn), _CHUNK)]
  return np.concatenate([auroc(scores, positive, part) for part in parts])


def _difference(
  one: str, other: str, point: Mapping[str, float], samples: Mapping[str, np.ndarray]
) -> tuple[float, list[float]]:
  ends = np.nanpercentile(samples[one] - samples[other], (2.5, 97.5))
  return point[one] - point[other], [float(x) for x in ends]


def _youden(scores: np.ndarray, positive: np.ndarray) -> float:
  """Returns the threshold with the largest sum of sensitivity and specificity."""
  known = np.unique(scores)
  above = scores[None] >= known[:, None]
  return float(known[(above[:, positive].mean(1) - above[:, ~positive].mean(1)).argmax()])
