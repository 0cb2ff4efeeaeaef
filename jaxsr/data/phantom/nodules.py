"""Lung nodules: their positions and shadows."""

import dataclasses

import numpy as np

from jaxsr.data.phantom.patient import SOFT, Patient


@dataclasses.dataclass(frozen=True)
class Nodule:
  """A round lung nodule, in pixels of the rendered image."""

  row: float
  column: float
  radius: float
  contrast: float  # peak attenuation added, dimensionless


def draw_nodules(patient: Patient, size: int, count: int | None) -> tuple[Nodule, ...]:
  """Returns the nodules of a film; a `count` of None draws their number."""
  if count is None:
    count = int(patient.stream('count').choice(4, p=(0.7, 0.17, 0.09, 0.04)))
  rng = patient.stream('nodules')
  return tuple(_draw_nodule(patient, rng, size) for _ in range(count))


def _draw_nodule(patient: Patient, rng: np.random.Generator, size: int) -> Nodule:
  """Returns a nodule in one of the lungs, away from the heart and the wall."""
  side = rng.choice((-1, 1))
  v = rng.uniform(0.15, 0.9)
  inner = 0.35 if side < 0 else 0.35 + 0.3 * max(0, v - 0.5)
  outer = np.interp(v, (0, 0.2, 0.4, 0.9), (0.45, 0.62, 0.75, 0.88))
  x, y = patient.to_film((side * rng.uniform(inner, outer), v))
  radius = np.exp(rng.uniform(np.log(0.0085), np.log(0.025)))
  contrast = rng.uniform(0.6, 1.2) * np.clip(2 * radius * SOFT, 0.1, 0.3)
  return Nodule(float(y * size - 0.5), float(x * size - 0.5), float(radius * size), float(contrast))


def add_nodule(canvas: np.ndarray, nodule: Nodule) -> None:
  """Add the smooth shadow of a ball, which ends at 1.5 radii, to the attenuation."""
  size, reach = len(canvas), 1.5 * nodule.radius
  r0, r1 = (int(np.clip(nodule.row + s * reach + 1, 0, size)) for s in (-1, 1))
  c0, c1 = (int(np.clip(nodule.column + s * reach + 1, 0, size)) for s in (-1, 1))
  row, column = np.ogrid[r0:r1, c0:c1]
  rest = np.hypot(row - nodule.row, column - nodule.column) / nodule.radius
  canvas[r0:r1, c0:c1] += nodule.contrast * np.clip(1 - (rest / 1.5) ** 2, 0, None) ** 1.5
