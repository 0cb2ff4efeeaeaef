"""Intervals and doubt of images that come in strips, against those of the whole."""

import itertools

import numpy as np
import pytest

from jaxsr.data.phantom import phantom
from jaxsr.inference import confidence, package


@pytest.mark.parametrize(
  ('kind', 'scale', 'channels', 'second'),
  [
    (np.uint8, 2, 1, True),
    (np.uint16, 3, 1, False),
    (np.uint8, 4, 3, True),
    (np.uint8, 8, 1, False),
  ],
)
def test_strips_give_the_confidence_of_the_whole(rng, monkeypatch, kind, scale, channels, second):
  """Also of tiles that end between strips, and of one more strip than there are rows to give."""
  by = confidence.read(package.find('edsr_x4'))
  by = by._replace(second={'name': 'other'} if second else None)
  monkeypatch.setattr(confidence, '_ROWS_OF', 20 * scale**2 * 24)
  white = int(np.iinfo(kind).max)
  image = phantom(3, 0, size=128)[:, :24].astype(kind) * (white // 255)
  image = np.repeat(image[..., None], channels, axis=2)
  sr = image.repeat(scale, 0).repeat(scale, 1)
  other = sr.copy()
  right = np.s_[:, scale * 12 :]  # where the image differs from both that it is compared with
  sr[right] -= np.minimum(rng.integers(0, white // 9, sr[right].shape), sr[right]).astype(kind)
  options = {'scale': scale, 'white': white}
  want = confidence.compute(image, sr, by, second=other if second else None, **options)
  rows = np.concatenate([sr, other], axis=2) if second else sr
  edges = [0, *scale * np.array([30, 31, 90, 127, 128])]
  strips = (rows[a:b] for a, b in itertools.pairwise(edges))
  parts = list(confidence.compute_rows(strips, image, by, **options))
  assert len(parts) > 3
  image, half, doubt = (np.concatenate(each) for each in zip(*parts, strict=True))
  np.testing.assert_array_equal(image, sr)
  np.testing.assert_allclose(half, want.half_width, rtol=1e-5)
  np.testing.assert_array_equal(doubt, want.doubt)
  assert doubt.any() and not doubt.all()
