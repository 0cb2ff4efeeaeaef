"""Geometry of the film: outlines, tubes and strokes, and the projection of round bodies.

Lines are polylines [n, 2] of film points (x, y). Distances are smooth, so they are computed on a
coarse grid and enlarged; the sharp profile is applied at full resolution.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

Profile = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of distance and position 0..1


def centers(size: int) -> np.ndarray:
  """Returns the film coordinate of each pixel along one axis."""
  return (np.arange(size) + 0.5) / size


def bell(x: np.ndarray, width: float) -> np.ndarray:
  """Returns exp(-(x / width)^2)."""
  return np.exp(-((x / width) ** 2))


def chord(distance: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
  """Returns half the path of a ray through a round body at a distance from its axis."""
  return np.sqrt(np.maximum(radius * radius - distance * distance, 0))


def dome(distance: np.ndarray, radius: float) -> np.ndarray:
  """Returns the chord through a round body at a depth behind its edge: 0 outside, 1 at most."""
  rest = 1 - np.clip(distance / radius, 0, 1)
  return np.sqrt(1 - rest * rest)


def jitter(rng: np.random.Generator, points: np.ndarray | Sequence, amount: float) -> np.ndarray:
  """Returns the points, displaced at random."""
  return np.asarray(points) + rng.normal(0, amount, np.shape(points))


def smooth(points: np.ndarray | Sequence, count: int, *, closed: bool = False) -> np.ndarray:
  """Returns a cubic spline through the points [n, 2] as a polyline [count, 2]."""
  points = np.asarray(points, float)
  if closed:
    points = np.concatenate([points, points[:1]])
  from scipy.interpolate import CubicSpline  # here, since it takes long to import

  chords = np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1))  # centripetal: no loops
  knots = np.concatenate([[0], np.cumsum(chords)])
  spline = CubicSpline(knots, points, bc_type='periodic' if closed else 'natural')
  return spline(np.linspace(0, knots[-1], count))


def dense(line: np.ndarray) -> np.ndarray:
  """Returns a polyline with each segment divided into four."""
  position = np.linspace(0, len(line) - 1, 4 * len(line) - 3)
  return np.stack([np.interp(position, np.arange(len(line)), part) for part in line.T], -1)


@functools.lru_cache(maxsize=32)
def _enlarger(size: int, grid: int) -> np.ndarray:
  """Returns the cubic (Keys, 1981) interpolation matrix [size, grid] between pixel centers."""
  position = (np.arange(size) + 0.5) * grid / size - 0.5
  base = np.floor(position).astype(int)
  matrix = np.zeros((size, grid), np.float32)
  for tap in range(-1, 3):
    t = np.abs(position - base - tap)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    column = np.clip(base + tap, 0, grid - 1)
    np.add.at(matrix, (np.arange(size), column), np.where(t <= 1, near, far))
  return matrix


def enlarge(field: np.ndarray, size: int) -> np.ndarray:
  """Interpolate a square field to float32 [size, size]."""
  field = field.astype(np.float32)
  if len(field) == size:
    return field
  matrix = _enlarger(size, len(field))
  return matrix @ field @ matrix.T


def inside(outline: np.ndarray, size: int) -> np.ndarray:
  """Returns the distance [size, size] to a closed polyline in film units, positive inside."""
  grid = 128 if size >= 512 else 64
  axis = centers(grid).astype(np.float32)
  distance, _ = _nearest(axis, axis, outline, True)
  return enlarge(np.abs(distance) * (2 * _covered(outline, grid) - 1), size)


def _covered(outline: np.ndarray, grid: int) -> np.ndarray:
  """Whether a closed polyline contains the center of each cell [grid, grid], by even-odd."""
  (x0, y0), (x1, y1) = outline[:-1].T, outline[1:].T
  rows = centers(grid)[:, None]
  crossed = (y0 > rows) != (y1 > rows)
  x = x0 + (rows - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
  column = np.clip(np.ceil(x * grid - 0.5), 0, grid).astype(int)
  flips = np.zeros((grid, grid + 1), int)
  np.add.at(flips, (np.nonzero(crossed)[0], column[crossed]), 1)
  return np.cumsum(flips, 1)[:, :grid] % 2


def tube(canvas: np.ndarray, line: np.ndarray, reach: float, profile: Profile) -> None:
  """Add profile(distance, position) to the canvas within `reach` of an open polyline."""
  size = len(canvas)
  bends = np.ptp(line, axis=0).max() < 0.07  # letters and loops are too sharp for the coarse grid
  grid = size if bends else int(np.clip(size // 4, 64, 256))
  low = np.clip(np.floor((line.min(0) - reach) * grid).astype(int), 0, grid)
  high = np.clip(np.ceil((line.max(0) + reach) * grid).astype(int), 0, grid)
  if np.any(high <= low):
    return
  (c0, r0), (c1, r1) = low * size // grid, high * size // grid
  columns, rows = (slice(max(a - 2, 0), b + 2) for a, b in zip(low, high, strict=True))
  axis = centers(grid).astype(np.float32)
  fields = _nearest(axis[columns], axis[rows], line, False)
  matrix = _enlarger(size, grid)
  down, across = matrix[r0:r1, rows], matrix[c0:c1, columns].T
  distance, position = (down @ field @ across for field in fields)
  first, *_, last = (np.linalg.norm(np.diff(line, axis=0), axis=1) * (len(line) - 1)).tolist()
  beyond = np.maximum(np.maximum(-position * first, (position - 1) * last), 0)
  canvas[r0:r1, c0:c1] += profile(np.hypot(distance, beyond), np.clip(position, 0, 1))


def stroke(canvas: np.ndarray, line: np.ndarray, radius: float, value: float) -> None:
  """Add a line of constant density with round caps, antialiased over one pixel."""
  size = len(canvas)
  full = min(1, 2 * radius * size)

  def profile(distance, position):
    del position
    return value * np.clip(0.5 + (radius - distance) * size, 0, full)

  tube(canvas, line, radius + 2 / size, profile)


def _nearest(
  columns: np.ndarray, rows: np.ndarray, line: np.ndarray, closed: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the signed distance from a dense polyline and the position along it, [rows, columns].

  The position is 0 at the start and 1 at the end. An open line is extended straight beyond its
  ends, where the position is below 0 or above 1, so that both fields are smooth.
  """
  x, y = np.meshgrid(columns, rows)
  line = line.astype(np.float32)
  closeness = np.stack([x, y], -1) @ line.T
  closeness -= np.sum(line**2, 1) / 2  # in place, because it is the largest array
  vertex = np.argmax(closeness, -1)
  count = len(line) - 1
  if closed:
    chosen = (vertex - 1) % count, vertex % count
  else:
    chosen = (np.clip(vertex + s, 0, count - 1) for s in (-1, 0))
  before, after = (_to_segment(x, y, line, segment, closed) for segment in chosen)
  closer = after[0] < before[0]
  across, position = (np.where(closer, b, a) for a, b in zip(before[1:], after[1:], strict=True))
  return across, position / np.float32(count)


def _to_segment(
  x: np.ndarray, y: np.ndarray, line: np.ndarray, chosen: np.ndarray, closed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns squared distance, signed distance and position on the chosen segment per pixel."""
  (x0, y0), (dx, dy) = line[:-1].T, np.diff(line, axis=0).T
  inverse = 1 / (dx * dx + dy * dy + np.float32(1e-12))
  x0, y0, dx, dy, inverse = (part[chosen] for part in (x0, y0, dx, dy, inverse))
  px, py = x - x0, y - y0
  free = (px * dx + py * dy) * inverse
  along = np.clip(free, 0, 1)
  squared = (px - along * dx) ** 2 + (py - along * dy) ** 2
  across = px * dy - py * dx
  distance = np.copysign(np.sqrt(squared), across)
  start = chosen.astype(np.float32)
  if closed:
    return squared, distance, start + along
  beyond = ((chosen == 0) & (free < 0)) | ((chosen == len(line) - 2) & (free > 1))
  distance = np.where(beyond, across * np.sqrt(inverse), distance)
  return squared, distance, start + np.where(beyond, free, along)
