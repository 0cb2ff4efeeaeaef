"""Devices on and in the patient: electrodes with leads, sternal wires and catheters."""

import numpy as np

from jaxsr.data.phantom.draw import jitter, smooth, stroke
from jaxsr.data.phantom.patient import Patient


def add_devices(patient: Patient, canvas: np.ndarray) -> None:
  """Add electrodes, wires and catheters to a share of the films."""
  rng = patient.stream('devices')
  if rng.random() < (0.75 if patient.portable else 0.15):
    for _ in range(rng.integers(2, 5)):
      spot = patient.to_film(rng.uniform((-0.9, 0.05), (0.9, 1.1)))
      _add_electrode(canvas, spot)
      if rng.random() < 0.7:
        _add_lead(canvas, rng, spot)
  if rng.random() < 0.12:
    _add_wires(patient, canvas, rng)
  if rng.random() < (0.5 if patient.portable else 0.08):
    side = rng.choice((-1, 1))
    path = jitter(rng, [(0.5 * side, -0.3), (0.35 * side, 0.02), (-0.08, 0.2), (-0.13, 0.5)], 0.03)
    stroke(canvas, patient.to_film(smooth(path, 40)), 0.0016, 0.35)


def _add_electrode(canvas: np.ndarray, spot: np.ndarray) -> None:
  dot = spot + np.array([[0, 0], [5e-5, 0], [1e-4, 0]])
  for radius, value in ((0.0105, 0.2), (0.0045, 0.9), (0.003, -0.6)):
    stroke(canvas, dot, radius, value)


def _add_lead(canvas: np.ndarray, rng: np.random.Generator, spot: np.ndarray) -> None:
  leave = np.array((rng.choice((-0.1, 1.1)), rng.uniform(0.1, 1.1)))
  share = np.linspace(0, 1, 5)[:, None]
  path = spot + share * (leave - spot) + rng.normal(0, 0.05, (5, 2)) * np.sin(np.pi * share)
  stroke(canvas, smooth(path, 48), 0.0011, 0.35)


def _add_wires(patient: Patient, canvas: np.ndarray, rng: np.random.Generator) -> None:
  """Add the loops of steel wire that close the sternum after open heart surgery."""
  turn = np.linspace(0, 2 * np.pi, 20)
  for v in np.arange(0.3, 0.9, rng.uniform(0.09, 0.14)):
    spot = patient.to_film(np.array((patient.turn, v)) + rng.normal(0, 0.01, 2))
    a, b = rng.uniform(0.006, 0.014), rng.uniform(0.003, 0.007)
    loop = spot + np.stack([a * np.cos(turn), b * np.sin(turn + rng.uniform(0, 1))], -1)
    stroke(canvas, loop, 0.0008, 1.2)
