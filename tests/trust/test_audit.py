"""The audit against the published definition, and that it flags what is not in the film."""

import numpy as np
import pytest
from PIL import Image

from jaxsr.data import degradation, sources
from jaxsr.data.phantom import phantom
from jaxsr.trust import audit, maps, run
from jaxsr.trust.networks import interpolation

SIDE = audit.SIDE


@pytest.fixture(scope='module')
def films():
  """Two noisy phantoms in [0, 1]: real films have noise at all frequencies."""
  rng = np.random.default_rng(1)
  clean = [phantom(4, i, size=256, nodules=0) / 255 for i in range(2)]
  return [np.clip(x + rng.normal(0, 4 / 255, x.shape), 0, 1) for x in clean]


@pytest.fixture(scope='module')
def enlarged(films):
  """The first film, reduced and interpolated."""
  lr = degradation.downscale(np.rint(films[0] * 255).astype(np.uint8)[..., None], 4)
  return interpolation(4)(lr[None])[0, ..., 0] / 255


def published_ring_correlation(first, second):
  """Fourier ring correlation as DIDSR/sfrc defines it, by loops over the full spectrum."""
  spectra = [np.fft.fftshift(np.fft.fft2(x)) for x in (first, second)]
  y, x = np.mgrid[: len(first), : len(first)] - len(first) // 2
  radius = np.sqrt(y**2 + x**2)

  def rings(values):
    return np.array([
      (values[np.floor(radius) == r].sum() + values[np.ceil(radius) == r].sum()) / 2
      for r in range(len(first) // 2)
    ])  # fmt: skip

  cross = rings(spectra[0] * np.conj(spectra[1])).real
  return np.abs(cross) / np.sqrt(rings(np.abs(spectra[0]) ** 2) * rings(np.abs(spectra[1]) ** 2))


def test_ring_correlation_is_the_published_one(films, enlarged):
  found = audit.ring_correlation(audit.spectra(enlarged), audit.spectra(films[0]))
  window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
  for number in (0, 6, 9, 15):
    row, column = divmod(number, 256 // SIDE)
    cut = np.s_[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
    pair = [(x[cut] - x[cut].mean()) * window for x in (enlarged, films[0])]
    np.testing.assert_allclose(found[number], published_ring_correlation(*pair), atol=1e-4)


def test_pasted_high_frequencies_are_flagged_there_and_nowhere_else(films, enlarged):
  """Detail of another film, above the low resolution's Nyquist, in two patches."""
  pasted = enlarged.copy()
  detail = audit.null_space(films[1], 4)
  cut = np.s_[64:128, 64:192]
  pasted[cut] += detail[cut]
  before, after = (audit.audit(image, films[0], 4) for image in (enlarged, pasted))
  wanted = maps.pixels(before.flagged, films[0].shape)
  wanted[cut] = True
  np.testing.assert_array_equal(maps.pixels(after.flagged, films[0].shape), wanted)
  assert not before.flagged.any()


@pytest.mark.parametrize('number', [0, 15, 30])
def test_high_frequencies_of_another_real_film_are_flagged_there_and_nowhere_else(shared, number):
  """As strong as the film's own, in a patch near its middle; in the film and in bicubic's image."""
  source = sources.Folder(shared / 'nih' / 'val', channels=1)
  film, other = (source[i][..., 0] for i in (number, number + 1))
  lr = Image.fromarray(film).resize([x // 4 for x in film.shape[::-1]], Image.Resampling.BICUBIC)
  bicubic = np.asarray(lr.resize(film.shape[::-1], Image.Resampling.BICUBIC)) / 255
  hr, detail = film / 255, audit.null_space(other / 255, 4)
  cut = np.s_[7 * SIDE : 8 * SIDE, 5 * SIDE : 6 * SIDE]
  own = audit.null_space(hr, 4)[cut]
  detail = detail[cut] * own.std() / detail[cut].std()
  for image, replaced in ((hr, own), (bicubic, 0)):
    pasted = image.copy()
    pasted[cut] += detail - replaced
    before, after = (audit.audit(x, hr, 4) for x in (image, pasted))
    wanted = maps.pixels(before.flagged, hr.shape)
    assert not wanted[cut].any()
    if image is hr:
      assert maps.place(before, hr.shape) is None
      assert maps.place(after, hr.shape) == (7 * SIDE, 5 * SIDE, SIDE)
    wanted[cut] = True
    np.testing.assert_array_equal(maps.pixels(after.flagged, hr.shape), wanted)


def test_a_film_is_not_flagged_against_itself_and_blur_is_not_invented(films, enlarged):
  own = audit.film_row(audit.audit(films[0], films[0], 4))
  assert (own['flagged'], own['crossing'], own['null_error']) == (0.0, 1.0, 0.0)
  assert own['correlation'] == pytest.approx(1) and own['energy'] == pytest.approx(1)
  assert own['invented'] == pytest.approx(0, abs=1e-9)
  blurred = audit.film_row(audit.audit(enlarged, films[0], 4))
  assert blurred['energy'] < 0.2 and blurred['flagged'] == 0


def test_the_null_space_is_what_the_reduction_does_not_see(films):
  unseen = audit.null_space(films[0], 4)
  again = Image.fromarray(unseen.astype(np.float32)).resize((64, 64), Image.Resampling.BICUBIC)
  assert np.abs(np.asarray(again)).max() < 1e-5 < np.abs(unseen).max()
  np.testing.assert_allclose(audit.null_space(unseen, 4), unseen, atol=1e-9)


def test_unsupported_detail_needs_no_film(films, enlarged):
  assert audit.unsupported(enlarged, enlarged, 4) == 0
  invented = enlarged + audit.null_space(films[1], 4)
  assert audit.unsupported(invented, enlarged, 4) > 0.5


def test_a_damaged_file_of_arrays_is_computed_again(tmp_path):
  """Deflated data that is damaged raises other errors than an archive that is cut."""
  path, whole = tmp_path / 'a.npz', {'kept': np.arange(300.0), 'energy': np.ones(3)}
  run._keep(path, lambda: whole)
  written = path.read_bytes()
  for position in range(written.index(b'PK\1\2')):  # up to the list of its members
    content = bytearray(written)
    content[position] ^= 1 << position % 8
    path.write_bytes(content)
    found = run._keep(path, lambda: whole)
    assert found.keys() == whole.keys(), f'byte {position} was silent'
    for name, values in whole.items():
      np.testing.assert_array_equal(found[name], values, f'byte {position} was silent')
