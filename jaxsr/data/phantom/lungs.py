"""The lungs: outlines and air, hila and airway, texture and haze."""

import numpy as np
from scipy import ndimage

from jaxsr.data.phantom.draw import bell, chord, dense, dome, enlarge, inside, jitter, smooth, tube
from jaxsr.data.phantom.patient import Patient

# fmt: off
_RIGHT_LUNG = np.array([
  (-0.13, 0.10), (-0.24, 0.01), (-0.40, -0.01), (-0.58, 0.06), (-0.73, 0.19), (-0.84, 0.37),
  (-0.93, 0.60), (-0.98, 0.85), (-1.0, 1.06), (-0.985, 1.10), (-0.92, 1.06), (-0.78, 1.01),
  (-0.55, 0.985), (-0.33, 1.005), (-0.17, 1.06), (-0.06, 0.95), (-0.05, 0.5)])
_LEFT_LUNG = np.array([
  (0.13, 0.10), (0.24, 0.01), (0.40, -0.01), (0.58, 0.06), (0.73, 0.19), (0.84, 0.37),
  (0.93, 0.60), (0.98, 0.85), (0.99, 1.09), (0.975, 1.13), (0.90, 1.09), (0.76, 1.045),
  (0.55, 1.03), (0.33, 1.06), (0.15, 1.1), (0.05, 0.95), (0.05, 0.5)])
_MEDIASTINUM = np.array([
  (-0.2, -0.2), (-0.17, 0.02), (-0.17, 0.2), (-0.15, 0.38), (-0.17, 0.5), (-0.25, 0.66),
  (-0.28, 0.82), (-0.23, 0.98), (-0.15, 1.15), (0.1, 1.25), (0.46, 1.14), (0.585, 1.02),
  (0.57, 0.9), (0.46, 0.74), (0.33, 0.58), (0.23, 0.46), (0.17, 0.40), (0.22, 0.35),
  (0.235, 0.29), (0.20, 0.235), (0.15, 0.17), (0.16, 0.02), (0.2, -0.2)])
# fmt: on


def air(patient: Patient, size: int) -> np.ndarray:
  """Returns the share of air along each ray: both lungs without the mediastinum."""
  right, left = (inside(outline, size) for outline in _lung_outlines(patient))
  middle = inside(_mediastinum_outline(patient), size)
  return dome(np.maximum(right, left), 0.09) ** 0.6 * (1 - 0.95 * dome(middle, 0.09))


def _lung_outlines(patient: Patient) -> list[np.ndarray]:
  """Returns the outlines of both lungs; the domes differ between patients."""
  rng = patient.stream('lungs')
  flat, blunt = rng.normal(0, 0.02), max(0, rng.normal(0, 0.06))
  outlines = []
  for points in (_RIGHT_LUNG, _LEFT_LUNG):
    points = jitter(rng, points, 0.006)
    points[10:14, 1] += flat + rng.normal(0, 0.012)
    points[8:15, 1] -= abs(rng.normal(0, 0.05)) * (rng.random() < 0.5)  # a raised dome
    points[8:10, 1] -= blunt * (rng.random() < 0.4)
    outlines.append(patient.to_film(smooth(points, 96, closed=True)))
  return outlines


def _mediastinum_outline(patient: Patient) -> np.ndarray:
  rng = patient.stream('mediastinum')
  points = jitter(rng, _MEDIASTINUM, 0.011)
  points[4:17, 0] *= patient.heart
  points[17:20, 0] += rng.normal(0.02, 0.025)  # the aortic knob unfolds with age
  points[[1, 2, 3, 20, 21], 0] *= rng.uniform(0.9, 1.3) * (1.15 if patient.portable else 1)
  points[:, 0] += patient.turn
  return patient.to_film(smooth(points, 96, closed=True))


def texture(patient: Patient, size: int) -> np.ndarray:
  """Returns a cloudy field of unit scale, the sum of octaves of noise on their own grids."""
  rng = patient.stream('texture')
  total = np.zeros((8, 8), np.float32)
  for grid in (8, 16, 32, 64, 128, 256):
    total = enlarge(total, grid) + rng.standard_normal((grid, grid)) * (8 / grid) ** 0.75
  return enlarge(total, size)


def haze(patient: Patient, clouds: np.ndarray) -> np.ndarray:
  """Returns a light haze in the lungs, with dense patches on some films."""
  rng = patient.stream('haze')
  fog = np.zeros((32, 32))
  if rng.random() < (0.6 if patient.portable else 0.25):
    fog = ndimage.gaussian_filter(rng.standard_normal((32, 32)), 2.5) * rng.uniform(2, 6)
  fog = enlarge(np.maximum(fog, 0), len(clouds))
  return rng.uniform(0.12, 0.3) * clouds + fog * (0.5 + 0.2 * clouds)


def add_hila(patient: Patient, canvas: np.ndarray) -> None:
  """Add the hila: arteries, bronchi and nodes that merge into one shadow."""
  rng = patient.stream('hila')
  for side in (-1, 1):
    weight = rng.uniform(0.25, 0.6)
    for _ in range(4):
      spot = (side * rng.normal(0.25, 0.035) + patient.turn, rng.normal(0.5 - 0.02 * side, 0.06))
      path = patient.to_film(spot + rng.normal(0, (0.03, 0.06), (2, 2)))
      tube(canvas, dense(path), 0.03, lambda d, t, w=weight: w * bell(d, 0.011))


def add_airway(patient: Patient, canvas: np.ndarray) -> None:
  """Add the air of the trachea and the two main bronchi."""
  shift = patient.turn
  carina = (0.02 + shift, 0.37)
  for points, radius in (
    ([(shift, -0.35), (shift * 0.8, 0.05), carina], 0.024),
    ([carina, (-0.12, 0.46), (-0.2, 0.52)], 0.014),
    ([carina, (0.15, 0.48), (0.24, 0.53)], 0.012),
  ):
    line = patient.to_film(smooth(points, 16))
    tube(
      canvas, line, radius, lambda d, t, r=radius: -28 * chord(d, r) * np.minimum(1, 6 * (1 - t))
    )
