"""How closely the results of a model agree with an image: exactly, within its noise, or not."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import quality
from jaxsr.inference import agreement, input_range
from jaxsr.inference.agreement import Agreement, Reduction
from jaxsr.inference.input_range import InputRange

# The share of the input's pixels that may be off before the exact step. Rounding alone puts up to
# 7 % off where the scale is 2, and less than 1 % where it is 4.
_MOST_OFF, _MOST_OFF_X2 = 0.05, 0.12
_DEVIATIONS = 3.0  # of the noise, within which all but 0.3 % of its values lie


class Upscaled(NamedTuple):
  """An upscaled image [sh, sw, c] and the floats that it was rounded from.

  Attributes:
    image: the image, of the dtype of the input.
    sr: the network's output, projected if `settled`, in [0, 1], float32, not rounded.
    agreement: how far the reduction of `image` equals the input; None if it was not asked for, or
      the network was not trained for a reduction.
    settled: whether the image was made to agree.
  """

  image: UInt[np.ndarray, 'sh sw c']
  sr: Float[np.ndarray, 'sh sw c']
  agreement: Agreement | None
  settled: bool


class Rule(NamedTuple):
  """How results are made to agree with their input.

  Attributes:
    reduction: how the input was made.
    noisy: whether the input may be noisy; then results agree within its noise.
    inputs: the noise and compression up to which results agree, if not `noisy`; None has no limit.
  """

  reduction: Reduction
  noisy: bool = False
  inputs: InputRange | None = None

  @property
  def name(self) -> str:
    """The setting, as calibrations hold it."""
    return f'{self.reduction.kind} within noise' if self.noisy else self.reduction.kind

  def width(self, lr: UInt[np.ndarray, 'h w c'], white: int) -> float | None:
    """Returns how far results may be from an input, in its gray levels; None leaves them alone.

    It is three standard deviations of the input's noise if that may be noisy, else 0.
    """
    if self.noisy:
      return _DEVIATIONS * quality.measure(lr, white).noise * white / 255
    return None if input_range.exceeded(self.inputs, lr, white) else 0.0

  def finish(
    self,
    sr: Float[np.ndarray, 'sh sw c'],
    lr: UInt[np.ndarray, 'h w c'],
    *,
    white: int,
    width: float,
  ) -> Upscaled:
    """Round a projected image; settle it if `width` is 0 and few pixels are off (5 %; x2: 12 %)."""
    image = to_levels(sr, white, lr.dtype)
    if width:
      within = int(width + 0.5)  # since the image is rounded
      found = agreement.agreement(image, lr, self.reduction, white=white, within=within)
      return Upscaled(image, sr, found, settled=True)
    found = agreement.agreement(image, lr, self.reduction, white=white)
    most = _MOST_OFF_X2 if self.reduction.scale == 2 else _MOST_OFF
    if found.pixels - found.equal > most * found.pixels:
      return Upscaled(image, sr, found, settled=False)
    image, found = agreement.settle(sr, lr, self.reduction, white=white)
    return Upscaled(image, sr, found, settled=True)

  def round_only(
    self, sr: Float[np.ndarray, 'sh sw c'], lr: UInt[np.ndarray, 'h w c'], *, white: int
  ) -> Upscaled:
    """Round an image that is not made to agree, and count in how many pixels it does."""
    image = to_levels(sr, white, lr.dtype)
    found = agreement.agreement(image, lr, self.reduction, white=white)
    return Upscaled(image, sr, found, settled=False)


def to_levels(sr: Float[np.ndarray, 'h w c'], white: int, kind: Any) -> UInt[np.ndarray, 'h w c']:
  """Round an image in [0, 1] to the gray levels from 0 to `white`."""
  return np.rint(sr * np.float32(white)).astype(kind)
