"""Low-resolution films as detectors, doses and archives make them.

The steps are those of the physics, in their order: blur before sampling and the detector's
aperture, quanta, the scintillator's correlation, electronic noise, the logarithm, the vendor's
sharpening, the archive's resampling, quantization, JPEG. `film.acquire` applies them to a film
with NumPy and Pillow, `crops.acquire` to a batch of crops inside a jitted step.

Gray values are taken for log-attenuation: with v in [0, 1] (1 is the peak, where the body absorbs
most) the intensity at the detector is I = exp(-ATTENUATION v) of that in air. Counts are Poisson
distributed, so that the relative noise is largest behind the mediastinum.
"""

import dataclasses
import hashlib

import numpy as np
from PIL import Image

ATTENUATION = 4.0  # a transmission of 1 : 55 over the range of gray values
QUANTA = 200_000.0  # in air at the usual dose, per pixel of a film reduced by REFERENCE_SCALE
REFERENCE_SCALE = 4
TAIL_WIDTH = 4.0  # of the blur's second Gaussian, relative to the first
SHARPENING_RADIUS = 1.0  # standard deviation of unsharp masking, in low-resolution pixels
KERNELS = ('detector', 'bicubic', 'bilinear', 'lanczos', 'area', 'nearest')
FILTERS = {  # Pillow's, by the names of the kernels
  'bicubic': Image.Resampling.BICUBIC,
  'bilinear': Image.Resampling.BILINEAR,
  'lanczos': Image.Resampling.LANCZOS,
  'area': Image.Resampling.BOX,
}
VERSION = 1  # of the named conditions: a table of another version cannot be compared


@dataclasses.dataclass(frozen=True)
class Acquisition:
  """How one low-resolution film is made; the defaults leave everything out but the reduction.

  Attributes:
    kernel: 'detector' integrates the intensity over each large pixel (its modulation transfer
      function is 0.64 at the low resolution's Nyquist frequency); the others reduce gray values as
      Pillow does, 'area' being its box, 'nearest' without antialiasing.
    blur: standard deviation of the blur before sampling, in high-resolution pixels, 0 to 4.
    tail: the share of the blur that is `TAIL_WIDTH` times as wide, 0 to 0.5.
    dose: relative to the usual dose; 0 leaves the quantum noise out. 1/16 gives each pixel of a
      film reduced by 4 as many quanta as a pixel of the full film has at the usual dose.
    correlation: standard deviation of the scintillator's blur of the counts, in low-resolution
      pixels, 0 to 1.
    electronic: standard deviation of the electronic noise, in quanta.
    noise: standard deviation of Gaussian noise on gray values, in levels of 255.
    sharpen: amount of unsharp masking, 0 to 1.
    bits: of the stored film, 8 to 16; a film of 8 bits keeps 8.
    via: an archive's first resampling, to `via` times the low resolution; 0 leaves it out.
    jpeg: quality of JPEG compression, 1 to 100; 0 leaves it out.
  """

  kernel: str = 'bicubic'
  blur: float = 0.0
  tail: float = 0.0
  dose: float = 0.0
  correlation: float = 0.0
  electronic: float = 0.0
  noise: float = 0.0
  sharpen: float = 0.0
  bits: int = 16
  via: float = 0.0
  jpeg: int = 0


_DETECTOR = Acquisition(kernel='detector', correlation=0.3, electronic=10.0)
CONDITIONS = {
  'clean': Acquisition(),  # Pillow's bicubic, the protocol of all tables
  'binned': Acquisition(kernel='detector'),
  'blurred': Acquisition(blur=2.0),
  'low_dose': dataclasses.replace(_DETECTOR, dose=1 / 16),
  'very_low_dose': dataclasses.replace(_DETECTOR, dose=1 / 64),
  'jpeg75': Acquisition(jpeg=75),
  'jpeg50': Acquisition(jpeg=50),
  'archive': Acquisition(kernel='bilinear', via=1.5, jpeg=85),
  'mixed': dataclasses.replace(_DETECTOR, blur=1.0, dose=1 / 16, sharpen=0.2, jpeg=85),
}


def generator(name: str, condition: str) -> np.random.Generator:
  """Returns the random numbers of a named condition for a film, the same on every machine.

  Args:
    name: the film's file name.
    condition: a key of `CONDITIONS`.
  """
  text = f'{VERSION}/{condition}/{name}'
  digest = hashlib.sha256(text.encode(errors='surrogateescape')).digest()
  return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], 'big')))


def quanta_in_air(dose: float, scale: int) -> float:
  """Returns the mean count of a low-resolution pixel in air."""
  return QUANTA * dose * (scale / REFERENCE_SCALE) ** 2


def blur_transfer(frequency: float, blur: float, tail: float) -> float:
  """Returns the modulation transfer function of the blur before sampling.

  Args:
    frequency: in cycles per high-resolution pixel.
    blur: standard deviation in high-resolution pixels.
    tail: the share of the wide part.
  """
  narrow = np.exp(-2 * (np.pi * frequency * blur) ** 2)
  wide = np.exp(-2 * (np.pi * frequency * blur * TAIL_WIDTH) ** 2)
  return float((1 - tail) * narrow + tail * wide)


def nyquist_transfer(how: Acquisition, scale: int) -> float:
  """Returns the modulation transfer function at the Nyquist frequency of the low resolution.

  It includes the blur before sampling and the aperture of a detector, whose box has 2 / pi there;
  the filters of the other kernels are left out.
  """
  aperture = 2 / np.pi if how.kernel == 'detector' else 1.0
  return aperture * blur_transfer(1 / (2 * scale), how.blur, how.tail)
