"""Draw the README's picture: input, bicubic, output and original of one X-ray, enlarged.

python -m benchmarks.picture --image NIH/val/00001706_001.png --output docs/images/upscaled.png
"""

from pathlib import Path

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

import jaxsr
from jaxsr import runtime
from jaxsr.data import sources
from jaxsr.evaluation.evaluator import Evaluator
from jaxsr.files import make_folder

CELL, GAP, LINE = 288, 6, 22  # pixels


def main(
  image: Path,
  output: Path,
  checkpoint: str = 'edsr_x4',
  row: int = 110,
  column: int = 270,
  side: int = 144,
) -> None:
  """Upscale one image and draw a detail of `side` pixels with its corner at `row`, `column`."""
  model = jaxsr.load(checkpoint)
  source = sources.Folder(image, channels=model.channels)
  evaluator = Evaluator(model.network, source, scale=model.scale)
  figures, example = evaluator.measure(model.variables, 0)
  scale = model.scale
  row, column, side = (x // scale * scale for x in (row, column, side))
  window = np.s_[row : row + side, column : column + side]
  small = np.s_[row // scale : (row + side) // scale, column // scale : (column + side) // scale]
  height, width = example.lr.shape[:2]
  cells = {
    'Original, full image': _marked(example.hr, row, column, side),
    f'Input, {width}x{height}': _enlarged(example.lr[small]),
    f'Bicubic x{scale}, {figures["bicubic_psnr"]:.1f} dB': _enlarged(example.bicubic[window]),
    f'{checkpoint}, {figures["psnr"]:.1f} dB': _enlarged(example.sr[window]),
    f'Original, {width * scale}x{height * scale}': _enlarged(example.hr[window]),
  }
  make_folder(output.parent)
  jaxsr.write(output, _side_by_side(cells))
  print(
    f'{output}: {figures["file"]}, PSNR {figures["psnr"]:.3f}, center {figures["psnr_centre"]:.3f}'
  )


def _pixels(image: np.ndarray) -> Image.Image:
  return Image.fromarray(np.rint(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8))


def _enlarged(image: np.ndarray) -> Image.Image:
  return _pixels(image).resize((CELL, CELL), Image.Resampling.NEAREST).convert('RGB')


def _marked(image: np.ndarray, row: int, column: int, side: int) -> Image.Image:
  factor = CELL / max(image.shape[:2])
  size = round(image.shape[1] * factor), round(image.shape[0] * factor)
  whole = _pixels(image).resize(size, Image.Resampling.BICUBIC).convert('RGB')
  box = [column * factor, row * factor, (column + side) * factor, (row + side) * factor]
  ImageDraw.Draw(whole).rectangle(box, outline=(255, 200, 0), width=2)
  return whole


def _side_by_side(cells: dict[str, Image.Image]) -> UInt8[np.ndarray, 'h w 3']:
  sheet = Image.new('RGB', (len(cells) * (CELL + GAP) + GAP, CELL + LINE + 2 * GAP), 'white')
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
  for i, (title, cell) in enumerate(cells.items()):
    left = GAP + i * (CELL + GAP)
    draw.text((left, GAP - 3), title, fill='black', font=font)
    sheet.paste(cell, (left, GAP + LINE))
  return np.asarray(sheet)


if __name__ == '__main__':
  runtime.keep_freed_memory()
  tyro.cli(main)
