"""The thorax: the sum of all organs, and the soft tissues of the trunk."""

import numpy as np

from jaxsr.data.phantom.bones import add_bone, add_chin, add_ribs, add_shoulders, add_spine
from jaxsr.data.phantom.devices import add_devices
from jaxsr.data.phantom.draw import chord, dome, inside, jitter, smooth, tube
from jaxsr.data.phantom.lungs import add_airway, add_hila, air, haze, texture
from jaxsr.data.phantom.patient import Patient
from jaxsr.data.phantom.vessels import vessels

# fmt: off
_TRUNK = np.array([  # the left side
  (0.34, -0.5), (0.31, -0.25), (0.36, -0.14), (0.7, -0.06), (1.05, -0.01), (1.36, 0.06),
  (1.48, 0.2), (1.34, 0.45), (1.23, 0.65), (1.21, 0.9), (1.23, 1.2), (1.28, 2.0)])
# fmt: on


def thorax(patient: Patient, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the attenuation of all organs and the share of air from 0 to 1, both [size, size]."""
  u, v = patient.grid(size)
  body = dome(inside(_trunk_outline(patient), size), 0.13) ** 0.7
  lung = air(patient, size)
  clouds = texture(patient, size)
  canvas = patient.thickness * body * (0.86 + 0.14 * np.clip(v, 0, 1.2))
  canvas -= 0.6 * patient.thickness * lung
  canvas += lung**0.5 * (vessels(patient, size) + haze(patient, clouds))
  canvas += 0.08 * body * clouds
  add_hila(patient, canvas)
  _add_arms(patient, canvas)
  _add_breasts(patient, canvas, u, v)
  _add_gas(patient, canvas, u, v)
  add_airway(patient, canvas)
  add_spine(patient, canvas, u, v)
  add_ribs(patient, canvas)
  add_shoulders(patient, canvas)
  add_chin(patient, canvas)
  add_devices(patient, canvas)
  return np.maximum(canvas, 0), lung


def _trunk_outline(patient: Patient) -> np.ndarray:
  rng = patient.stream('trunk')
  girth = 1 + abs(rng.normal(0.02, 0.08))
  right, left = (jitter(rng, _TRUNK, 0.012) * (girth, 1) for _ in range(2))
  outline = np.concatenate([left, (right * (-1, 1))[::-1]])
  return patient.to_film(smooth(outline, 140, closed=True))


def _add_arms(patient: Patient, canvas: np.ndarray) -> None:
  """Add the arms beside the trunk, more or less abducted, each with its humerus."""
  rng = patient.stream('arms')
  for side in (-1, 1):
    out = rng.uniform(0.1, 0.7) * (0.5 if patient.portable else 1)
    path = np.array([(1.22, 0.12), (1.36 + out / 3, 0.4), (1.42 + out, 1.3)]) * (side, 1)
    line = patient.to_film(smooth(path, 24))
    radius = rng.uniform(0.055, 0.08)
    tube(canvas, line, radius, lambda d, t, r=radius: 9 * chord(d, r))
    add_bone(canvas, line, 0.03, 0.026, 1.0)


def _add_breasts(patient: Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Add breast shadows with a soft lower edge in a share of the patients."""
  rng = patient.stream('breasts')
  weight = float(rng.choice([0, 0.15, 0.3, 0.55], p=(0.45, 0.2, 0.2, 0.15)))
  if not weight:
    return
  droop, width = rng.uniform(0.8, 1.1), rng.uniform(0.4, 0.55)
  for side in (-1, 1):
    across, down = (u - side * rng.normal(0.72, 0.04)) / width, (v - droop + 0.15) / 0.3
    reach = np.sqrt(across**2 + np.where(down > 0, down, down * 0.4) ** 2)
    canvas += weight * dome(1 - reach, 0.9) * np.clip(canvas, 0, 1)


def _add_gas(patient: Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Add the stomach bubble and a few loops of bowel under the left dome."""
  rng = patient.stream('gas')
  size = len(canvas)
  top = min(patient.top + patient.height - 0.06, 0.99)
  cut = np.s_[int(top * size) :, int(0.3 * size) :]
  u, v = u[cut], v[cut]
  for number in range(rng.integers(1, 6)):
    cu, cv = rng.normal(0.45, 0.16), 1.2 + abs(rng.normal(0, 0.12)) * (number > 0)
    a, b, turn = rng.uniform(0.06, 0.2), rng.uniform(0.04, 0.1), rng.normal(0, 0.5)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    du, dv = u - cu, (v - cv) * (patient.height / patient.width)
    along, across = du * c + dv * s, dv * c - du * s
    fold = 0.12 * np.sin(along * rng.uniform(15, 40)) + 0.1 * np.sin(across * 30)
    reach = np.sqrt((along / a) ** 2 + (across / b) ** 2)
    canvas[cut] -= rng.uniform(0.15, 0.8) * dome(1 + fold - reach, 0.8)
