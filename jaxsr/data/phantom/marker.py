"""Letters on the film: the side marker and words such as PORTABLE."""

import numpy as np

from jaxsr.data.phantom.draw import dense, stroke
from jaxsr.data.phantom.patient import Patient

_GLYPHS = {  # strokes through the points of a grid 4 wide and 6 high, as column and row
  'A': '06 20 46,14 34',
  'B': '33 42 41 30 00 06 36 45 44 33 03',
  'D': '00 06 26 44 42 20 00',
  'E': '40 00 06 46,03 33',
  'G': '41 30 10 01 05 16 36 45 43 23',
  'I': '20 26',
  'L': '00 06 46',
  'N': '06 00 46 40',
  'O': '10 01 05 16 36 45 41 30 10',
  'P': '06 00 30 41 42 33 03',
  'R': '06 00 30 41 42 33 03,23 46',
  'S': '41 30 10 01 02 13 33 44 45 36 16 05',
  'T': '00 40,20 26',
  'U': '00 05 16 36 45 40',
}


def mark(patient: Patient, film: np.ndarray) -> np.ndarray:
  """Returns the film with a side marker and, often on portable films, a word in white letters."""
  rng = patient.stream('marker')
  cover = np.zeros_like(film)
  side = rng.choice((-1, 1))
  spot = np.array((0.5 + side * rng.uniform(0.33, 0.44), rng.uniform(0.04, 0.2)))
  turn, height = rng.normal(0, 0.12) + rng.choice((0, 0, 0, -1.57)), rng.uniform(0.022, 0.045)
  if rng.random() < 0.92:
    _write(cover, 'L' if side > 0 else 'R', spot, height, turn)
    if rng.random() < 0.6:
      below = spot + height * np.array((-np.sin(turn), np.cos(turn)))
      _write(cover, ''.join(rng.choice(list(_GLYPHS), 2)), below, 0.55 * height, turn)
  if rng.random() < (0.7 if patient.portable else 0.1):
    word = rng.choice(('PORTABLE', 'AP', 'SUPINE', 'UP'))
    spot = np.array((rng.uniform(0.15, 0.85), rng.uniform(0.03, 0.08)))
    _write(cover, word, spot, rng.uniform(0.014, 0.022), rng.normal(0, 0.03))
  cover = np.clip(cover, 0, 1)
  return film * (1 - cover) + np.float32(rng.uniform(0.88, 1)) * cover


def _write(canvas: np.ndarray, text: str, spot: np.ndarray, height: float, turn: float) -> None:
  """Add text centered on a film point; height in film units, turn in radians."""
  c, s = np.cos(turn), np.sin(turn)
  for place, letter in enumerate(text):
    for path in _GLYPHS[letter].split(','):
      points = dense(np.array([(int(column), int(row)) for column, row in path.split()]) / 6)
      points += (place - 0.5 * len(text) + 0.08, -0.5)
      stroke(canvas, spot + height * points @ np.array([[c, s], [-s, c]]), 0.085 * height, 1.0)
