"""The lesion study on real films against an independent program at the same places (slow)."""

import numpy as np
import pytest
from scipy import ndimage

from jaxsr.data import sources
from jaxsr.inference.model import load
from jaxsr.trust import lesions, study
from jaxsr.trust.networks import networks

# AUC of HR and of bicubic, contrast that bicubic keeps, AUC and contrast of edsr_x4, by lesion.
EXPECTED = (
  (0.576, 0.550, 0.27, 0.547, 0.33),
  (0.647, 0.596, 0.32, 0.594, 0.40),
  (0.712, 0.656, 0.43, 0.654, 0.54),
  (0.821, 0.770, 0.64, 0.772, 0.78),
  (0.869, 0.839, 0.78, 0.844, 0.91),
  (0.869, 0.867, 0.91, 0.866, 0.95),
  (0.646, 0.598, 0.26, 0.596, 0.32),
  (0.839, 0.784, 0.44, 0.776, 0.58),
  (0.795, 0.756, 0.45, 0.765, 0.53),
  (0.892, 0.876, 0.49, 0.886, 0.62),
  (0.964, 0.960, 0.59, 0.958, 0.78),
  (0.789, 0.753, 0.48, 0.761, 0.57),
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
  return [tuple((4 * found[i]).tolist()) for i in rng.choice(len(found), 4, replace=False)]


@pytest.mark.slow
def test_observers_see_what_another_program_found(shared):
  source = sources.Folder(shared / 'nih' / 'val', channels=1)
  films, rng = [source[i] for i in range(len(source))], np.random.default_rng(5)
  absent = [lesions.crops(film, draw_places(film[..., 0], rng), 4) for film in films]
  offsets = rng.uniform(-2, 2, (len(films), 4, 2))
  known = {study.HR: None, **networks({'edsr_x4': load('edsr_x4')}, 4)}
  outputs = {name: [] for name in known}
  for name, crops, here in zip(source.names, absent, offsets, strict=True):
    present = [
      [
        lesions.insert(crop, lesions.profile(lesion, 128, tuple(offset)), lesion.contrast)
        for crop, offset in zip(crops, here, strict=True)
      ]
      for lesion in lesions.DESIGN
    ]
    subject = study.Subject(name, crops, np.array(present))
    for network, enlarge in known.items():
      outputs[network].append(study.observe(subject, enlarge, 'clean', 4))
  rows = study.summarize(outputs, source.identities)
  hr, bicubic, edsr = ([row for row in rows if row['network'] == name] for name in outputs)
  found = [
    (a['auc'], b['auc'], b['contrast_kept'], c['auc'], c['contrast_kept'])
    for a, b, c in zip(hr, bicubic, edsr, strict=True)
  ]
  np.testing.assert_allclose(found, EXPECTED, atol=0.006)
