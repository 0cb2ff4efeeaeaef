"""A procedural chest radiograph: thorax, X-ray, detector and film in one deterministic function.

Conventions. Film coordinates run from 0 to 1, x to the right and y down; pixel i has its centre at
(i + 0.5) / size. Patient coordinates (u, v): u = 0 on the midline and 1 at the lateral wall of the
chest, positive towards the viewer's right (the patient's left); v = 0 at the lung apex and 1 at
the right dome of the diaphragm. Attenuation is the dimensionless sum of mu * t along the ray.
Every organ draws from a random stream of its own, so that changing one leaves the others alone.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.interpolate import CubicSpline

_STREAMS = (
    'patient', 'trunk', 'lungs', 'mediastinum', 'texture', 'vessels', 'haze', 'hila', 'arms',
    'breasts', 'gas', 'spine', 'ribs', 'shoulders', 'chin', 'devices', 'nodules', 'count',
    'display', 'enhance', 'noise', 'border', 'marker')  # append only: the position is the key

_SOFT = 7.0  # attenuation of soft tissue per film width (about 0.2 per cm, 35 cm film)


@dataclasses.dataclass(frozen=True)
class Nodule:
  """Describe one round lung nodule, in pixels of the rendered image."""

  row: float
  column: float
  radius: float
  contrast: float  # peak attenuation added, dimensionless


@dataclasses.dataclass(frozen=True)
class _Patient:
  """Hold what all organs share: habitus, positioning and the kind of examination."""

  seed: int
  index: int
  portable: bool  # AP, supine or sitting in bed
  centre: float  # film x of the midline
  top: float  # film y of the lung apex
  width: float  # half width of the chest, film units
  height: float  # apex to right dome, film units
  tilt: float  # radians
  taper: float  # how much the chest widens downwards, in u over its height
  turn: float  # shift of the front of the chest against its back, in u
  heart: float  # heart size, 1 is normal
  thickness: float  # attenuation through the trunk


def phantom(seed: int, index: int, *, size: int = 1024, bits: int = 8,
            nodules: int | None = None) -> np.ndarray:
  """Render one chest film.

  Args:
    seed: Family of films, >= 0.
    index: Film within the family, >= 0.
    size: Side in pixels, a multiple of 8 from 64 to 2048; the anatomy does not depend on it.
    bits: 8 for uint8, 16 for uint16 over the full range.
    nodules: Number of lung nodules; None draws it (most films have none).

  Returns:
    Grey levels [size, size], bones bright, air dark.

  Raises:
    ValueError: Where an argument breaks its rule.
  """
  _check(seed, index, size, nodules)
  if bits not in (8, 16):
    raise ValueError(f'bits={bits}: must be 8 or 16; use bits=8 for uint8 films')
  patient = _patient(seed, index)
  attenuation, lung = _thorax(patient, size)
  scatter = _scatter(patient, attenuation)  # without nodules, so that these stay local
  window = _window_levels(patient, attenuation, lung, scatter)
  for nodule in phantom_nodules(seed, index, size=size, nodules=nodules):
    _add_nodule(attenuation, nodule)
  film = _display(patient, _expose(patient, attenuation, scatter), window)
  film = _burn_in(patient, film)
  dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
  return np.rint(np.clip(film, 0, 1) * top).astype(dtype)


def phantom_nodules(seed: int, index: int, *, size: int = 1024,
                    nodules: int | None = None) -> tuple[Nodule, ...]:
  """List the nodules that `phantom` draws for the same arguments, in pixels of that size."""
  _check(seed, index, size, nodules)
  patient = _patient(seed, index)
  count = _stream(patient, 'count').choice(4, p=(0.7, 0.17, 0.09, 0.04))
  rng = _stream(patient, 'nodules')
  return tuple(_draw_nodule(patient, rng, size)
               for _ in range(count if nodules is None else nodules))


def _check(seed: int, index: int, size: int, nodules: int | None) -> None:
  for name, value in (('seed', seed), ('index', index), ('nodules', nodules or 0)):
    if value < 0:
      raise ValueError(f'{name}={value}: must be 0 or more; use a non-negative integer')
  if size % 8 or not 64 <= size <= 2048:
    raise ValueError(f'size={size}: must be a multiple of 8 from 64 to 2048; try 256 or 1024')


# The patient.


def _stream(patient: '_Patient', name: str) -> np.random.Generator:
  return _generator(patient.seed, patient.index, name)


def _generator(seed: int, index: int, name: str) -> np.random.Generator:
  key = (_STREAMS.index(name),)
  return np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=key))


def _patient(seed: int, index: int) -> _Patient:
  """Draw habitus and positioning: portable films are wide, short of breath and askew."""
  rng = _generator(seed, index, 'patient')
  portable = bool(rng.random() < 0.35)
  spread = 1.6 if portable else 1.0
  height = rng.normal(0.50, 0.05) if portable else rng.normal(0.585, 0.04)
  return _Patient(
      seed, index, portable,
      centre=0.5 + rng.normal(0, 0.013) * spread,
      top=float(np.clip(rng.normal(0.145 if portable else 0.12, 0.03), 0.06, 0.24)),
      width=float(np.clip(rng.normal(0.375, 0.025), 0.31, 0.43)),
      height=float(np.clip(height, 0.38, 0.68)),
      tilt=float(np.radians(rng.normal(0, 1.3) * spread)),
      taper=rng.normal(0, 0.12),
      turn=rng.normal(0, 0.03) * spread,
      heart=float(np.clip(rng.normal(1.15 if portable else 1.0, 0.12), 0.8, 1.5)),
      thickness=float(np.clip(rng.normal(4.3, 0.5), 3.3, 5.6)))


def _to_film(patient: _Patient, uv: ArrayLike) -> np.ndarray:
  """Map patient points [..., 2] (u, v) to film points (x, y)."""
  u, v = np.moveaxis(np.asarray(uv), -1, 0)
  u = u * (1 + patient.taper * (np.clip(v, 0, 1.2) - 0.5))
  xy = np.stack([u * patient.width, v * patient.height + patient.top - 0.5], -1)
  c, s = np.cos(patient.tilt), np.sin(patient.tilt)
  return xy @ np.array([[c, s], [-s, c]]) + (patient.centre, 0.5)


def _patient_grid(patient: _Patient, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Give the patient coordinates u and v [size, size] of every pixel."""
  axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
  x, y = axis[None] - np.float32(patient.centre), axis[:, None] - np.float32(0.5)
  c, s = np.float32(np.cos(patient.tilt)), np.float32(np.sin(patient.tilt))
  u = (x * c + y * s) / np.float32(patient.width)
  v = (y * c - x * s + np.float32(0.5 - patient.top)) / np.float32(patient.height)
  return u / (1 + patient.taper * (np.clip(v, 0, 1.2) - 0.5)), v


# Geometry: distances are computed on a coarse grid and enlarged, for they are smooth; the sharp
# profile is applied at full resolution.


@functools.lru_cache(maxsize=32)
def _enlarger(size: int, grid: int) -> np.ndarray:
  """Build the cubic (Keys, 1981) interpolation matrix [size, grid] between pixel centres."""
  position = (np.arange(size) + 0.5) * grid / size - 0.5
  base = np.floor(position).astype(int)
  matrix = np.zeros((size, grid), np.float32)
  for tap in range(-1, 3):
    t = np.abs(position - base - tap)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    column = np.clip(base + tap, 0, grid - 1)
    np.add.at(matrix, (np.arange(size), column), np.where(t <= 1, near, far))
  return matrix


def _enlarge(field: np.ndarray, size: int) -> np.ndarray:
  """Interpolate a square field to [size, size]."""
  matrix = _enlarger(size, len(field))
  return matrix @ field.astype(np.float32) @ matrix.T


def _nearest(x: np.ndarray, y: np.ndarray, line: np.ndarray,
             closed: bool) -> tuple[np.ndarray, np.ndarray]:
  """Give the signed distance from the dense polyline [n, 2] and the position along it.

  The position is 0 at the start and 1 at the end. An open line goes on straight beyond its ends,
  where the position is below 0 or above 1: thus both fields stay smooth and can be enlarged.
  """
  place, line = np.stack([x, y], -1).astype(np.float32), line.astype(np.float32)
  vertex = np.argmin(np.sum(line**2, 1) / 2 - place @ line.T, -1)
  last = len(line) - 2
  chosen = [vertex - 1, vertex] if closed else [np.clip(vertex + s, 0, last) for s in (-1, 0)]
  before, after = (_to_segment(place, line, c % (last + 1), closed) for c in chosen)
  closer = after[0] < before[0]
  across, position = (np.where(closer, b, a) for a, b in zip(before[1:], after[1:], strict=True))
  return across, position / np.float32(last + 1)


def _to_segment(place: np.ndarray, line: np.ndarray, chosen: np.ndarray,
                closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Give squared distance, signed distance and position on the chosen segment of each place."""
  dx, dy = np.diff(line, axis=0)[chosen].T.swapaxes(1, -1)
  px, py = (place - line[chosen]).T.swapaxes(1, -1)
  inverse = 1 / (dx * dx + dy * dy + np.float32(1e-12))
  free = (px * dx + py * dy) * inverse
  along = np.clip(free, 0, 1)
  squared = (px - along * dx)**2 + (py - along * dy)**2
  across = px * dy - py * dx
  if closed:
    return squared, np.copysign(np.sqrt(squared), across), chosen + along
  end = ((chosen == 0) & (free < 0)) | ((chosen == len(line) - 2) & (free > 1))
  across = np.where(end, across * np.sqrt(inverse), np.copysign(np.sqrt(squared), across))
  return squared, across, chosen + np.where(end, free, along)


def _smooth(points: ArrayLike, count: int, *, closed: bool = False) -> np.ndarray:
  """Draw a cubic spline through the points [n, 2] and return it as a polyline [count, 2]."""
  points = np.asarray(points, float)
  if closed:
    points = np.concatenate([points, points[:1]])
  chord = np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1))  # centripetal: no loops
  knots = np.concatenate([[0], np.cumsum(chord)])
  spline = CubicSpline(knots, points, bc_type='periodic' if closed else 'natural')
  return spline(np.linspace(0, knots[-1], count))


def _inside(outline: np.ndarray, size: int) -> np.ndarray:
  """Give the distance [size, size] to a closed polyline, positive inside, in film units."""
  grid = 128 if size >= 512 else 64
  axis = ((np.arange(grid) + 0.5) / grid).astype(np.float32)
  distance, _ = _nearest(*np.meshgrid(axis, axis), outline, True)
  return _enlarge(np.abs(distance) * (2 * _covered(outline, grid) - 1), size)


def _covered(outline: np.ndarray, grid: int) -> np.ndarray:
  """Tell for each cell [grid, grid] whether a closed polyline holds its centre, by even-odd."""
  (x0, y0), (x1, y1) = outline[:-1].T, outline[1:].T
  rows = (np.arange(grid)[:, None] + 0.5) / grid
  crossed = (y0 > rows) != (y1 > rows)
  x = x0 + (rows - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
  column = np.clip(np.ceil(x * grid - 0.5), 0, grid).astype(int)
  flips = np.zeros((grid, grid + 1), int)
  np.add.at(flips, (np.nonzero(crossed)[0], column[crossed]), 1)
  return np.cumsum(flips, 1)[:, :grid] % 2


def _dome(distance: np.ndarray, radius: float) -> np.ndarray:
  """Turn depth behind an edge into the chord through a round body: 0 outside, 1 at the radius."""
  rest = 1 - np.clip(distance / radius, 0, 1)
  return np.sqrt(1 - rest * rest)


def _tube(canvas: np.ndarray, line: np.ndarray, reach: float,
          profile: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
  """Add profile(distance, position 0..1) along an open polyline, within reach, to the canvas."""
  size = len(canvas)
  small = np.ptp(line, axis=0).max() < 0.07  # letters and loops, which bend sharply
  grid = size if small else int(np.clip(size // 4, 64, 256))
  low = np.clip(np.floor((line.min(0) - reach) * grid).astype(int), 0, grid)
  high = np.clip(np.ceil((line.max(0) + reach) * grid).astype(int), 0, grid)
  if np.any(high <= low):
    return
  (c0, r0), (c1, r1) = low * size // grid, high * size // grid
  low, high = np.maximum(low - 2, 0), np.minimum(high + 2, grid)
  axis = ((np.arange(grid) + 0.5) / grid).astype(np.float32)
  fields = _nearest(*np.meshgrid(axis[low[0]:high[0]], axis[low[1]:high[1]]), line, False)
  matrix = _enlarger(size, grid)
  down, across = matrix[r0:r1, low[1]:high[1]], matrix[c0:c1, low[0]:high[0]].T
  distance, position = (down @ field @ across for field in fields)
  steps = np.linalg.norm(np.diff(line, axis=0), axis=1) * (len(line) - 1)
  beyond = np.maximum(np.maximum(-position * steps[0], (position - 1) * steps[-1]), 0)
  canvas[r0:r1, c0:c1] += profile(np.hypot(distance, beyond), np.clip(position, 0, 1))


def _stroke(canvas: np.ndarray, line: np.ndarray, radius: float, value: float) -> None:
  """Add a line of even density with round caps, anti-aliased over one pixel."""
  size = len(canvas)
  _tube(canvas, line, radius + 2 / size, lambda d, t: value * np.clip(
      0.5 + (radius - d) * size, 0, min(1, 2 * radius * size)))


# The soft tissues and the lungs.


def _jitter(rng: np.random.Generator, points: ArrayLike, amount: float) -> np.ndarray:
  return np.asarray(points) + rng.normal(0, amount, np.shape(points))


_TRUNK = np.array([(0.34, -0.5), (0.31, -0.25), (0.36, -0.14), (0.7, -0.06), (1.05, -0.01),
                   (1.36, 0.06), (1.48, 0.2), (1.34, 0.45), (1.23, 0.65), (1.21, 0.9),
                   (1.23, 1.2), (1.28, 2.0)])
_RIGHT_LUNG = np.array([(-0.13, 0.10), (-0.24, 0.01), (-0.40, -0.01), (-0.58, 0.06),
                        (-0.73, 0.19), (-0.84, 0.37), (-0.93, 0.60), (-0.98, 0.85),
                        (-1.0, 1.06), (-0.985, 1.10), (-0.92, 1.06), (-0.78, 1.01),
                        (-0.55, 0.985), (-0.33, 1.005), (-0.17, 1.06), (-0.06, 0.95),
                        (-0.05, 0.5)])
_LEFT_LUNG = np.array([(0.13, 0.10), (0.24, 0.01), (0.40, -0.01), (0.58, 0.06), (0.73, 0.19),
                       (0.84, 0.37), (0.93, 0.60), (0.98, 0.85), (0.99, 1.09), (0.975, 1.13),
                       (0.90, 1.09), (0.76, 1.045), (0.55, 1.03), (0.33, 1.06), (0.15, 1.1),
                       (0.05, 0.95), (0.05, 0.5)])
_MEDIASTINUM = np.array([(-0.2, -0.2), (-0.17, 0.02), (-0.17, 0.2), (-0.15, 0.38), (-0.17, 0.5),
                         (-0.25, 0.66), (-0.28, 0.82), (-0.23, 0.98), (-0.15, 1.15), (0.1, 1.25),
                         (0.46, 1.14), (0.585, 1.02), (0.57, 0.9), (0.46, 0.74), (0.33, 0.58),
                         (0.23, 0.46), (0.17, 0.40), (0.22, 0.35), (0.235, 0.29), (0.20, 0.235),
                         (0.15, 0.17), (0.16, 0.02), (0.2, -0.2)])


def _trunk_outline(patient: _Patient) -> np.ndarray:
  rng = _stream(patient, 'trunk')
  girth = 1 + abs(rng.normal(0.02, 0.08))
  sides = [_jitter(rng, _TRUNK, 0.012) * (girth, 1) for _ in range(2)]
  right = (sides[0] * (-1, 1))[::-1]
  return _to_film(patient, _smooth(np.concatenate([sides[1], right]), 80, closed=True))


def _lung_outlines(patient: _Patient) -> tuple[np.ndarray, np.ndarray]:
  """Draw both lungs: one set of ribs bounds them, the domes differ from patient to patient."""
  rng = _stream(patient, 'lungs')
  flat, blunt = rng.normal(0, 0.02), max(0, rng.normal(0, 0.06))
  outlines = []
  for points in (_RIGHT_LUNG, _LEFT_LUNG):
    points = _jitter(rng, points, 0.006)
    points[10:14, 1] += flat + rng.normal(0, 0.012)
    points[8:15, 1] -= abs(rng.normal(0, 0.05)) * (rng.random() < 0.5)  # a raised dome
    points[8:10, 1] -= blunt * (rng.random() < 0.4)
    outlines.append(_to_film(patient, _smooth(points, 96, closed=True)))
  return outlines[0], outlines[1]


def _mediastinum_outline(patient: _Patient) -> np.ndarray:
  rng = _stream(patient, 'mediastinum')
  points = _jitter(rng, _MEDIASTINUM, 0.011)
  points[4:17, 0] *= patient.heart
  points[17:20, 0] += rng.normal(0.02, 0.025)  # the aortic knob unfolds with age
  points[[1, 2, 3, 20, 21], 0] *= rng.uniform(0.9, 1.3) * (1.15 if patient.portable else 1)
  points[:, 0] += patient.turn
  return _to_film(patient, _smooth(points, 96, closed=True))


def _thorax(patient: _Patient, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Sum the attenuation [size, size] of all organs; also give the share of air (0..1)."""
  u, v = _patient_grid(patient, size)
  body = _dome(_inside(_trunk_outline(patient), size), 0.13)**0.7
  lung = _air(patient, size)
  texture = _texture(patient, size)
  attenuation = patient.thickness * body * (0.86 + 0.14 * np.clip(v, 0, 1.2))
  attenuation -= 0.6 * patient.thickness * lung
  attenuation += lung**0.5 * (_vessels(patient, size) + _haze(patient, texture))
  attenuation += 0.06 * body * texture
  _add_hila(patient, attenuation)
  _add_arms(patient, attenuation)
  _add_breasts(patient, attenuation, u, v)
  _add_gas(patient, attenuation, u, v)
  _add_airway(patient, attenuation)
  _add_spine(patient, attenuation, u, v)
  _add_ribs(patient, attenuation)
  _add_shoulders(patient, attenuation)
  _add_chin(patient, attenuation)
  _add_devices(patient, attenuation)
  return np.maximum(attenuation, 0), lung


def _air(patient: _Patient, size: int) -> np.ndarray:
  """Give the share of air along each ray: both lungs less what the mediastinum takes."""
  right, left = (_inside(outline, size) for outline in _lung_outlines(patient))
  middle = _inside(_mediastinum_outline(patient), size)
  return _dome(np.maximum(right, left), 0.09)**0.6 * (1 - 0.95 * _dome(middle, 0.07)**0.8)


def _add_arms(patient: _Patient, canvas: np.ndarray) -> None:
  """Hang the arms beside the trunk, more or less abducted, each with its humerus."""
  rng = _stream(patient, 'arms')
  for side in (-1, 1):
    out = rng.uniform(0.1, 0.7) * (0.5 if patient.portable else 1)
    line = _to_film(patient, _smooth([(side * 1.22, 0.12), (side * (1.36 + out / 3), 0.4),
                                      (side * (1.42 + out), 1.3)], 24))
    radius = rng.uniform(0.055, 0.08)
    _tube(canvas, line, radius, lambda d, t, r=radius: np.maximum(
        0, 9 * np.sqrt(np.maximum(r * r - d * d, 0))))
    _tube(canvas, line, 0.03, functools.partial(_bone, radius=0.024, density=0.7))


def _add_breasts(patient: _Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Overlay breast shadows, which end in a soft lower edge, on a share of the patients."""
  rng = _stream(patient, 'breasts')
  weight = float(rng.choice([0, 0.15, 0.3, 0.55], p=(0.45, 0.2, 0.2, 0.15)))
  if not weight:
    return
  droop, width = rng.uniform(0.8, 1.1), rng.uniform(0.4, 0.55)
  for side in (-1, 1):
    across, down = (u - side * rng.normal(0.72, 0.04)) / width, (v - droop + 0.15) / 0.3
    reach = np.sqrt(across**2 + np.where(down > 0, down, down * 0.4)**2)
    canvas += weight * _dome(1 - reach, 0.9) * np.clip(canvas, 0, 1)


def _add_gas(patient: _Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Blow the stomach bubble and a few loops of bowel under the left dome."""
  rng = _stream(patient, 'gas')
  size = len(canvas)
  cut = (slice(int(min(patient.top + patient.height - 0.06, 0.99) * size), None),
         slice(int(0.3 * size), None))
  u, v = u[cut], v[cut]
  for number in range(rng.integers(1, 6)):
    cu, cv = rng.normal(0.45, 0.16), 1.2 + abs(rng.normal(0, 0.12)) * (number > 0)
    a, b, turn = rng.uniform(0.06, 0.2), rng.uniform(0.04, 0.1), rng.normal(0, 0.5)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    du, dv = u - cu, (v - cv) * (patient.height / patient.width)
    along, across = du * c + dv * s, dv * c - du * s
    fold = 0.12 * np.sin(along * rng.uniform(15, 40)) + 0.1 * np.sin(across * 30)
    reach = np.sqrt((along / a)**2 + (across / b)**2)
    canvas[cut] -= rng.uniform(0.15, 0.8) * _dome(1 + fold - reach, 0.8)


def _add_airway(patient: _Patient, canvas: np.ndarray) -> None:
  """Open the trachea and the two main bronchi."""
  shift = patient.turn
  carina = (0.02 + shift, 0.37)
  for points, radius in (([(shift, -0.35), (shift * 0.8, 0.05), carina], 0.024),
                         ([carina, (-0.12, 0.46), (-0.2, 0.52)], 0.014),
                         ([carina, (0.15, 0.48), (0.24, 0.53)], 0.012)):
    line = _to_film(patient, _smooth(points, 16))
    _tube(canvas, line, radius, lambda d, t, r=radius: -28 * np.sqrt(
        np.maximum(r * r - d * d, 0)) * np.minimum(1, 6 * (1 - t)))


# The lungs' inner structure.


def _texture(patient: _Patient, size: int) -> np.ndarray:
  """Sum octaves of noise, each on a grid of its own, to a cloudy field of unit scale."""
  rng = _stream(patient, 'texture')
  total = np.zeros((8, 8), np.float32)
  for grid in (8, 16, 32, 64, 128, 256):
    total = _enlarge(total, grid) + rng.standard_normal((grid, grid)) * (8 / grid)**0.75
  return _enlarge(total, size)


def _haze(patient: _Patient, texture: np.ndarray) -> np.ndarray:
  """Cloud the lungs a little, and much in patches on the films of the sick."""
  rng = _stream(patient, 'haze')
  size = len(texture)
  fog = np.zeros((32, 32))
  if rng.random() < (0.6 if patient.portable else 0.25):
    fog = ndimage.gaussian_filter(rng.standard_normal((32, 32)), 2.5) * rng.uniform(2, 6)
  fog = _enlarge(np.maximum(fog, 0), size)
  return rng.uniform(0.12, 0.3) * texture + fog * (0.5 + 0.2 * texture)


def _add_hila(patient: _Patient, canvas: np.ndarray) -> None:
  """Thicken the roots of the lungs: arteries, bronchi and nodes that run into one shadow."""
  rng = _stream(patient, 'hila')
  for side in (-1, 1):
    weight = rng.uniform(0.25, 0.6)
    for _ in range(4):
      spot = (side * rng.normal(0.25, 0.035) + patient.turn, rng.normal(0.5 - 0.02 * side, 0.06))
      path = _to_film(patient, spot + rng.normal(0, (0.03, 0.06), (2, 2)))
      _tube(canvas, _dense(path), 0.03, lambda d, t, w=weight: w * np.exp(-(d / 0.011)**2))


def _vessels(patient: _Patient, size: int) -> np.ndarray:
  """Project the vessel trees of both lungs, with the fine mesh between them, as attenuation."""
  rng = _stream(patient, 'vessels')
  strength = rng.uniform(1.9, 3.3)
  pieces = [_tree(rng, patient, side) for side in (-1, 1)] + [_mesh(rng, patient)]
  start, stop, radius = (np.concatenate(part) for part in zip(*pieces, strict=True))
  level = np.clip(np.floor(np.log2(radius * size + 1e-9)), 0, 3).astype(int)
  total = np.zeros((size // 8, size // 8), np.float32)
  for step in (3, 2, 1, 0):
    chosen = level == step
    total = _enlarge(total, size >> step)
    total += _splat(start[chosen], stop[chosen], radius[chosen], size >> step)
    total = ndimage.gaussian_filter(total, 0.6, truncate=3.5)
  return strength * total


def _tree(rng: np.random.Generator, patient: _Patient, side: int) -> tuple[np.ndarray, ...]:
  """Grow one lung's vessels from its hilum, generation by generation, as line segments."""
  count = 18
  fan = np.linspace(-1.6, 1.6, count)
  place = rng.normal((side * 0.24 + patient.turn, 0.52 - 0.02 * side), (0.02, 0.03), (count, 2))
  place = _to_film(patient, place + np.stack([0 * fan, 0.07 * fan], -1))
  angle = fan + rng.normal(0, 0.2, count)
  radius = rng.uniform(0.005, 0.012, count)
  parts = []
  for _ in range(7):
    for _ in range(6):
      stride = (0.5 * radius + 0.0028)[:, None] * rng.uniform(0.7, 1.6, (len(radius), 1))
      angle = angle + rng.normal(0, 0.16, len(angle))
      stop = place + stride * np.stack([side * np.cos(angle), np.sin(angle)], -1)
      parts.append((place, stop, radius))
      place, radius = stop, radius * 0.985
    place, angle, radius = _fork(rng, place, angle, radius)
  return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _fork(rng: np.random.Generator, place: np.ndarray, angle: np.ndarray,
          radius: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Split each branch in two whose cubed radii add up to its own (Murray, 1926)."""
  share = rng.uniform(0.25, 0.75, len(radius))
  split = rng.uniform(0.35, 1.0, len(radius))
  angle = np.concatenate([angle + split * (1 - share), angle - split * share])
  radius = np.concatenate([radius * np.cbrt(share), radius * np.cbrt(1 - share)])
  return np.concatenate([place, place]), angle, radius


def _mesh(rng: np.random.Generator, patient: _Patient) -> tuple[np.ndarray, ...]:
  """Scatter short fine fibres over the chest, the interstitium that no tree reaches."""
  count = 10000
  place = _to_film(patient, rng.uniform((-1, -0.05), (1, 1.15), (count, 2)))
  angle = rng.uniform(0, 2 * np.pi, count)
  radius = 0.0006 + rng.exponential(0.0008, count)
  parts = []
  for _ in range(4):
    angle = angle + rng.normal(0, 0.4, count)
    stop = place + 0.0035 * np.stack([np.cos(angle), np.sin(angle)], -1)
    parts.append((place, stop, radius))
    place = stop
  return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _splat(start: np.ndarray, stop: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
  """Deposit cylinders of soft tissue bilinearly on the pixels, conserving their mass."""
  length = np.linalg.norm(stop - start, axis=1)
  count = np.ceil(0.8 * length * size).astype(int) + 1
  owner = np.repeat(np.arange(len(count)), count)
  rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
  share = ((rank + 0.5) / count[owner])[:, None]
  place = (start[owner] + share * (stop - start)[owner]) * size - 0.5
  mass = (_SOFT * np.pi * radius**2 * length / count)[owner] * size**2
  base = np.floor(place).astype(int)
  fx, fy = (place - base).T
  keep = np.all((base >= 0) & (base < size - 1), axis=1)
  corner = (base[:, 1] * size + base[:, 0])[keep]
  canvas = np.zeros(size * size)
  for shift, weight in ((0, (1 - fx) * (1 - fy)), (1, fx * (1 - fy)),
                        (size, (1 - fx) * fy), (size + 1, fx * fy)):
    canvas += np.bincount(corner + shift, (mass * weight)[keep], size * size)
  return canvas.reshape(size, size).astype(np.float32)


# The skeleton.


def _bone(distance: np.ndarray, position: np.ndarray, *, radius: float,
          density: float) -> np.ndarray:
  """Project a hollow bone: a cortical shell, bright at both edges, round a spongy core."""
  inner = 0.86 * radius
  outer = np.sqrt(np.maximum(radius**2 - distance**2, 0))
  core = np.sqrt(np.maximum(inner**2 - distance**2, 0))
  return density * (1.25 * outer - 0.95 * core) / radius


def _add_spine(patient: _Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Stack the vertebrae: bodies with end plates, discs between them, pedicles, spines."""
  rng = _stream(patient, 'spine')
  size = len(canvas)
  half = rng.uniform(0.105, 0.125)
  cut = slice(*(np.clip(patient.centre + patient.width * np.array([-0.2, 0.2]), 0, 1)
                * size).astype(int))
  bend, phase = rng.normal(0, 0.012), rng.uniform(0, 6)
  v, across = v[:, cut], u[:, cut]
  across = (across - bend * np.sin(3 * v + phase)) / half
  level = v * 10.5 * (1 - 0.12 * v) + rng.uniform(0, 1)
  along = (level - np.floor(level) - 0.5) * 2
  waist = 1 - np.abs(across) - 0.10 * (1 - along**2)
  body = np.clip(waist * 8, 0, 1) * np.clip((0.9 - np.abs(along)) * 5, 0, 1)
  rim = np.exp(-(waist / 0.05)**2) + 0.7 * np.exp(-((np.abs(along) - 0.8) / 0.06)**2)
  ring = np.hypot((np.abs(across) - 0.58) / 0.17, (along + 0.25) / 0.4)
  pedicle = np.exp(-((ring - 1) / 0.25)**2)
  spine = np.exp(-(across / 0.14)**4 - ((along - 0.35) / 0.3)**4)
  canvas[:, cut] += rng.uniform(0.1, 0.5) * (0.8 + body * (0.3 + 0.35 * rim) + 0.3 * pedicle
                                             + 0.4 * spine) * np.clip(waist * 4 + 1, 0, 1)


def _add_ribs(patient: _Patient, canvas: np.ndarray) -> None:
  """Hang eleven pairs of ribs: tilted ellipses seen from the front, open before the sternum."""
  rng = _stream(patient, 'ribs')
  density, radius = rng.uniform(0.28, 0.72), rng.uniform(0.034, 0.042) * patient.width
  drop, first = rng.uniform(0.32, 0.56), rng.uniform(-0.15, -0.09)
  for number in range(11):
    for side in (-1, 1):
      top = first + 0.098 * number + rng.normal(0, 0.006)
      fall = drop * min(1, 0.45 + 0.12 * number) * rng.uniform(0.95, 1.05)
      line = _rib(rng, top, fall, number, side, patient.turn)
      profile = functools.partial(_rib_profile, density=density, radius=radius,
                                  end=rng.uniform(0.78, 0.9))
      _tube(canvas, _to_film(patient, line), 1.4 * radius, profile)


def _rib(rng: np.random.Generator, top: float, fall: float, number: int, side: int,
         turn: float) -> np.ndarray:
  """Trace one rib in patient coordinates from the spine round the wall to its cartilage."""
  stop = 2.75 if number < 6 else 2.5 - 0.16 * (number - 6)
  angle = np.linspace(0.12, stop, 36)
  middle = top + 0.45 * fall
  wall = np.interp(middle, (-0.05, 0.05, 0.19, 0.37, 0.6, 0.9), (0.38, 0.55, 0.72, 0.86, 0.96, 1.02))
  u = side * wall * np.sin(angle)**0.9 + turn * (1 - np.cos(angle)) / 2
  v = top + fall * (1 - np.cos(angle)) / 2 - 0.025 * np.sin(2 * angle)
  return np.stack([u, v], -1) + rng.normal(0, 0.003, 2)


def _rib_profile(distance: np.ndarray, position: np.ndarray, *, density: float, radius: float,
                 end: float) -> np.ndarray:
  """Shade a rib: dense where it runs along the ray at the wall, faint towards its front end."""
  front = np.clip((position - 0.5) * 5, 0, 1)
  radius = radius * (0.85 + 0.25 * front)
  wall = 1 + 0.9 * np.exp(-((position - 0.5) / 0.12)**2)
  fade = np.clip((end - position) * 12, 0, 1) * np.clip(position * 10 - 0.1, 0, 1)
  return _bone(distance, position, radius=radius, density=density) * wall * fade * (1 - 0.3 * front)


def _add_shoulders(patient: _Patient, canvas: np.ndarray) -> None:
  """Draw clavicles and scapulae; portable films carry both higher and over the lungs."""
  rng = _stream(patient, 'shoulders')
  lift, over = (-0.06, 0.12) if patient.portable else (0.0, 0.0)
  rise, inward = rng.normal(0.04, 0.03), over + abs(rng.normal(0, 0.04))
  for side in (-1, 1):
    s = np.array((side, 1))
    wobble = rng.normal(0, 0.012, (4, 2))
    bone = np.array([(0.11, 0.17 + lift), (0.4, 0.13 + lift - rise), (0.75, 0.06 + lift - rise),
                     (1.15, 0.02 + lift)]) + wobble
    line = _to_film(patient, _smooth(bone * s + (patient.turn, 0), 32))
    _tube(canvas, line, 0.02, functools.partial(
        _bone, radius=0.042 * patient.width, density=rng.uniform(0.5, 0.9)))
    blade = _jitter(rng, [(1.22, 0.1), (1.02, 0.06), (0.9 - inward, 0.2), (0.93 - inward, 0.45),
                          (1.0 - inward, 0.58), (1.12 - inward / 2, 0.35)], 0.015) * s
    _add_blade(canvas, _to_film(patient, _smooth(blade, 40, closed=True)))


def _add_chin(patient: _Patient, canvas: np.ndarray) -> None:
  """Drop the chin into the top of some films taken in bed."""
  rng = _stream(patient, 'chin')
  if rng.random() > (0.35 if patient.portable else 0.05):
    return
  low, tilt = patient.top + rng.uniform(-0.12, -0.05), rng.normal(0, 0.03)
  path = patient.centre + np.array([(-0.11, 0), (-0.07, 0), (0, 0), (0.07, 0), (0.11, 0)])
  path[:, 1] = low + np.array((-0.12, -0.03, 0, -0.03, -0.12)) + tilt * np.linspace(-1, 1, 5)
  path = np.concatenate([path, [(patient.centre + 0.1, -0.3), (patient.centre - 0.1, -0.3)]])
  jaw = _inside(_smooth(path, 64, closed=True), len(canvas))
  canvas += 0.9 * _dome(jaw, 0.05) + 0.3 * np.exp(-((jaw - 0.006) / 0.004)**2)


def _add_blade(canvas: np.ndarray, outline: np.ndarray) -> None:
  """Add a scapula: a thin plate with thickened borders."""
  size = len(canvas)
  inside = _inside(outline, size)
  canvas += 0.16 * np.clip(inside * 200, 0, 1) + 0.22 * np.exp(-((inside - 0.005) / 0.004)**2)


# What lies on the patient.


def _add_devices(patient: _Patient, canvas: np.ndarray) -> None:
  """Lay electrodes with their leads, and catheters, on a share of the films."""
  rng = _stream(patient, 'devices')
  if rng.random() < (0.75 if patient.portable else 0.15):
    for _ in range(rng.integers(2, 5)):
      spot = _to_film(patient, rng.uniform((-0.9, 0.05), (0.9, 1.1)))
      _add_electrode(canvas, spot)
      if rng.random() < 0.7:
        _add_lead(canvas, rng, spot)
  if rng.random() < 0.12:
    _add_wires(patient, canvas, rng)
  if rng.random() < (0.5 if patient.portable else 0.08):
    side = rng.choice((-1, 1))
    path = _jitter(rng, [(0.5 * side, -0.3), (0.35 * side, 0.02), (-0.08, 0.2), (-0.13, 0.5)], 0.03)
    _stroke(canvas, _to_film(patient, _smooth(path, 40)), 0.0016, 0.35)


def _add_wires(patient: _Patient, canvas: np.ndarray, rng: np.random.Generator) -> None:
  """Close the sternum with loops of steel wire, as after open heart surgery."""
  turn = np.linspace(0, 2 * np.pi, 20)
  for v in np.arange(0.3, 0.9, rng.uniform(0.09, 0.14)):
    spot = _to_film(patient, np.array((patient.turn, v)) + rng.normal(0, 0.01, 2))
    a, b = rng.uniform(0.006, 0.014), rng.uniform(0.003, 0.007)
    loop = spot + np.stack([a * np.cos(turn), b * np.sin(turn + rng.uniform(0, 1))], -1)
    _stroke(canvas, loop, 0.0008, 1.2)


def _add_electrode(canvas: np.ndarray, spot: np.ndarray) -> None:
  dot = np.stack([spot, spot + 1e-4])
  _stroke(canvas, dot, 0.0105, 0.2)
  _stroke(canvas, dot, 0.0045, 0.9)
  _stroke(canvas, dot, 0.003, -0.6)


def _add_lead(canvas: np.ndarray, rng: np.random.Generator, spot: np.ndarray) -> None:
  leave = np.array((rng.choice((-0.1, 1.1)), rng.uniform(0.1, 1.1)))
  share = np.linspace(0, 1, 5)[:, None]
  path = spot + share * (leave - spot) + rng.normal(0, 0.05, (5, 2)) * np.sin(np.pi * share)
  _stroke(canvas, _smooth(path, 48), 0.0011, 0.35)


def _draw_nodule(patient: _Patient, rng: np.random.Generator, size: int) -> Nodule:
  """Place a nodule in one of the lungs, clear of the heart and the wall."""
  side = rng.choice((-1, 1))
  v = rng.uniform(0.15, 0.9)
  inner = 0.35 if side < 0 else 0.35 + 0.3 * max(0, v - 0.5)
  outer = np.interp(v, (0, 0.2, 0.4, 0.9), (0.45, 0.62, 0.75, 0.88))
  x, y = _to_film(patient, (side * rng.uniform(inner, outer), v))
  radius = np.exp(rng.uniform(np.log(0.0085), np.log(0.025)))
  contrast = rng.uniform(0.6, 1.2) * np.clip(2 * radius * _SOFT, 0.1, 0.3)
  return Nodule(float(y * size - 0.5), float(x * size - 0.5), float(radius * size), float(contrast))


def _add_nodule(canvas: np.ndarray, nodule: Nodule) -> None:
  """Add the smooth shadow of a ball, which ends at 1.5 radii, to the attenuation."""
  size, reach = len(canvas), 1.5 * nodule.radius
  r0, r1 = (int(np.clip(nodule.row + s * reach + 1, 0, size)) for s in (-1, 1))
  c0, c1 = (int(np.clip(nodule.column + s * reach + 1, 0, size)) for s in (-1, 1))
  row, column = np.ogrid[r0:r1, c0:c1]
  rest = np.hypot(row - nodule.row, column - nodule.column) / nodule.radius
  canvas[r0:r1, c0:c1] += nodule.contrast * np.clip(1 - (rest / 1.5)**2, 0, None)**1.5


# From attenuation to the film.


def _scatter(patient: _Patient, attenuation: np.ndarray) -> np.ndarray:
  """Estimate the scattered intensity [size, size]: wide, and strongest where tissue is thick."""
  size = len(attenuation)
  small = attenuation[4::8, 4::8] if size >= 512 else attenuation[::4, ::4]
  source = np.exp(-small) * np.minimum(small, 2)
  fraction = 0.6 if patient.portable else 0.4
  wide = ndimage.gaussian_filter(source, 0.07 * len(small), mode='nearest')
  return fraction * _enlarge(wide, size)


def _window_levels(patient: _Patient, attenuation: np.ndarray, lung: np.ndarray,
                   scatter: np.ndarray) -> tuple[float, float]:
  """Choose centre and width of the display curve from the levels of lung and soft tissue."""
  rng = _stream(patient, 'display')
  few = (slice(None, None, len(lung) // 64),) * 2
  depth = -np.log(np.exp(-attenuation[few]) + scatter[few])
  dark, light = np.median(depth[lung[few] > 0.7]), np.percentile(depth, 90)
  low, high = rng.normal(0.33, 0.12), rng.normal(0.82, 0.08)
  low, high = (np.log(g / (1 - g)) for g in (np.clip(low, 0.14, 0.55), np.clip(high, 0.65, 0.92)))
  width = (light - dark) / (high - low)
  return float(dark - low * width), float(width)


def _expose(patient: _Patient, attenuation: np.ndarray, scatter: np.ndarray) -> np.ndarray:
  """Give the detected intensity: beam with heel effect, detector blur, quantum noise."""
  rng = _stream(patient, 'noise')
  size = len(attenuation)
  ramp = np.linspace(-1, 1, size, dtype=np.float32)
  beam = 1 + rng.normal(0, 0.04) * ramp[:, None] + rng.normal(0, 0.03) * ramp[None]
  image = beam * (np.exp(-attenuation) + scatter)
  blur = rng.uniform(0.55, 0.85) * size / 1024
  image = ndimage.gaussian_filter(image, blur, truncate=3.0) if blur > 0.2 else image
  dose = float(np.exp(rng.normal(np.log(2.4e5), 0.9)))
  grain = rng.standard_normal((size, size), dtype=np.float32)
  return np.maximum(image + np.sqrt(image / dose) * grain, 1e-5)


def _display(patient: _Patient, intensity: np.ndarray, window: tuple[float, float]) -> np.ndarray:
  """Map intensity to grey 0..1: logarithm, edge enhancement, sigmoid, as a digital reader does."""
  rng = _stream(patient, 'enhance')
  centre, width = window
  depth = -np.log(intensity)
  depth += rng.uniform(0.3, 1.4) * (depth - _blurred(depth, rng.uniform(0.003, 0.005)))
  return 1 / (1 + np.exp((centre - depth) / width))


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
  """Blur by sigma in film units, on a grid of 256 where the image has more."""
  size = len(image)
  step = max(1, size // 256) if size % 256 == 0 else 1
  small = image.reshape(size // step, step, -1, step).mean((1, 3))
  return _enlarge(ndimage.gaussian_filter(small, sigma * size / step, truncate=3.0), size)


def _burn_in(patient: _Patient, film: np.ndarray) -> np.ndarray:
  """Add what is not anatomy: the marker, then the edges of film or collimator."""
  return _frame(patient, _mark(patient, film))


def _frame(patient: _Patient, film: np.ndarray) -> np.ndarray:
  """Cover the margins that a slightly rotated collimator or the film's edge leaves bare."""
  rng = _stream(patient, 'border')
  size = len(film)
  black, sine = rng.random() < 0.85, float(np.sin(np.radians(rng.normal(0, 0.8))))
  level = rng.uniform(0, 0.04) if black else rng.uniform(0.92, 1)
  soft = float(rng.choice((1.2, 3.0, 12.0), p=(0.65, 0.25, 0.1))) / 1024
  margins = rng.gamma(1.2, 0.018, 4) * (rng.random(4) < rng.choice((0, 0.4, 0.8))) - 0.02
  axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
  opening = np.ones_like(film)
  for number, margin in enumerate(margins.tolist()):
    along, across = (axis[None], axis[:, None])[::1 if number % 2 else -1]
    depth = 0.48 - margin + (-1)**(number // 2) * (along * sine + across)
    if margin > -0.02:
      opening *= np.clip(0.5 + depth / max(soft, 1 / size), 0, 1)
  return film * opening + np.float32(level) * (1 - opening)


_GLYPHS = {  # strokes through the points of a grid 4 wide and 6 high, as column and row
    'A': '06 20 46,14 34', 'B': '33 42 41 30 00 06 36 45 44 33 03', 'D': '00 06 26 44 42 20 00',
    'E': '40 00 06 46,03 33', 'G': '41 30 10 01 05 16 36 45 43 23', 'I': '20 26', 'L': '00 06 46',
    'N': '06 00 46 40', 'O': '10 01 05 16 36 45 41 30 10', 'P': '06 00 30 41 42 33 03',
    'R': '06 00 30 41 42 33 03,23 46', 'S': '41 30 10 01 02 13 33 44 45 36 16 05',
    'T': '00 40,20 26', 'U': '00 05 16 36 45 40'}


def _mark(patient: _Patient, film: np.ndarray) -> np.ndarray:
  """Burn in the side marker, and on portable films often a word, as white letters."""
  rng = _stream(patient, 'marker')
  cover = np.zeros_like(film)
  side = rng.choice((-1, 1))
  spot = np.array((0.5 + side * rng.uniform(0.33, 0.44), rng.uniform(0.04, 0.2)))
  turn, height = rng.normal(0, 0.12) + rng.choice((0, 0, 0, -1.57)), rng.uniform(0.022, 0.045)
  if rng.random() < 0.92:
    _write(cover, 'L' if side > 0 else 'R', spot, height, turn)
    if rng.random() < 0.6:
      below = spot + 1.0 * height * np.array((-np.sin(turn), np.cos(turn)))
      _write(cover, ''.join(rng.choice(list(_GLYPHS), 2)), below, 0.55 * height, turn)
  if rng.random() < (0.7 if patient.portable else 0.1):
    word = rng.choice(('PORTABLE', 'AP', 'SUPINE', 'UP'))
    _write(cover, word, np.array((rng.uniform(0.15, 0.85), rng.uniform(0.03, 0.08))),
           rng.uniform(0.014, 0.022), rng.normal(0, 0.03))
  cover = np.clip(cover, 0, 1)
  return film * (1 - cover) + np.float32(rng.uniform(0.88, 1)) * cover


def _write(canvas: np.ndarray, text: str, spot: np.ndarray, height: float, turn: float) -> None:
  """Draw text centred on a film point; height in film units, turn in radians."""
  c, s = np.cos(turn), np.sin(turn)
  for place, letter in enumerate(text):
    for stroke in filter(None, _GLYPHS.get(letter, '').split(',')):
      points = np.array([(int(point[0]), int(point[1])) for point in stroke.split()]) / 6
      points = _dense(points)
      points = points + (place - 0.5 * len(text) + 0.08, -0.5)
      _stroke(canvas, spot + height * points @ np.array([[c, s], [-s, c]]), 0.085 * height, 1)


def _dense(line: np.ndarray) -> np.ndarray:
  """Divide every segment of a polyline into four."""
  position = np.linspace(0, len(line) - 1, 4 * len(line) - 3)
  return np.stack([np.interp(position, np.arange(len(line)), part) for part in line.T], -1)
