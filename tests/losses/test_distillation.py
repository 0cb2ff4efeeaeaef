"""Distillation terms against NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import models
from jaxsr.losses import TERMS, GeneratorOutputs, LossContext, distillation
from jaxsr.losses.upcycling import UpcycledBatch, upcycle
from jaxsr.training import distillation as distill


@pytest.fixture
def images(rng):
  return [rng.random((2, 8, 8, 1), dtype=np.float32) for _ in range(4)]


def context(sr, *, teacher=None, negatives=(), extra=None, **options):
  """Make a context in which the teacher and the negatives are given images."""
  networks = {
    'teacher': lambda lr: (jnp.asarray(teacher), []),
    'negatives': lambda lr: tuple(map(jnp.asarray, negatives)),
  }
  outputs = GeneratorOutputs(jnp.asarray(sr), extra or {})
  return LossContext(
    outputs=outputs, batch={'lr': jnp.asarray(sr)}, margin=0, networks=networks, **options
  )


def test_image_terms_equal_numpy(images):
  sr, teacher, *past = images
  given = context(sr, teacher=teacher, negatives=past)
  close = lambda name, want: np.testing.assert_allclose(TERMS[name].compute(given), want, rtol=1e-5)
  close('distill_output', np.abs(sr - teacher))
  close('distill_output_mse', (sr - teacher) ** 2)
  mean = lambda x: np.abs(sr - x).mean((1, 2, 3))
  close('distill_contrast', mean(teacher) / (mean(past[0]) + mean(past[1]) + 1e-6))


def test_pairs_are_averaged(images):
  a, b, c, d = map(jnp.asarray, images)
  given = context(
    a,
    teacher=b,
    extra={'upcycled': (c,), 'smaller': (b, c)},
    upcycled=[UpcycledBatch(lr=a, hr=d)],
  )
  mean = lambda x, y: np.abs(x - y).mean((1, 2, 3))
  want = (mean(c, b) + mean(c, d)) / 2
  np.testing.assert_allclose(TERMS['distill_upcycle'].compute(given), want, rtol=1e-5)
  want = ((b - a) ** 2 + (c - a) ** 2) / 2
  np.testing.assert_allclose(TERMS['slimmable'].compute(given), want, rtol=1e-5)


def test_features_are_compared_in_parts_of_the_teachers_size(rng):
  pair = [rng.standard_normal((2, 4, 5, 6)).astype(np.float32) for _ in range(2)]
  squared = lambda x: np.square(x).sum((1, 2, 3))
  found = distillation.feature(*map(jnp.asarray, pair))
  np.testing.assert_allclose(found, squared(pair[0] - pair[1]) / squared(pair[1]), rtol=1e-5)


def test_affinity_equals_pytorch(rng):
  """The authors' formula: normalized features, a product over channels, L1."""
  torch = pytest.importorskip('torch')
  student = rng.standard_normal((2, 4, 5, 3)).astype(np.float32)
  teacher = rng.standard_normal((2, 4, 5, 7)).astype(np.float32)

  def similarity(x):
    x = torch.from_numpy(x).permute(0, 3, 1, 2).flatten(2)
    x = x / x.norm(dim=1, keepdim=True)
    return x.transpose(1, 2).bmm(x)

  want = (similarity(student) - similarity(teacher)).abs().mean((1, 2))
  found = distillation.affinity(jnp.asarray(student), jnp.asarray(teacher))
  np.testing.assert_allclose(found, want.numpy(), rtol=1e-5)
  grown = jax.grad(lambda x: distillation.affinity(x, jnp.asarray(teacher)).sum())
  assert np.isfinite(grown(jnp.zeros((2, 4, 5, 3)))).all()  # where a feature is zero


def test_upcycled_batches_are_what_dukd_makes(rng):
  lr = jnp.asarray(rng.random((8, 8, 8, 1), dtype=np.float32))
  hr = jnp.asarray(rng.random((8, 32, 32, 1), dtype=np.float32))
  near, far = upcycle({'lr': lr, 'hr': hr}, jax.random.key(0), scale=4)
  tiles = [hr[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] for i in range(4) for j in range(4)]
  assert sum(np.array_equal(near.lr, tile) for tile in tiles) == 1
  assert far.lr.shape == (8, 2, 2, 1) and far.hr is lr
  assert near.changes.any() and not near.changes.all()
  np.testing.assert_allclose(near.undo(near.student_lr), near.lr, atol=1e-6)
  changed = [not np.array_equal(a, b) for a, b in zip(near.student_lr, near.lr, strict=True)]
  np.testing.assert_array_equal(changed, near.changes.any(axis=0))


def test_trunks_are_seen_at_even_distances():
  assert distill.spread(range(8), 3) == (2, 5, 7)
  assert distill.spread(range(2), 3) == (0, 1, 1)
  assert distill.spread((), 3) == ()


def test_negatives_are_the_averages_of_degraded_inputs(rng):
  network = models.build('bicubic', scale=2)
  lr = jnp.asarray(rng.random((1, 16, 16, 1), dtype=np.float32))
  noisy, blurred = distill.negatives(network, {}, lr, jax.random.key(0))
  plain = network.apply({}, lr, train=False)
  assert 0 < float(jnp.abs(noisy - plain).mean()) < 0.05
  assert float(jnp.var(blurred)) < float(jnp.var(plain))
