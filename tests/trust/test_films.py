"""The lesion study on real films against an independent program at the same places (slow)."""

import numpy as np
import pytest
from scipy import ndimage

from jaxsr.data import sources
from jaxsr.trust import lesions, study
from jaxsr.trust.networks import networks

# The AUC of HR and of bicubic, and the contrast that bicubic keeps, lesion by lesion.
EXPECTED = (
  (0.576, 0.550, 0.27),
  (0.647, 0.596, 0.32),
  (0.712, 0.656, 0.43),
  (0.821, 0.770, 0.64),
  (0.869, 0.839, 0.78),
  (0.869, 0.867, 0.91),
  (0.646, 0.598, 0.26),
  (0.839, 0.784, 0.44),
  (0.795, 0.756, 0.45),
  (0.892, 0.876, 0.49),
  (0.964, 0.960, 0.59),
  (0.789, 0.753, 0.48),
)


def draw_places(film, rng):
  """Four places by the program's random numbers: as gray as lungs, with no hard edge near."""
  smooth = ndimage.gaussian_filter(film.astype(np.float32), 8)[::4, ::4]
  slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)) / 8
  slope = ndimage.maximum_filter(slope, 13)
  inner = np.zeros(smooth.shape, bool)
  inner[44:212, 44:212] = True
  flat = slope < np.quantile(slope[44:212, 44:212], 0.7)
  found = np.argwhere(inner & (smooth > 40) & (smooth < 170) & flat)
  return [tuple(4 * found[i]) for i in rng.choice(len(found), 4, replace=False)]


@pytest.mark.slow
def test_observers_see_what_another_program_found(shared):
  source = sources.Folder(shared / 'nih' / 'val', channels=1)
  films, rng = [source[i] for i in range(len(source))], np.random.default_rng(5)
  absent = [lesions.crops(film, draw_places(film[..., 0], rng), 4) for film in films]
  offsets = rng.uniform(-2, 2, (len(films), 4, 2))
  enlarge = networks({}, 4)['bicubic']
  outputs = {study.HR: [], 'bicubic': []}
  for name, crops, here in zip(source.names, absent, offsets, strict=True):
    present = [
      [
        lesions.insert(crop, lesions.profile(lesion, 128, tuple(offset)), lesion.contrast)
        for crop, offset in zip(crops, here, strict=True)
      ]
      for lesion in lesions.DESIGN
    ]
    subject = study.Subject(name, crops, np.array(present))
    outputs[study.HR].append(study.observe(subject, None, 'clean', 4))
    outputs['bicubic'].append(study.observe(subject, enlarge, 'clean', 4))
  rows = study.summarize(outputs, source.identities)
  hr, bicubic = ([row for row in rows if row['network'] == name] for name in outputs)
  found = [(a['auc'], b['auc'], b['contrast_kept']) for a, b in zip(hr, bicubic, strict=True)]
  np.testing.assert_allclose(found, EXPECTED, atol=0.006)
