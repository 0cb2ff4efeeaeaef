"""Array operations that networks share; images are NHWC."""

from jaxsr.ops.convolution import convolve, deconvolve
from jaxsr.ops.images import EDGES, INTERPOLATION, pixel_shuffle, resize, upsample

__all__ = [
  'EDGES',
  'INTERPOLATION',
  'convolve',
  'deconvolve',
  'pixel_shuffle',
  'resize',
  'upsample',
]
