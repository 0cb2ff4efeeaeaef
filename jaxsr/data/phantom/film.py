"""From attenuation to film: scatter, exposure, display curve and the edges of the film."""

import numpy as np
from scipy import ndimage

from jaxsr.data.phantom.draw import centers, enlarge
from jaxsr.data.phantom.patient import Patient


def scatter(patient: Patient, attenuation: np.ndarray) -> np.ndarray:
  """Returns the scattered intensity [size, size]: wide, and strongest behind thick tissue."""
  size = len(attenuation)
  step = 8 if size >= 512 else 4
  small = attenuation[step // 2 :: step, step // 2 :: step]
  source = np.exp(-small) * np.minimum(small, 2)
  wide = ndimage.gaussian_filter(source, 0.07 * len(small), mode='nearest')
  return (0.6 if patient.portable else 0.4) * enlarge(wide, size)


def window(
  patient: Patient, attenuation: np.ndarray, lung: np.ndarray, scattered: np.ndarray
) -> tuple[float, float]:
  """Returns center and width of the display curve, from the levels of lung and soft tissue."""
  rng = patient.stream('display')
  sparse = (slice(None, None, len(lung) // 64),) * 2
  depth = -np.log(np.exp(-attenuation[sparse]) + scattered[sparse])
  dark, light = np.median(depth[lung[sparse] > 0.7]), np.percentile(depth, 90)
  low, high = rng.normal(0.33, 0.12), rng.normal(0.82, 0.08)
  low, high = (np.log(g / (1 - g)) for g in (np.clip(low, 0.14, 0.55), np.clip(high, 0.65, 0.92)))
  width = (light - dark) / (high - low)
  return float(dark - low * width), float(width)


def expose(patient: Patient, attenuation: np.ndarray, scattered: np.ndarray) -> np.ndarray:
  """Returns the detected intensity: beam with heel effect, detector blur and quantum noise."""
  rng = patient.stream('noise')
  size = len(attenuation)
  ramp = np.linspace(-1, 1, size, dtype=np.float32)
  beam = 1 + rng.normal(0, 0.04) * ramp[:, None] + rng.normal(0, 0.03) * ramp[None]
  image = beam * (np.exp(-attenuation) + scattered)
  blur = rng.uniform(0.4, 0.7) * size / 1024
  image = ndimage.gaussian_filter(image, blur, truncate=3.0) if blur > 0.2 else image
  dose = float(np.exp(rng.normal(np.log(3e5), 0.9)))
  grain = rng.standard_normal((size, size), dtype=np.float32)
  return np.maximum(image + np.sqrt(image / dose) * grain, 1e-5)


def display(
  patient: Patient, intensity: np.ndarray, center_and_width: tuple[float, float]
) -> np.ndarray:
  """Returns gray levels from 0 to 1: logarithm, edge enhancement and sigmoid."""
  rng = patient.stream('enhance')
  center, width = center_and_width
  depth = -np.log(intensity)
  depth += rng.uniform(0.3, 1.4) * (depth - _blurred(depth, rng.uniform(0.003, 0.005)))
  return 1 / (1 + np.exp((center - depth) / width))


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
  """Returns a Gaussian blur; sigma in film units, on a grid of 256 for larger images."""
  size = len(image)
  step = max(1, size // 256) if size % 256 == 0 else 1
  small = image.reshape(size // step, step, -1, step).mean((1, 3))
  return enlarge(ndimage.gaussian_filter(small, sigma * size / step, truncate=3.0), size)


def frame(patient: Patient, film: np.ndarray) -> np.ndarray:
  """Returns the film with dark or bright margins, from a slightly rotated collimator."""
  rng = patient.stream('border')
  size = len(film)
  black, sine = rng.random() < 0.85, float(np.sin(np.radians(rng.normal(0, 0.8))))
  level = rng.uniform(0, 0.04) if black else rng.uniform(0.92, 1)
  soft = float(rng.choice((1.2, 3.0, 12.0), p=(0.65, 0.25, 0.1))) / 1024
  margins = rng.gamma(1.2, 0.018, 4) * (rng.random(4) < rng.choice((0, 0.4, 0.8))) - 0.02
  axis = (centers(size) - 0.5).astype(np.float32)
  opening = np.ones_like(film)
  for number, margin in enumerate(margins.tolist()):
    along, across = (axis[None], axis[:, None])[:: 1 if number % 2 else -1]
    depth = 0.48 - margin + (-1) ** (number // 2) * (along * sine + across)
    if margin > -0.02:
      opening *= np.clip(0.5 + depth / max(soft, 1 / size), 0, 1)
  return film * opening + np.float32(level) * (1 - opening)
