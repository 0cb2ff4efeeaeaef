"""Which detail of an upscaled film is not in the film: by patches of 64x64 pixels.

Scanning Fourier ring correlation (sFRC; Kc, Zeng, Soni and Badano, arXiv 2603.04673) compares each
patch with the original ring by ring in the frequency domain. It ignores energy: a patch without
detail looks like a patch with wrong detail. Invented energy is therefore measured beside it: the
energy in the octave beyond the low resolution's Nyquist frequency that does not correlate with the
film. Null-space energy vanishes in the reduction to the low resolution.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float

from jaxsr.inference.agreement import Reduction, matrix

SIDE = 64  # pixels of a patch
RINGS = SIDE // 2  # inscribed in the spectrum of a patch
CORRELATED = 0.5  # below this, a ring or octave does not correlate with the film
ENERGY = 0.5  # of the film's energy, from which uncorrelated detail is flagged
FIGURES = ('flagged', 'invented', 'energy', 'correlation', 'crossing', 'contradicted')
FIGURES += ('null', 'null_error')  # of a film, by the patches that are measured
_FLAT = 3 / 255  # standard deviation up to which a patch of the film is air or an empty frame
_TINY = 1e-12

Gray = Float[np.ndarray, 'h w']
Spectra = Complex[np.ndarray, 'n side half']


class Patches(NamedTuple):
  """The audit of the patches of a film, row by row.

  Attributes:
    kept: whether the patch is measured: the film is not flat there.
    curves: the ring correlation with the film, by frequency.
    crossing: the lowest frequency at which it falls below 0.5, relative to Nyquist.
    energy: in the octave beyond the low resolution's Nyquist, relative to the film's.
    correlation: with the film in that octave.
    null: the squared null-space component of the output, in (gray levels / 255)^2.
    null_error: the same of the error.
  """

  kept: Bool[np.ndarray, ' n']
  curves: Float[np.ndarray, 'n rings']
  crossing: Float[np.ndarray, ' n']
  energy: Float[np.ndarray, ' n']
  correlation: Float[np.ndarray, ' n']
  null: Float[np.ndarray, ' n']
  null_error: Float[np.ndarray, ' n']

  @property
  def invented(self) -> Float[np.ndarray, ' n']:
    """The energy in the octave that does not correlate, relative to the film's energy."""
    return self.energy * (1 - np.maximum(self.correlation, 0) ** 2)

  @property
  def flagged(self) -> Bool[np.ndarray, ' n']:
    """Whether the patch has half of the film's energy or more, and it does not correlate."""
    return self.kept & (self.energy >= ENERGY) & (self.correlation < CORRELATED)

  @property
  def share(self) -> float:
    """The share of the measured patches that is flagged; 0 if none is measured."""
    return float(self.flagged.sum() / max(self.kept.sum(), 1))


def patches(image: Gray) -> Float[np.ndarray, 'n side side']:
  """Returns the patches of an image without overlap; the rest at the ends is left out."""
  rows, columns = (length // SIDE for length in image.shape)
  cut = image[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
  return cut.swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def spectra(image: Gray) -> Spectra:
  """Returns the spectra of the patches, without their means and under a Hann window."""
  found = patches(image.astype(np.float64))
  found = found - found.mean((1, 2), keepdims=True)
  window = np.hanning(SIDE)
  return np.fft.rfft2(found * np.outer(window, window))


def ring_correlation(first: Spectra, second: Spectra) -> Float[np.ndarray, 'n rings']:
  """Compute the Fourier ring correlation of patches, on the rings inscribed in the spectrum.

  As published, a frequency belongs to the two rings next to its radius, with half its weight each.
  """
  rings, _ = _masks()
  cross = np.abs(_sum(np.real(first * second.conj()), rings))
  energies = [_sum(np.abs(x) ** 2, rings) for x in (first, second)]
  return cross / np.sqrt(np.maximum(energies[0] * energies[1], _TINY))


def octave(scale: int) -> Float[np.ndarray, ' frequencies']:
  """Returns the weights of the octave beyond the Nyquist frequency of the low resolution."""
  _, nearest = _masks()
  nyquist = RINGS / scale
  inside = (np.arange(RINGS + 1) > nyquist) & (np.arange(RINGS + 1) <= 2 * nyquist)
  return nearest[:, inside].sum(1)


def audit(sr: Gray, hr: Gray, scale: int) -> Patches:
  """Audit an upscaled film against the original.

  Args:
    sr: the upscaled film in [0, 1].
    hr: the film in [0, 1], at least 64x64 pixels.
    scale: the factor between them and the low resolution.
  """
  own, film = spectra(sr), spectra(hr)
  curves = ring_correlation(own, film)
  low = curves < CORRELATED
  low[:, :2] = False  # the mean and the gradient of a patch
  crossing = np.where(low.any(1), low.argmax(1), RINGS) / RINGS
  band = octave(scale)
  energy, reference = (_sum(np.abs(x) ** 2, band) for x in (own, film))
  cross = _sum(np.real(own * film.conj()), band)
  unseen, error = null_space(sr, scale), null_space(sr - hr, scale)
  return Patches(
    patches(hr).std((1, 2)) > _FLAT,
    curves,
    crossing,
    energy / np.maximum(reference, _TINY),
    cross / np.sqrt(np.maximum(energy * reference, _TINY)),
    np.square(patches(unseen)).mean((1, 2)),
    np.square(patches(error)).mean((1, 2)),
  )


def unsupported(sr: Gray, pixel: Gray, scale: int) -> float:
  """Compute the share of an image's detail that a network trained on pixels does not show.

  It needs no original: the energy of the difference beyond the low resolution's Nyquist frequency,
  relative to that of `sr`.

  Args:
    sr: the upscaled film in [0, 1].
    pixel: the same low resolution, upscaled by a network that was trained with a pixel loss.
    scale: the factor.
  """
  band = octave(scale)
  difference, own = (_sum(np.abs(spectra(x)) ** 2, band).sum() for x in (sr - pixel, sr))
  return float(difference / max(own, _TINY))


def null_space(image: Gray, scale: int) -> Gray:
  """Returns the part of an image that Pillow's bicubic reduction removes."""
  (up, down), (across, along) = (_operators(length, scale) for length in image.shape)
  return image - up @ (down @ image @ along.T) @ across.T


def film_row(found: Patches) -> dict[str, Any]:
  """Returns the figures of a film: medians and shares of its measured patches; None without any."""
  if not found.kept.any():
    return {'patches': 0} | dict.fromkeys(FIGURES)
  kept = found._replace(**{n: x[found.kept] for n, x in found._asdict().items()})
  return {
    'patches': len(kept.kept),
    'flagged': kept.share,
    'invented': float(np.median(kept.invented)),
    'energy': float(np.median(kept.energy)),
    'correlation': float(np.median(kept.correlation)),
    'crossing': float(np.median(kept.crossing)),
    'contradicted': float((kept.crossing < 0.25).mean()),
    'null': float(255 * np.sqrt(kept.null.mean())),
    'null_error': float(255 * np.sqrt(kept.null_error.mean())),
  }


@functools.cache
def _masks() -> tuple[np.ndarray, np.ndarray]:
  """Returns the weights [frequencies, rings] of the published rings, and of the nearest ring.

  Spectra of real images hold half of the frequencies; the others count by a factor of two.
  """
  across = np.fft.rfftfreq(SIDE) * SIDE
  radius = np.hypot(np.fft.fftfreq(SIDE)[:, None] * SIDE, across)
  times = np.broadcast_to(np.where((across == 0) | (across == RINGS), 1.0, 2.0), radius.shape)
  numbers = np.arange(RINGS + 1)
  low, high, near = (f(radius).ravel()[:, None] == numbers for f in (np.floor, np.ceil, np.rint))
  weight = times.ravel()[:, None]
  return (weight * (low + 1.0 * high) / 2)[:, :RINGS], weight * near


def _sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  return values.reshape(len(values), len(weights)) @ weights


@functools.lru_cache(maxsize=4)
def _operators(length: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the pseudo-inverse of the reduction of one axis, and the reduction."""
  down = matrix(Reduction(scale), length)
  return np.linalg.pinv(down), down
