"""The evaluation protocols: how an image becomes a pair of low and high resolution.

`xray`, the default: the high resolution is the image as stored (8 or 16 bit). The low resolution is
Pillow's bicubic reduction of it, rounded to the same depth. The bicubic baseline is rounded, too.

`luma`, the natural-image benchmarks (Set5 and the like): 8-bit RGB, cut to a multiple of the
scale. For networks of one channel, Y of ITU-R BT.601 rounded to 8 bit; the low resolution is
MATLAB's `imresize` of it in double, not rounded. For networks of three channels, `imresize` of the
RGB image, rounded to 8 bit as the benchmarks' files are; the output is rounded to 8-bit RGB, and
its Y compared with that of the image, neither rounded.

All round the output to the depth of the image, cut `scale` pixels off each side, and compute PSNR
and SSIM per image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr import metrics
from jaxsr.data import degradation


class Pair(NamedTuple):
  """An image prepared for measuring, float32 in [0, 1]; `levels` is its largest gray level."""

  lr: Float[np.ndarray, 'h w c']
  hr: Float[np.ndarray, 'sh sw c']
  bicubic: Float[np.ndarray, 'sh sw c']
  levels: int


def xray(image: UInt[np.ndarray, 'h w c'], scale: int) -> Pair:
  """Prepare a radiograph."""
  hr = degradation.cut(image, scale)
  return of_given(hr, degradation.downscale(hr, scale))


def of_given(hr: UInt[np.ndarray, 'sh sw c'], lr: UInt[np.ndarray, 'h w c']) -> Pair:
  """Prepare a radiograph whose low resolution is given, in the same type."""
  levels = int(np.iinfo(hr.dtype).max)
  bicubic = degradation.upscale(lr, hr.shape[0] // lr.shape[0])
  lr, hr, bicubic = ((x / levels).astype(np.float32) for x in (lr, hr, bicubic))
  return Pair(lr, hr, bicubic, levels)


def luma(image: UInt[np.ndarray, 'h w c'], scale: int) -> Pair:
  """Prepare a natural image."""
  y = luminance(degradation.cut(image, scale))
  height, width = y.shape[:2]
  lr = degradation.imresize(y / 255, height // scale, width // scale)
  bicubic = degradation.imresize(lr, height, width)
  bicubic = np.rint(np.clip(bicubic, 0, 1) * 255)
  return Pair(lr.astype(np.float32), _unit(y), _unit(bicubic), 255)


def luma_of_rgb(image: UInt[np.ndarray, 'h w c'], scale: int) -> Pair:
  """Prepare a natural image for a network of three channels: `lr` is RGB, the others are Y."""
  image = degradation.cut(image, scale)
  height, width = image.shape[:2]
  hr = np.broadcast_to(image, (height, width, 3)) / 255
  lr = _rounded(degradation.imresize(hr, height // scale, width // scale))
  bicubic = _rounded(degradation.imresize(lr, height, width))
  hr, bicubic = (metrics.luma(x) for x in (hr, bicubic))
  return Pair(lr.astype(np.float32), hr.astype(np.float32), bicubic.astype(np.float32), 255)


def _rounded(image: Float[np.ndarray, 'h w c']) -> Float[np.ndarray, 'h w c']:
  return np.rint(np.clip(image, 0, 1) * 255) / 255


def luminance(image: UInt[np.ndarray, 'h w c']) -> Float[np.ndarray, 'h w 1']:
  """Convert 8-bit RGB (or gray, as equal channels) to rounded BT.601 luma, 16 to 235."""
  rgb = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float64)
  return np.rint(metrics.luma(rgb, peak=255.0))


def _unit(image: Float[np.ndarray, 'h w c']) -> Float[np.ndarray, 'h w c']:
  return (image / 255).astype(np.float32)


PROTOCOLS = {'xray': xray, 'luma': luma}


def shrink(
  name: str, image: Float[np.ndarray, 'sh sw c'], scale: int, levels: int
) -> Float[np.ndarray, 'h w c']:
  """Reduce an image in [0, 1] as the protocol does."""
  height, width = image.shape[0] // scale, image.shape[1] // scale
  if name == 'luma':
    return degradation.imresize(image, height, width)
  kind = np.uint8 if levels == 255 else np.uint16
  return degradation.resize(np.rint(image * levels).astype(kind), height, width) / levels


def preparation(name: str, channels: int) -> Callable[[UInt[np.ndarray, 'h w c'], int], Pair]:
  """Returns the function that prepares images for a network of `channels` channels."""
  return luma_of_rgb if name == 'luma' and channels == 3 else PROTOCOLS[name]
