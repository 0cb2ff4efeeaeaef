"""Array operations that networks share; images are NHWC."""

from jaxsr.ops.attention import attend
from jaxsr.ops.broadcast import per_channel
from jaxsr.ops.convolution import convolve, deconvolve, join, multiply
from jaxsr.ops.platform import plain
from jaxsr.ops.resample import BOUNDARIES, INTERPOLATION, NHWC, pixel_shuffle, resize, upsample

__all__ = [
  'BOUNDARIES',
  'INTERPOLATION',
  'NHWC',
  'attend',
  'convolve',
  'deconvolve',
  'join',
  'multiply',
  'per_channel',
  'pixel_shuffle',
  'plain',
  'resize',
  'upsample',
]
