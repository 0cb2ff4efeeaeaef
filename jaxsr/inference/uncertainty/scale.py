"""A scale map of ten numbers: the error that 90 % of the pixels stay below, up to a factor.

The logarithm of the scale is a linear function of the maps. Its ten numbers are fitted to the
errors of films by the pinball loss (Koenker and Bassett, Regression Quantiles, 1978).
"""

import numpy as np
from jaxtyping import Float

from jaxsr.inference.uncertainty import maps

_SMALLEST, _LARGEST = 0.02, 150.0  # gray levels


def fit(
  values: Float[np.ndarray, 'n 10'], errors: Float[np.ndarray, ' n'], *, coverage: float = 0.9
) -> Float[np.ndarray, '10']:
  """Fit the ten numbers to pixels.

  Args:
    values: the maps of each pixel.
    errors: the absolute error of each pixel, in gray levels.
    coverage: the share of the errors that should be below the scale, in (0, 1).

  Returns:
    The coefficients of the maps.
  """
  from scipy import optimize  # here, since only calibrating needs it and it takes long to import

  mean, deviation = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
  mean[0], deviation[deviation < 1e-6] = 0, 1
  standard = ((values - mean) / deviation).astype(np.float64)

  def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the pinball loss and its gradient."""
    scale = np.exp((standard @ numbers).clip(np.log(_SMALLEST), np.log(_LARGEST)))
    apart = errors - scale
    pull = np.where(apart > 0, -coverage, 1 - coverage)
    return float(np.mean(-pull * apart)), standard.T @ (pull * scale) / len(errors)

  start = np.zeros(len(maps.NAMES))
  start[0] = np.log(max(np.quantile(errors, coverage), _SMALLEST))
  found = optimize.minimize(loss, start, jac=True, method='L-BFGS-B').x
  weights = found / deviation
  weights[0] -= np.sum(weights[1:] * mean[1:])
  return weights


def apply(
  weights: Float[np.ndarray, '10'], values: Float[np.ndarray, '*n 10']
) -> Float[np.ndarray, '*n']:
  """Returns the scale of pixels in gray levels, given their maps."""
  logarithm = values @ np.asarray(weights, np.float32)
  return np.exp(logarithm.clip(np.log(_SMALLEST), np.log(_LARGEST)))


def scale_map(
  weights: Float[np.ndarray, '10'], lr: maps.Levels, sr: np.ndarray, scale: int
) -> maps.Plane:
  """Returns the scale of each pixel of an upscaled image, float32 [sh, sw], in gray levels."""
  found = np.empty(sr.shape, np.float32)
  for part in maps.strips(lr, sr, scale):
    found[part.first : part.first + len(part.values)] = apply(weights, part.values)
  return found
