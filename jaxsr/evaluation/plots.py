"""Draw image strips and contact sheets, uint8 [h, w, c], of float32 images [h, w, c] in [0, 1]."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxsr.errors import shown

Picture = Float[np.ndarray, 'h w c']
Pixels = UInt8[np.ndarray, 'h w c']

CELL = 256  # pixels of the side of each image in a sheet
GAP = 6
LINE = 18
ERROR_PEAK = 32 / 255  # the error that is shown as white


class Example(NamedTuple):
  """The versions of one image; `title` is printed above them."""

  title: str
  lr: Picture
  bicubic: Picture
  sr: Picture
  hr: Picture


def strip(example: Example) -> Pixels:
  """Draw a detail of LR, bicubic, SR, HR and the error of SR side by side."""
  cells = _details(example)
  names = ('LR', 'bicubic', 'SR', 'HR', 'error of SR')
  return sheet([(example.title, [cells[name] for name in names], names)])


def contact_sheet(examples: Sequence[Example]) -> Pixels:
  """Draw one row per image: the full image and error maps, then a detail of each version."""
  rows = []
  for example in examples:
    cells = _full_images(example) | _details(example)
    names = ('HR, full', 'error of bicubic, full', 'error of SR, full')
    names += ('LR', 'bicubic', 'SR', 'HR', 'error of bicubic', 'error of SR')
    rows.append((example.title, [cells[name] for name in names], names))
  return sheet(rows)


def detail(example: Example) -> tuple[int, int, int]:
  """Choose the detail to show: the square near the center where the error of bicubic is largest.

  Returns its row, column and side, which are multiples of the scale.
  """
  height, width = example.hr.shape[:2]
  scale = height // example.lr.shape[0]
  side = max(scale, min(height, width) // 4 // scale * scale)
  error = np.square(example.hr - example.bicubic).mean(axis=2)
  best, where = -1.0, (0, 0)
  for row in _grid(height, side, scale):
    for column in _grid(width, side, scale):
      value = float(error[row : row + side, column : column + side].mean())
      if value > best:
        best, where = value, (row, column)
  return *where, side


def _grid(length: int, side: int, scale: int) -> range:
  start = length // 8 // scale * scale
  return range(start, max(start, length - length // 8 - side) + 1, max(scale, side // 2))


def _details(example: Example) -> dict[str, Image.Image]:
  row, column, side = detail(example)
  scale = example.hr.shape[0] // example.lr.shape[0]
  window = np.s_[row : row + side, column : column + side]
  small = np.s_[row // scale : (row + side) // scale, column // scale : (column + side) // scale]
  nearest = Image.Resampling.NEAREST
  return {
    'LR': _image(example.lr[small], nearest),
    'bicubic': _image(example.bicubic[window]),
    'SR': _image(example.sr[window]),
    'HR': _image(example.hr[window]),
    'error of bicubic': _image(_error(example.bicubic, example.hr)[window], nearest),
    'error of SR': _image(_error(example.sr, example.hr)[window], nearest),
  }


def _full_images(example: Example) -> dict[str, Image.Image]:
  full = _image(example.hr)
  row, column, side = detail(example)
  factor = CELL / max(example.hr.shape[:2])
  box = [column * factor, row * factor, (column + side) * factor, (row + side) * factor]
  ImageDraw.Draw(full).rectangle(box, outline=(255, 200, 0))
  return {
    'HR, full': full,
    'error of bicubic, full': _image(_pool(_error(example.bicubic, example.hr))),
    'error of SR, full': _image(_pool(_error(example.sr, example.hr))),
  }


def _error(image: Picture, hr: Picture) -> Float[np.ndarray, 'h w 1']:
  return np.abs(image - hr).mean(axis=2, keepdims=True) / ERROR_PEAK


def _pool(image: Picture) -> Float[np.ndarray, '_ _ 1']:
  """Reduce a map by max-pooling, which keeps fine lines visible."""
  factor = max(1, max(image.shape[:2]) // CELL)
  rows, columns = image.shape[0] // factor, image.shape[1] // factor
  blocks = image[: rows * factor, : columns * factor, 0].reshape(rows, factor, columns, factor)
  return blocks.max(axis=(1, 3))[..., None]


def _image(image: Picture, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
  pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
  pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
  factor = CELL / max(pixels.shape[:2])
  size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
  return Image.fromarray(pixels).resize(size, resample)


def sheet(
  rows: Sequence[tuple[str, Sequence[Image.Image], Sequence[str]]], *, cell: int = CELL
) -> Pixels:
  """Draw rows of pictures of at most `cell` pixels per side: a title, and the pictures' names."""
  columns = max(len(cells) for _, cells, _ in rows)
  height = 2 * LINE + cell + GAP
  drawn = Image.new('RGB', (columns * (cell + GAP) + GAP, len(rows) * height + GAP), 'white')
  draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(13)
  for i, (title, cells, names) in enumerate(rows):
    top = GAP + i * height
    draw.text((GAP, top), shown(title), fill='black', font=font)
    for j, (picture, name) in enumerate(zip(cells, names, strict=True)):
      left = GAP + j * (cell + GAP)
      draw.text((left, top + LINE), shown(name), fill=(90, 90, 90), font=font)
      drawn.paste(picture, (left, top + 2 * LINE))
  return np.asarray(drawn)
