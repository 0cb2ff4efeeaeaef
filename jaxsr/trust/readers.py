"""What a classifier of findings makes of upscaled films, beside the originals and bicubic.

A reader is an ONNX file or a Python function from films, float32 [b, c, h, w] or [b, h, w, c], to
one value per finding. Its config says how films are prepared and which findings it names.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import sparse

from jaxsr.errors import UserError, one_line
from jaxsr.files import sha256

MARGIN = 0.01  # of AUROC that an upscaled film may lose: fixed before any result is seen
LEAST = 20  # positive and negative films for a finding to be measured
RESAMPLES, SEED = 2_000, 0
_CHUNK = 100  # resamples at a time
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
    except Exception as error:  # of somebody else's program
      raise UserError(f'{self.name} fails on float32 {list(x.shape)}: {one_line(error)}') from error
    if found.shape != (1, len(self.findings)):
      raise UserError(
        f'{self.name} returns {list(found.shape)} for one film; its config has '
        f'{len(self.findings)} findings, so [1, {len(self.findings)}] is expected'
      )
    values = found[0].astype(np.float64)
    return values if self.output == 'probability' else 1 / (1 + np.exp(-values))


def load(name: str, config: Path | None) -> Reader:
  """Load a reader: an ONNX file, or `module:function`.

  Args:
    name: the file, or the module and its function.
    config: a JSON file with 'findings' and 'size', and optionally 'channels' (1 or 3), 'layout'
      ('nchw' or 'nhwc'), 'range' ([black, white]) and 'output' ('probability' or 'logit').

  Raises:
    UserError: the reader cannot be loaded, or its config has a mistake.
  """
  if config is None:
    raise UserError(f'--reader {name} needs --reader-config, a JSON file with findings and size')
  settings = _settings(config)
  read, content = _onnx(Path(name)) if name.endswith('.onnx') else _function(name)
  digest = hashlib.sha256(repr((content, sorted(settings.items()))).encode()).hexdigest()[:16]
  return Reader(Path(name).name, digest, read, **settings)


def _settings(path: Path) -> dict[str, Any]:
  try:
    found = _DEFAULTS | json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, TypeError) as error:
    raise UserError(f'{path}: is no JSON object: {one_line(error)}') from error
  for key, kind in _KEYS.items():
    if not isinstance(found.get(key), kind):
      raise UserError(f'{path}: {key} is {found.get(key)!r}; it must be a {kind.__name__}')
  if unknown := sorted(set(found) - set(_KEYS)):
    raise UserError(f'{path}: {unknown[0]} is unknown; the keys are {", ".join(_KEYS)}')
  choices = {'channels': (1, 3), 'layout': ('nchw', 'nhwc'), 'output': ('probability', 'logit')}
  for key, known in choices.items():
    if found[key] not in known:
      raise UserError(f'{path}: {key} is {found[key]!r}; choose {known[0]} or {known[1]}')
  if len(found['range']) != 2 or found['size'] < 1 or not found['findings']:
    raise UserError(f'{path}: range needs two numbers, size 1 or more, findings one name or more')
  return found


def _onnx(path: Path) -> tuple[Read, str]:
  try:
    import onnxruntime
  except ImportError as error:
    raise UserError("an ONNX reader needs: pip install 'jaxsr-xray[reader]'") from error
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
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
    low_side: the shorter side of the smallest low-resolution film, in pixels.

  Returns:
    A row per finding and network: 'auroc', its paired differences to HR and bicubic with 95 %
    intervals of a bootstrap over patients, 'non_inferior' (the interval to HR lies above -0.01),
    the mean change of the probability, the share of decisions that 'flip' at HR's operating point
    (Youden's), and 'informative': whether the reader sees more than the low resolution holds, and
    HR is better than bicubic beyond the interval. Findings with fewer than 20 positive or negative
    films are left out.
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
      row |= {'auroc': point[name], 'auroc_hr': point['HR'], 'auroc_bicubic': point['bicubic']}
      for key, other in (('to_hr', 'HR'), ('to_bicubic', 'bicubic')):
        row[key], row[f'{key}_interval'] = _difference(name, other, point, samples)
      row['hr_to_bicubic'], row['hr_to_bicubic_interval'] = gap, gap_interval
      row['non_inferior'] = row['to_hr_interval'][0] > -MARGIN
      row['change'] = float(np.abs(values[name] - values['HR']).mean())
      row['flips'] = float(((values[name] >= threshold) != (values['HR'] >= threshold)).mean())
      row['informative'] = reader.size > low_side and not gap_interval[0] <= 0 <= gap_interval[1]
      rows.append(row)
  return rows


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
