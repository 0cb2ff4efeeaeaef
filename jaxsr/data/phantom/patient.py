"""The patient: properties that all organs share, and the coordinates of the anatomy."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsr.data.phantom.draw import centers

SOFT = 7.0  # attenuation of soft tissue per film width (about 0.2 per cm, 35 cm film)

# fmt: off
_STREAMS = (  # append only: the position is the key of the stream
  'patient', 'trunk', 'lungs', 'mediastinum', 'texture', 'vessels', 'haze', 'hila', 'arms',
  'breasts', 'gas', 'spine', 'ribs', 'shoulders', 'chin', 'devices', 'nodules', 'count',
  'display', 'enhance', 'noise', 'border', 'marker')
# fmt: on


@dataclasses.dataclass(frozen=True)
class Patient:
  """Properties that all organs share: habitus, positioning and the kind of examination."""

  seed: int
  index: int
  portable: bool  # AP, supine or sitting in bed
  center: float  # film x of the midline
  top: float  # film y of the lung apex
  width: float  # half width of the chest, film units
  height: float  # apex to right dome, film units
  tilt: float  # radians
  taper: float  # increase of the chest's width toward the bottom, in u over its height
  turn: float  # shift of the front of the chest relative to its back, in u
  heart: float  # heart size, 1 is normal
  thickness: float  # attenuation through the trunk

  def stream(self, name: str) -> np.random.Generator:
    """Returns the random stream of an organ or a stage of the film."""
    return _stream(self.seed, self.index, name)

  def to_film(self, uv: np.ndarray | Sequence) -> np.ndarray:
    """Returns the film points (x, y) of patient points [..., 2] (u, v)."""
    u, v = np.moveaxis(np.asarray(uv), -1, 0)
    u = u * (1 + self.taper * (np.clip(v, 0, 1.2) - 0.5))
    xy = np.stack([u * self.width, v * self.height + self.top - 0.5], -1)
    c, s = np.cos(self.tilt), np.sin(self.tilt)
    return xy @ np.array([[c, s], [-s, c]]) + (self.center, 0.5)

  def grid(self, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the patient coordinates u and v [size, size] of each pixel."""
    axis = centers(size).astype(np.float32)
    x, y = axis[None] - np.float32(self.center), axis[:, None] - np.float32(0.5)
    c, s = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
    u = (x * c + y * s) / np.float32(self.width)
    v = (y * c - x * s + np.float32(0.5 - self.top)) / np.float32(self.height)
    return u / (1 + self.taper * (np.clip(v, 0, 1.2) - 0.5)), v


def draw_patient(seed: int, index: int) -> Patient:
  """Returns a random patient; on portable films, lungs are shorter and positioning is worse."""
  rng = _stream(seed, index, 'patient')

  def clipped(mean, deviation, low, high):
    return float(np.clip(rng.normal(mean, deviation), low, high))

  portable = bool(rng.random() < 0.35)
  spread = 1.6 if portable else 1.0
  height = clipped(*((0.50, 0.05) if portable else (0.585, 0.04)), 0.38, 0.68)
  return Patient(
    seed=seed,
    index=index,
    portable=portable,
    height=height,
    center=0.5 + rng.normal(0, 0.013) * spread,
    top=clipped(0.145 if portable else 0.12, 0.03, 0.06, 0.24),
    width=clipped(0.375, 0.025, 0.31, 0.43),
    tilt=float(np.radians(rng.normal(0, 1.3) * spread)),
    taper=rng.normal(0, 0.12),
    turn=rng.normal(0, 0.03) * spread,
    heart=clipped(1.15 if portable else 1.0, 0.12, 0.8, 1.5),
    thickness=clipped(4.3, 0.5, 3.3, 5.6),
  )


def _stream(seed: int, index: int, name: str) -> np.random.Generator:
  key = (_STREAMS.index(name),)
  return np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=key))
