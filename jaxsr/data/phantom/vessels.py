"""The vessels of the lungs: trees that fork by Murray's law, and the mesh between them.

Branches are line segments: start and stop [n, 2] as film points, radius [n] in film units.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from jaxsr.data.phantom.draw import enlarge
from jaxsr.data.phantom.patient import SOFT, Patient


def vessels(patient: Patient, size: int) -> np.ndarray:
  """Returns the attenuation of the vessel trees of both lungs and of the mesh between them.

  Each segment is drawn at a resolution that fits its radius, from coarse to fine.
  """
  rng = patient.stream('vessels')
  strength = rng.uniform(1.9, 3.3)
  parts = _join([*(_tree(rng, patient, side) for side in (-1, 1)), _mesh(rng, patient)])
  start, stop, radius = (part.astype(np.float32) for part in parts)
  level = np.clip(np.floor(np.log2(radius * size + 1e-9)), 0, 3).astype(int)
  total = np.zeros((size // 8, size // 8), np.float32)
  for step in (3, 2, 1, 0):
    chosen = level == step
    total = enlarge(total, size >> step)
    total += _splat(start[chosen], stop[chosen], radius[chosen], size >> step)
    total = ndimage.gaussian_filter(total, 0.6, truncate=3.5)
  return strength * total


def _join(pieces: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
  return tuple(np.concatenate(part) for part in zip(*pieces, strict=True))


def _tree(rng: np.random.Generator, patient: Patient, side: int) -> tuple[np.ndarray, ...]:
  """Returns the vessels of one lung, grown from its hilum generation by generation."""
  count = 18
  fan = np.linspace(-1.6, 1.6, count)
  place = rng.normal((side * 0.24 + patient.turn, 0.52 - 0.02 * side), (0.02, 0.03), (count, 2))
  place = patient.to_film(place + np.stack([0 * fan, 0.07 * fan], -1))
  angle = fan + rng.normal(0, 0.2, count)
  radius = rng.uniform(0.005, 0.012, count)
  pieces = []
  for _ in range(7):
    for _ in range(6):
      stride = (0.5 * radius + 0.0028)[:, None] * rng.uniform(0.7, 1.6, (len(radius), 1))
      angle = angle + rng.normal(0, 0.16, len(angle))
      stop = place + stride * np.stack([side * np.cos(angle), np.sin(angle)], -1)
      pieces.append((place, stop, radius))
      place, radius = stop, radius * 0.985
    place, angle, radius = _fork(rng, place, angle, radius)
  return _join(pieces)


def _fork(
  rng: np.random.Generator, place: np.ndarray, angle: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Split each branch in two; the cubes of their radii add up to its cube (Murray, 1926)."""
  share = rng.uniform(0.25, 0.75, len(radius))
  split = rng.uniform(0.35, 1.0, len(radius))
  angle = np.concatenate([angle + split * (1 - share), angle - split * share])
  radius = np.concatenate([radius * np.cbrt(share), radius * np.cbrt(1 - share)])
  return np.concatenate([place, place]), angle, radius


def _mesh(rng: np.random.Generator, patient: Patient) -> tuple[np.ndarray, ...]:
  """Returns short fine fibers over the chest, the interstitium between the trees."""
  count = 9000
  place = patient.to_film(rng.uniform((-1, -0.05), (1, 1.15), (count, 2)))
  angle = rng.uniform(0, 2 * np.pi, count)
  radius = 0.0006 + rng.exponential(0.0008, count)
  pieces = []
  for _ in range(3):
    angle = angle + rng.normal(0, 0.5, count)
    stop = place + 0.0045 * np.stack([np.cos(angle), np.sin(angle)], -1)
    pieces.append((place, stop, radius))
    place = stop
  return _join(pieces)


def _splat(start: np.ndarray, stop: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
  """Returns cylinders of soft tissue, distributed bilinearly to pixels with their mass kept."""
  x, y, mass = _beads(start, stop, radius, size)
  column, row = np.floor(x), np.floor(y)
  keep = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < size - 1)
  x, y, mass, column, row = (part[keep] for part in (x, y, mass, column, row))
  fx, fy, corner = x - column, y - row, row.astype(int) * size + column.astype(int)
  gx, gy = 1 - fx, 1 - fy
  parts = ((0, gx * gy), (1, fx * gy), (size, gx * fy), (size + 1, fx * fy))
  total = sum(np.bincount(corner + shift, mass * part, size * size) for shift, part in parts)
  return np.asarray(total, np.float32).reshape(size, size)


def _beads(
  start: np.ndarray, stop: np.ndarray, radius: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns points along cylinders, at most 1.25 pixels apart: x, y in pixels, and mass."""
  step = (stop - start) * size
  length = np.hypot(step[:, 0], step[:, 1])
  count = np.ceil(0.8 * length).astype(int) + 1
  owner = np.repeat(np.arange(len(count)), count)
  rank = (np.arange(len(owner)) - (np.cumsum(count) - count)[owner] + 0.5).astype(np.float32)
  share = rank / count.astype(np.float32)[owner]
  x, y = (start[:, i][owner] * size - 0.5 + share * step[:, i][owner] for i in (0, 1))
  mass = (SOFT * np.pi * size * radius**2 * length / count).astype(np.float32)[owner]
  return x, y, mass
