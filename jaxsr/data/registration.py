"""Check that low-resolution images lie where their high-resolution images do."""

import numpy as np
from jaxtyping import Float

from jaxsr.data import degradation
from jaxsr.data.sources import Source, low_resolution
from jaxsr.errors import ImageError, count

FAR = 0.25  # low-resolution pixels, from which a pair counts as shifted
_MOST = 64  # pairs that are looked at
_BAND = 0.25  # cycles per pixel; beyond, noise outweighs the film
_STEP = 0.02  # of the sub-pixel search


def describe(source: Source) -> str:
  """Describe the shifts of up to 64 pairs of a source, evenly spaced, in one line."""
  found = []
  for index in range(0, len(source), -(-len(source) // _MOST)):
    try:
      lr, hr = low_resolution(source, index), source[index]
    except ImageError:
      continue  # reported when it is used
    if lr is not None:
      reduced = degradation.resize(hr, *lr.shape[:2])
      found.append((float(np.hypot(*shift(lr.mean(2), reduced.mean(2)))), source.names[index]))
  if not found:
    return 'registration: no pair can be read'
  worst, name = max(found)
  far = sum(size > FAR for size, _ in found)
  shifted = f'{far} shifted by more than {FAR} low-resolution pixels, ' if far else ''
  corrected = '; shifts are not corrected' if far else ''
  return (
    f'registration of {count(len(found), "pair")}: {shifted}at most {worst:.2f} low-resolution '
    f'pixels ({name}){corrected}'
  )


def shift(a: Float[np.ndarray, 'h w'], b: Float[np.ndarray, 'h w']) -> tuple[float, float]:
  """Estimate how far an image lies from another by phase correlation (Kuglin and Hines, 1975).

  The peak is found on whole pixels, then on steps of 0.02 pixels around it, as by Guizar-Sicairos
  et al. (2008).

  Returns:
    Rows and columns that `a` is shifted down and to the right of `b`.
  """
  window = np.outer(*(np.hanning(side + 2)[1:-1] for side in a.shape))
  spectra = [np.fft.fft2((x - x.mean()) * window) for x in (a, b)]
  rows, columns = (np.fft.fftfreq(side) for side in a.shape)
  cross = spectra[0] * spectra[1].conj()
  size = np.abs(cross)
  seen = (np.hypot(rows[:, None], columns) <= _BAND) & (size > 1e-12 * size.max())
  phase = np.divide(cross, size, out=np.zeros_like(cross), where=seen)
  if not seen.any():
    return 0.0, 0.0
  peak = np.unravel_index(np.argmax(np.fft.ifft2(phase).real), a.shape)
  around = np.arange(-1, 1 + _STEP / 2, _STEP)
  places = [
    p - (side if p > side // 2 else 0) + around for p, side in zip(peak, a.shape, strict=True)
  ]
  down, across = (
    np.exp(2j * np.pi * np.outer(place, f))
    for place, f in zip(places, (rows, columns), strict=True)
  )
  fine = np.real(down @ phase @ across.T)
  i, j = np.unravel_index(np.argmax(fine), fine.shape)
  return float(places[0][i]), float(places[1][j])
