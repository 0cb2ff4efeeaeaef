"""Data augmentation with hard edges at sub-pixel positions: collimators, film frames and letters.

1 % of the pixels carry most of the squared error of bicubic, and they lie along such edges. A few
hundred films contain few of them, each at one position. Drawn on the high resolution before it is
downscaled, they show the network edges at all positions between two pixels.
"""

import string

import numpy as np
from jaxtyping import Float, UInt
from PIL import Image, ImageDraw, ImageFont

Cover = Float[np.ndarray, 'h w']

_FINE = 4  # positions of letters per pixel
_LETTERS = string.ascii_uppercase + string.digits


def draw(crop: UInt[np.ndarray, 'h w c'], rng: np.random.Generator) -> UInt[np.ndarray, 'h w c']:
  """Returns a uint8 or uint16 crop with a collimator, a frame or letters."""
  cover, level = (_collimator, _frame, _letters)[rng.integers(3)](crop.shape[:2], rng)
  alpha = cover[..., None]
  drawn = crop * (1 - alpha) + alpha * level * np.iinfo(crop.dtype).max
  return np.rint(drawn).astype(crop.dtype)


def _collimator(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Cover, float]:
  """Returns a dark cover on one side of a line that is nearly vertical or horizontal."""
  return _ramp(_distance(shape, rng), rng), float(rng.uniform(0.0, 0.1))


def _frame(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Cover, float]:
  """Returns a dark or bright cover of a band."""
  distance, width = _distance(shape, rng), rng.uniform(1.5, 16.0)
  return _ramp(width / 2 - np.abs(distance), rng), float(rng.choice((0.0, 1.0)))


def _letters(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Cover, float]:
  """Returns a cover of one to three letters, black or white."""
  text = ''.join(rng.choice(list(_LETTERS), size=rng.integers(1, 4)))
  font = ImageFont.load_default(size=_FINE * float(rng.uniform(10, 40)))
  height, width = shape
  sheet = Image.new('L', (_FINE * width, _FINE * height))
  corner = (rng.integers(sheet.width - 4 * _FINE), rng.integers(sheet.height - 4 * _FINE))
  ImageDraw.Draw(sheet).text((int(corner[0]), int(corner[1])), text, fill=255, font=font)
  small = sheet.resize((width, height), Image.Resampling.BOX)
  return np.asarray(small, np.float64) / 255, float(rng.choice((0.0, 1.0)))


def _distance(shape: tuple[int, ...], rng: np.random.Generator) -> Cover:
  """Returns the distance of each pixel, in pixels, from a line through the inner crop."""
  angle = rng.integers(4) * np.pi / 2 + rng.choice((0.0, 1.0)) * rng.normal(0.0, np.pi / 90)
  height, width = shape
  rows = np.arange(height)[:, None] + 0.5 - height * rng.uniform(0.2, 0.8)
  columns = np.arange(width) + 0.5 - width * rng.uniform(0.2, 0.8)
  return rows * np.sin(angle) + columns * np.cos(angle)


def _ramp(distance: Cover, rng: np.random.Generator) -> Cover:
  """Returns the cover of a distance, with an edge that is one to three pixels wide."""
  return np.clip(distance / rng.choice((1.0, 1.0, 2.0, 3.0)) + 0.5, 0.0, 1.0)
