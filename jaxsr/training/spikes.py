"""Detection of a run that gets much worse at once, as after too high a learning rate."""

from collections.abc import Sequence

import numpy as np

from jaxsr.errors import UserError

RECENT, FEWEST = 20, 5  # rows of scalars to compare with
LEAST = 6.0  # dB; adversarial terms and hard batches cost less
_DEVIATIONS = 6.0  # robust standard deviations
_TO_SIGMA = 1.4826  # of the median absolute deviation


class Spiked(UserError):
  """The run got worse at once, and `config.on_spike` is not 'warn'."""

  def __init__(self, text: str, *, step: int, good: int):
    super().__init__(text)
    self.step, self.good = step, good  # `good` is the last step known to be from before


class SpikeMonitor:
  """Compares the PSNR of crops with that of the last rows, and validations with the best one.

  PSNR is compared since its scale is the same for all losses.
  """

  def __init__(self, recent: Sequence[float] = ()):
    self.recent = tuple(recent)  # replaced, never changed: another thread saves it
    self._spiking = False

  def reset(self) -> None:
    """Forget the last rows, since other loss terms are active now."""
    self.recent, self._spiking = (), False

  def crops(self, psnr: float) -> str:
    """Add a row's mean PSNR of crops; returns a warning if a spike begins, else ''."""
    if not np.isfinite(psnr):
      return ''  # skipped steps are counted elsewhere
    if len(self.recent) >= FEWEST:
      middle = float(np.median(self.recent))
      spread = _TO_SIGMA * float(np.median(np.abs(np.subtract(self.recent, middle))))
      if middle - psnr > max(LEAST, _DEVIATIONS * spread):
        began, self._spiking = not self._spiking, True
        text = f'loss spike: the PSNR of crops fell from {middle:.1f} to {psnr:.1f} dB'
        return text if began else ''
    self._spiking = False
    self.recent = (*self.recent[1 - RECENT :], psnr)
    return ''

  def validation(self, psnr: float, before: Sequence[float]) -> str:
    """Compare a validation with those before it; returns a warning, or ''."""
    best = max(before, default=psnr)
    if best - psnr <= LEAST or (before and best - before[-1] > LEAST):
      return ''
    return f'loss spike: validation PSNR fell from {best:.1f} to {psnr:.1f} dB'
