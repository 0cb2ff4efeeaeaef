"""Linear observers of lesions, and the area under their ROC curves.

A channelized Hotelling observer sees an image through a few channels that fit the lesion. Its
template is the best linear one for the covariance of the channels. Present and absent images show
the same places, so that differences between networks are paired.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from scipy import special

from jaxsr.trust.lesions import ANGLE, LENGTH, Lesion

ROI = 64  # pixels of the side that the observer sees
CHANNELS = 9  # at most
RESAMPLES, SEED = 1_000, 0
FALSE_ALARMS = 0.05  # of the observer of HR, at its threshold
_RIDGE = 1e-4  # of the mean variance, added to the covariance

Values = Float[np.ndarray, 'places channels']
Scores = Float[np.ndarray, ' places']


def look(images: Float[np.ndarray, 'n side side'], lesion: Lesion) -> Float[np.ndarray, 'n m']:
  """Returns the channels' outputs at the centers of crops."""
  return roi(images).reshape(len(images), -1) @ channels(lesion)


def roi(images: Float[np.ndarray, 'n side side']) -> Float[np.ndarray, 'n roi roi']:
  """Returns the centers of crops."""
  start = images.shape[1] // 2 - ROI // 2
  return images[:, start : start + ROI, start : start + ROI]


@functools.cache
def channels(lesion: Lesion) -> Float[np.ndarray, 'pixels m']:
  """Returns the channels: Laguerre-Gauss for balls, Hermite-Gauss across the line for lines."""
  y, x = np.mgrid[:ROI, :ROI] - ROI / 2
  found = []
  if lesion.kind == 'line':
    along = x * np.cos(ANGLE) + y * np.sin(ANGLE)
    across = y * np.cos(ANGLE) - x * np.sin(ANGLE)
    ends = 1 / (1 + np.exp((np.abs(along) - LENGTH / 2) / 1.5))
    for width in (0.9, 1.8, 3.6):
      for n in (0, 2, 4):
        wave = special.eval_hermite(n, across / width) / math.sqrt(2.0**n * math.factorial(n))
        found.append(np.exp(-(across**2) / (2 * width**2)) * wave * ends)
  else:
    radius = np.hypot(y, x)
    for width in (1.2 * max(lesion.size, 4), 2.4 * max(lesion.size, 4)):
      for n in range(4):
        wave = special.eval_laguerre(n, 2 * np.pi * radius**2 / width**2)
        found.append(np.exp(-np.pi * radius**2 / width**2) * wave)
  flat = np.stack([each.ravel() for each in found], axis=1)
  return flat / np.linalg.norm(flat, axis=0)


def template(present: Values, absent: Values) -> Float[np.ndarray, ' channels']:
  """Compute the Hotelling template of channel outputs with and without the lesion."""
  covariance = (np.cov(present.T) + np.cov(absent.T)) / 2
  covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
  return np.linalg.solve(covariance, present.mean(0) - absent.mean(0))


def cross_scores(
  present: Values, absent: Values, patients: Integer[np.ndarray, ' places']
) -> tuple[Scores, Scores]:
  """Score each half of the patients with the template of the other half.

  Args:
    present: channel outputs of the places with the lesion.
    absent: the same without it.
    patients: the number of each place's patient.

  Returns:
    The scores of both, in standard deviations of the half's scores without the lesion.
  """
  scores = np.zeros(len(present)), np.zeros(len(absent))
  for half in (0, 1):
    train, test = patients % 2 == half, patients % 2 != half
    weights = template(present[train], absent[train])
    found = [values[test] @ weights for values in (present, absent)]
    mean, spread = found[1].mean(), max(found[1].std(), 1e-12)
    for score, value in zip(scores, found, strict=True):
      score[test] = (value - mean) / spread
  return scores


class Auc:
  """The area under the ROC curve of scores, and its bootstrap over patients.

  Bootstraps of the same patients draw the same samples, so that differences of two are paired.
  """

  def __init__(self, present: Scores, absent: Scores, patients: Integer[np.ndarray, ' places']):
    wins = np.sign(np.subtract.outer(present, absent)) / 2 + 0.5
    groups = np.eye(int(patients.max()) + 1)[patients]
    counts = groups.sum(0)
    self.value = float(wins.mean())
    drawn = np.random.default_rng(SEED).multinomial(
      len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES
    )
    total = np.maximum(drawn @ counts, 1) ** 2
    self.samples = np.einsum('bi,ij,bj->b', drawn, groups.T @ wins @ groups, drawn) / total

  def interval(self) -> list[float]:
    """Returns the 95 % interval."""
    return interval(self.samples)

  def difference(self, other: 'Auc') -> tuple[float, list[float]]:
    """Returns the paired difference to another observer, with its 95 % interval."""
    return self.value - other.value, interval(self.samples - other.samples)


def interval(samples: Sequence[float] | np.ndarray) -> list[float]:
  """Returns the central 95 % of samples."""
  return [float(x) for x in np.percentile(samples, (2.5, 97.5))]


def fixed(present: Values, absent: Values, reference: tuple[Values, Values]) -> tuple[float, float]:
  """Returns the hits and false alarms of the observer that was trained on HR.

  Args:
    present: channel outputs of a network's images with the lesion.
    absent: the same without it.
    reference: both of HR, from which template and threshold come.
  """
  weights = template(*reference)
  threshold = np.quantile(reference[1] @ weights, 1 - FALSE_ALARMS)
  hits, false_alarms = (float((x @ weights > threshold).mean()) for x in (present, absent))
  return hits, false_alarms
