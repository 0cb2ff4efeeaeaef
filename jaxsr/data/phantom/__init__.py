"""Phantoms, artificial chest X-rays: thorax, X-ray, detector and film in one function of a seed.

Conventions. Film coordinates run from 0 to 1, x to the right and y down; pixel i has its center at
(i + 0.5) / size. Patient coordinates (u, v): u = 0 on the midline and 1 at the lateral wall of the
chest, positive toward the viewer's right (the patient's left); v = 0 at the lung apex and 1 at
the right dome of the diaphragm. Attenuation is the dimensionless sum of mu * t along the ray, on a
canvas [size, size] to which each organ adds. Each organ has its own random stream, so that a change
of one organ does not affect the others.
"""

import numpy as np

from jaxsr.data.phantom.anatomy import thorax
from jaxsr.data.phantom.film import display, expose, frame, scatter, window
from jaxsr.data.phantom.marker import mark
from jaxsr.data.phantom.nodules import Nodule, add_nodule, draw_nodules
from jaxsr.data.phantom.patient import draw_patient

__all__ = ['Nodule', 'phantom', 'phantom_nodules']


def phantom(
  seed: int, index: int, *, size: int = 1024, bits: int = 8, nodules: int | None = None
) -> np.ndarray:
  """Returns a phantom, an artificial chest X-ray; equal arguments give the same one.

  >>> phantom(0, 0, size=64).shape
  (64, 64)

  Args:
    seed: Seed of a family of films, >= 0.
    index: Index of the film in the family, >= 0.
    size: Side in pixels, a multiple of 8 from 64 to 2048. The anatomy does not depend on it.
    bits: 8 for uint8, 16 for uint16 with the full range.
    nodules: Number of lung nodules; None draws it at random (most films have none).

  Returns:
    The film [size, size], with bright bones and dark air.

  Raises:
    ValueError: If an argument is out of its range.
  """
  _check(seed, index, size, nodules)
  if bits not in (8, 16):
    raise ValueError(f'bits={bits}: must be 8 or 16')
  patient = draw_patient(seed, index)
  attenuation, lung = thorax(patient, size)
  scattered = scatter(
    patient, attenuation
  )  # without nodules, so that each nodule changes the film only locally
  center_and_width = window(patient, attenuation, lung, scattered)
  for nodule in draw_nodules(patient, size, nodules):
    add_nodule(attenuation, nodule)
  film = display(patient, expose(patient, attenuation, scattered), center_and_width)
  film = frame(patient, mark(patient, film))
  dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
  return np.rint(np.clip(film, 0, 1) * top).astype(dtype)


def phantom_nodules(
  seed: int, index: int, *, size: int = 1024, nodules: int | None = None
) -> tuple[Nodule, ...]:
  """Returns the nodules that `phantom` draws for the same arguments, in pixels of that size."""
  _check(seed, index, size, nodules)
  return draw_nodules(draw_patient(seed, index), size, nodules)


def _check(seed: int, index: int, size: int, nodules: int | None) -> None:
  for name, value in (('seed', seed), ('index', index), ('nodules', nodules or 0)):
    if value < 0:
      raise ValueError(f'{name}={value}: must be 0 or more')
  if size % 8 or not 64 <= size <= 2048:
    raise ValueError(f'size={size}: must be a multiple of 8 from 64 to 2048; try 256 or 1024')
