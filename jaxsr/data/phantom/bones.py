"""The skeleton: spine, ribs, clavicles, scapulae and the long bones."""

import numpy as np

from jaxsr.data.phantom.draw import bell, chord, dome, inside, jitter, smooth, tube
from jaxsr.data.phantom.patient import Patient


def _shell(distance: np.ndarray, radius: float | np.ndarray, density: float) -> np.ndarray:
  """Returns the projection of a hollow bone: a cortical shell around a spongy core."""
  outer, core = chord(distance, radius), chord(distance, 0.86 * radius)
  return density * (1.25 * outer - 0.95 * core) / radius


def add_bone(
  canvas: np.ndarray, line: np.ndarray, reach: float, radius: float, density: float
) -> None:
  """Add a long bone of constant radius along a polyline."""
  tube(canvas, line, reach, lambda d, t: _shell(d, radius, density))


def add_spine(patient: Patient, canvas: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
  """Add the vertebrae, with discs between them."""
  rng = patient.stream('spine')
  half = rng.uniform(0.105, 0.125)
  edges = np.clip(patient.center + patient.width * np.array([-0.2, 0.2]), 0, 1) * len(canvas)
  cut = slice(*edges.astype(int))
  bend, phase = rng.normal(0, 0.012), rng.uniform(0, 6)
  across, v = u[:, cut], v[:, cut]
  across = (across - bend * np.sin(3 * v + phase)) / half
  level = v * 10.5 * (1 - 0.12 * v) + rng.uniform(0, 1)
  along = (level - np.floor(level) - 0.5) * 2
  canvas[:, cut] += _vertebra(across, along, rng.uniform(0.12, 0.6))


def _vertebra(across: np.ndarray, along: np.ndarray, density: float) -> np.ndarray:
  """Returns the shade of a vertebra with end plates, pedicles and spinous process."""
  waist = 1 - np.abs(across) - 0.10 * (1 - along**2)
  body = np.clip(waist * 8, 0, 1) * np.clip((0.9 - np.abs(along)) * 5, 0, 1)
  rim = bell(waist, 0.05) + 0.7 * bell(np.abs(along) - 0.8, 0.06)
  ring = np.hypot((np.abs(across) - 0.58) / 0.17, (along + 0.25) / 0.4)
  process = np.exp(-((across / 0.14) ** 4) - ((along - 0.35) / 0.3) ** 4)
  shade = 0.8 + body * (0.3 + 0.35 * rim) + 0.18 * bell(ring - 1, 0.25) + 0.4 * process
  return density * shade * np.clip(waist * 4 + 1, 0, 1)


def add_ribs(patient: Patient, canvas: np.ndarray) -> None:
  """Add eleven pairs of ribs: tilted ellipses seen from the front, open before the sternum."""
  rng = patient.stream('ribs')
  density, radius = rng.uniform(0.28, 0.72), rng.uniform(0.034, 0.042) * patient.width
  drop, first = rng.uniform(0.32, 0.56), rng.uniform(-0.15, -0.09)
  for number in range(11):
    for side in (-1, 1):
      top = first + 0.098 * number + rng.normal(0, 0.006)
      fall = drop * min(1, 0.45 + 0.12 * number) * rng.uniform(0.95, 1.05)
      line = patient.to_film(_rib(rng, top, fall, number, side, patient.turn))
      end = rng.uniform(0.78, 0.9)
      tube(canvas, line, 1.4 * radius, lambda d, t, e=end: _shade_rib(d, t, radius, density, e))


def _rib(
  rng: np.random.Generator, top: float, fall: float, number: int, side: int, turn: float
) -> np.ndarray:
  """Returns a rib in patient coordinates, from the spine around the wall to its cartilage."""
  stop = 2.75 if number < 6 else 2.5 - 0.16 * (number - 6)
  angle = np.linspace(0.12, stop, 36)
  levels, walls = (-0.05, 0.05, 0.19, 0.37, 0.6, 0.9), (0.38, 0.55, 0.72, 0.86, 0.96, 1.02)
  wall = np.interp(top + 0.45 * fall, levels, walls)
  u = side * wall * np.sin(angle) ** 0.9 + turn * (1 - np.cos(angle)) / 2
  v = top + fall * (1 - np.cos(angle)) / 2 - 0.025 * np.sin(2 * angle)
  return np.stack([u, v], -1) + rng.normal(0, 0.003, 2)


def _shade_rib(
  distance: np.ndarray, position: np.ndarray, radius: float, density: float, end: float
) -> np.ndarray:
  """Returns the shade of a rib: dense along the lateral wall, faint toward its front end."""
  front = np.clip((position - 0.5) * 5, 0, 1)
  girth = radius * (0.85 + 0.25 * front)
  wall = 1 + 0.9 * bell(position - 0.5, 0.12)
  fade = np.clip((end - position) * 12, 0, 1) * np.clip(position * 10 - 0.1, 0, 1)
  shade = wall * fade * (1 - 0.3 * front)
  return _shell(distance, girth, density) * shade


def add_shoulders(patient: Patient, canvas: np.ndarray) -> None:
  """Add clavicles and scapulae; on portable films, both are higher and overlap the lungs."""
  rng = patient.stream('shoulders')
  lift, over = (-0.06, 0.12) if patient.portable else (0.0, 0.0)
  rise, inward = rng.normal(0.04, 0.03), over + abs(rng.normal(0, 0.04))
  heights = np.array([0.22 + lift, 0.17 + lift - rise, 0.05 + lift - rise, -0.03 + lift])
  clavicle = np.stack([(0.11, 0.4, 0.75, 1.15), heights], -1)
  scapula = np.array([(1.22, 0.1), (1.02, 0.06), (0.9, 0.2), (0.93, 0.45), (1, 0.58), (1.12, 0.35)])
  scapula[:, 0] -= inward * np.array([0, 0, 1, 1, 1, 0.5])
  for mirror in ((-1, 1), (1, 1)):
    bone = jitter(rng, clavicle, 0.012) * mirror
    line = patient.to_film(smooth(bone + (patient.turn, 0), 32))
    add_bone(canvas, line, 0.02, 0.042 * patient.width, rng.uniform(0.5, 0.9))
    blade = jitter(rng, scapula, 0.015) * mirror
    _add_blade(canvas, patient.to_film(smooth(blade, 40, closed=True)))


def _add_blade(canvas: np.ndarray, outline: np.ndarray) -> None:
  """Add a scapula: a thin plate with thickened borders."""
  depth = inside(outline, len(canvas))
  canvas += 0.25 * np.clip(depth * 200, 0, 1) + 0.32 * bell(depth - 0.005, 0.004)


def add_chin(patient: Patient, canvas: np.ndarray) -> None:
  """Add the chin at the top of some films, mostly of those taken in bed."""
  rng = patient.stream('chin')
  if rng.random() > (0.35 if patient.portable else 0.05):
    return
  low, tilt = patient.top + rng.uniform(-0.12, -0.05), rng.normal(0, 0.03)
  x = patient.center + np.array((-0.11, -0.07, 0, 0.07, 0.11, 0.1, -0.1))
  y = low + np.array((-0.12, -0.03, 0, -0.03, -0.12)) + tilt * np.linspace(-1, 1, 5)
  outline = np.stack([x, [*y, -0.3, -0.3]], -1)
  jaw = inside(smooth(outline, 64, closed=True), len(canvas))
  canvas += 0.9 * dome(jaw, 0.05) + 0.3 * bell(jaw - 0.006, 0.004)
