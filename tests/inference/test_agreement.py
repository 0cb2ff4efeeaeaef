"""Agreement with the input: matrices, projection, the exact step, and what users call."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxsr import cli, models, sharding
from jaxsr.commands import report
from jaxsr.data import degradation, image_files
from jaxsr.data.phantom import phantom
from jaxsr.inference.agreement import Agreement, Reduction, agreement, exact, project, settle
from jaxsr.inference.agreement.exact import _axis
from jaxsr.inference.agreement.reduction import matrix
from jaxsr.inference.model import Model, load
from models.small import build
from runs import variables_of

SCALES = (2, 3, 4, 8)


@pytest.mark.parametrize('scale', SCALES)
def test_the_matrix_is_pillows(scale, rng):
  image = rng.random((7 * scale, 30 * scale)).astype(np.float32)
  reduced = Image.fromarray(image).resize((30, 7), Image.Resampling.BICUBIC)
  rows, columns = (matrix(Reduction(scale), n) for n in image.shape)
  np.testing.assert_allclose(rows @ image @ columns.T, reduced, atol=1e-6)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('low', [1, 5, 16, 41])
def test_the_integer_sums_are_pillows_to_the_bit(scale, low, rng):
  image = rng.choice(np.array([0, 255, 100, 101], np.uint8), (low * scale, 23 * scale))
  rows, columns = (_axis(Reduction(scale), n, fixed=True).matrix for n in image.shape)
  after = lambda sums: np.clip((sums + 2**21) >> 22, 0, 255)
  found = after(rows @ after((columns @ image.astype(np.int64).T).T))
  assert (found == degradation.downscale(image[..., None], scale)[..., 0]).all()


@pytest.mark.parametrize(
  ('kind', 'scale', 'width'),
  [('bicubic', 2, 0), ('bicubic', 3, 5), ('imresize', 4, 0), ('area', 8, 0)],
)
def test_the_projection_is_that_of_dense_matrices(kind, scale, width, rng):
  reduction, levels = Reduction(scale, kind), 255
  slack = max(0.1, width) / levels  # the images are far from their low resolution
  sr = rng.random((2, 37 * scale, 20 * scale, 2)).astype(np.float32)
  lr = np.clip(rng.normal(0.5, 0.4, (2, 37, 20, 2)), 0, 1).astype(np.float32)
  rows, columns = (matrix(reduction, n) for n in sr.shape[1:3])
  expected = last = sr.astype(np.float64)
  for momentum in (0.0, 0.2817, 0.4340):  # (t - 1) / t', with t' = (1 + sqrt(1 + 4 t^2)) / 2
    reduced = np.einsum('ys,bstc,xt->byxc', rows, expected, columns)
    low = np.where(lr == 0, -np.inf, lr - slack)
    high = np.where(lr == 1, np.inf, lr + slack)
    missed = np.clip(reduced, low, high) - reduced
    inverses = np.linalg.pinv(rows), np.linalg.pinv(columns)
    new = expected + np.einsum('sy,byxc,tx->bstc', inverses[0], missed, inverses[1])
    new = np.clip(new, 0, 1)
    expected, last = new + momentum * (new - last), new
  found = project(sr, lr, levels, reduction, width=width, steps=3)
  np.testing.assert_allclose(found, last, atol=3e-4)  # of values that change by up to 1


def test_images_near_their_low_resolution_may_be_off_by_more(rng):
  """Most of what a good network's reduction is off by is the rounding noise of its input."""
  reduction, levels = Reduction(2, 'area'), 255
  lr = rng.integers(100, 150, (1, 8, 8, 1)).astype(np.float32)
  for off, left in ((0.15, 0.15), (0.25, 0.18)):
    shift = np.where(np.arange(8) % 4, 0.05, off).astype(np.float32)[:, None]
    sr = np.repeat(np.repeat(lr + shift, 2, 1), 2, 2) / levels
    made = np.asarray(project(sr, lr / levels, levels, reduction))[0, ::2, ::2, 0] * levels
    np.testing.assert_allclose((made - lr[0, ..., 0])[:, ::4], left, atol=1e-3)
  far = lr + 0.3
  sr = np.repeat(np.repeat(far, 2, 1), 2, 2) / levels
  made = np.asarray(project(sr, lr / levels, levels, reduction))
  np.testing.assert_allclose(made[0, ::2, ::2] * levels - lr[0], 0.1, atol=1e-3)


@pytest.mark.parametrize(
  ('kind', 'scale', 'dtype'),
  [
    *(('bicubic', scale, 'uint8') for scale in SCALES),
    ('bicubic', 4, 'uint16'),
    ('imresize', 3, 'uint8'),
    ('area', 2, 'uint8'),
  ],
)
def test_back_projected_images_agree_exactly(kind, scale, dtype):
  """The low resolution of a phantom, which has hard edges, black corners and letters."""
  bits = 8 * np.dtype(dtype).itemsize
  film = degradation.cut(phantom(3, 1, size=96, bits=bits)[..., None], scale)
  film = np.concatenate([film, film[::-1]], axis=2)
  reduction, white = Reduction(scale, kind), 2**bits - 1
  lr = reduction(film)
  start = np.repeat(np.repeat(lr, scale, 0), scale, 1).astype(np.float32) / white
  sr = project(start[None], lr[None] / np.float32(white), white, reduction)
  image = np.rint(np.asarray(sr[0]) * white).astype(dtype)
  before = agreement(image, lr, reduction, white=white)
  image, found = settle(np.asarray(sr[0]), lr, reduction, white=white)
  assert before.equal < before.pixels or kind == 'area'
  assert (reduction(image) == lr).all() and found == Agreement(lr.size, lr.size, 0)


def test_the_exact_step_changes_little(film):
  reduction = Reduction(4)
  lr = reduction(film)
  sr = project(degradation.upscale(lr, 4)[None] / np.float32(255), lr[None] / 255, 255, reduction)
  image = np.rint(np.asarray(sr[0]) * 255).astype(np.uint8)
  settled, _ = settle(np.asarray(sr[0]), lr, reduction, white=255)
  assert (settled != image).mean() < 0.02


def test_pixels_that_were_nearly_rounded_the_other_way_are_changed_first(film, monkeypatch):
  reduction = Reduction(2)
  lr = reduction(film)
  sr = project(degradation.upscale(lr, 2)[None] / np.float32(255), lr[None] / 255, 255, reduction)
  sr = np.asarray(sr[0])
  errors = []
  for weight in (exact._ROUNDING, 0.0):
    monkeypatch.setattr(exact, '_ROUNDING', weight)
    image, found = settle(sr, lr, reduction, white=255)
    assert found.equal == found.pixels
    errors.append(np.square(image - sr * 255).mean())
  assert errors[0] < 0.95 * errors[1]


def test_rounding_does_not_keep_x2_from_agreeing(film):
  result = load('edsr_x2').enlarge(Reduction(2)(film))
  assert result.settled and result.agreement.equal == result.agreement.pixels


def test_pixels_that_are_off_by_a_millionth_of_a_level_are_settled():
  """Weights of x2 are multiples of 1/256, so that sums lie exactly between two gray levels."""
  reduction = Reduction(2)
  lr = reduction(phantom(4, 0, size=96)[..., None])
  start = degradation.upscale(lr, 2)[None] / np.float32(255)
  sr = np.asarray(project(start, lr[None] / np.float32(255), 255, reduction))[0]
  _, found = settle(sr, lr, reduction, white=255)
  assert found == Agreement(lr.size, lr.size, 0)


@pytest.mark.parametrize(
  ('first', 'tries', 'kept'),
  [
    ((False, 3), 1, 0),  # no pixel is off by more than a level
    ((True, 3), 2, 1),  # few are off, one by levels: the better one of two
    ((True, 900), 1, 0),  # hopeless
  ],
)
def test_a_channel_is_tried_again_if_few_pixels_are_off(first, tries, kept, monkeypatch):
  outcomes = [(exact._Distance(*first, 9.0), 0), (exact._Distance(False, 5, 1.0), 1)]
  seen = []

  class Plane:
    def __init__(self, *arguments):
      seen.append(arguments[-1])

    def solve(self, most):
      return outcomes[len(seen) - 1]

  monkeypatch.setattr(exact, '_Plane', Plane)
  nothing = np.zeros((4, 4))
  assert exact._settle(nothing, nothing, Reduction(4), 255, 1) == kept
  assert seen == [exact._OFF, 0.0][:tries]


def test_an_impossible_input_is_counted():
  """No image has a reduction of single white and black pixels side by side."""
  reduction = Reduction(4)
  lr = np.zeros((5, 5, 1), np.uint8)
  lr[::2, ::2] = 255
  sr = np.repeat(np.repeat(lr, 4, 0), 4, 1) / np.float32(255)
  image, found = settle(sr, lr, reduction, white=255)
  assert found == agreement(image, lr, reduction, white=255)
  assert found.equal < found.pixels and found.most > 1


@pytest.mark.parametrize(('bits', 'dtype'), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_upscale_agrees_in_tiles_and_on_several_devices(bits, dtype, monkeypatch):
  network = build('edsr', {'bicubic_skip': True})
  variables = jax.tree.map(lambda x: x / 4, variables_of(network))  # not far from bicubic
  model = Model('edsr', network, variables, 2, 1, degradation='bicubic')
  film = (phantom(0, 0, size=128, bits=16)[..., None] >> (16 - bits)).astype(dtype)
  image = np.minimum(degradation.downscale(film, 2), 2**bits - 1)
  whole, tiled = (model.enlarge(image, bits=bits, tile=tile) for tile in (200, 24))
  for result in (whole, tiled):
    assert result.settled and result.agreement == Agreement(64 * 64, 64 * 64, 0)
    assert (np.minimum(degradation.downscale(result.image, 2), 2**bits - 1) == image).all()
  assert np.abs(whole.sr - tiled.sr).max() < 1e-3
  raw = model.upscale(image, bits=bits, agree=False)
  assert (raw != whole.image).any()
  assert (model.upscale(image, bits=bits) == whole.image).all()


def test_rows_on_several_devices_are_projected_alike(rng):
  sr, lr = rng.random((1, 64, 24, 1)), rng.random((1, 32, 12, 1))
  compute = jax.jit(lambda sr, lr: project(sr, lr, 255, Reduction(2)))
  mesh = sharding.make_rows(jax.devices())
  with jax.set_mesh(mesh):
    apart = compute(*(jax.device_put(x, sharding.by_rows(mesh)) for x in (sr, lr)))
  np.testing.assert_allclose(apart, compute(sr, lr), atol=1e-5)


def test_an_input_that_cannot_be_met_is_left_alone(rng):
  model = load('edsr_x4_tiny')
  image = np.where(rng.random((32, 32, 1)) < 0.5, 0, 255).astype(np.uint8)
  result = model.enlarge(image)
  assert not result.settled and result.agreement.equal < 0.95 * image.size
  assert (result.image == model.upscale(image, agree=False)).all()


def test_interpolations_agree_only_if_asked(film):
  bicubic = load('bicubic')
  assert bicubic.enlarge(film).agreement is None
  assert bicubic.enlarge(film, agree=True).settled


@pytest.fixture
def noisy(rng):
  """The low resolution of a phantom, with noise of 6 gray levels."""
  clean = degradation.downscale(phantom(3, 1, size=256)[..., None], 4)
  return np.clip(np.rint(clean + rng.normal(0, 6, clean.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('bits', [8, 16])
def test_networks_for_noisy_images_agree_within_the_noise(bits, noisy):
  model = Model('robust', models.build('bicubic', scale=4), {}, 4, 1, degradation='acquisition')
  unit = (2**bits - 1) // 255
  lr = noisy.astype(f'uint{bits}') * unit
  assert model.enlarge(lr).agreement is None
  result = model.enlarge(lr, agree=True)
  found = result.agreement
  assert result.settled and found.within == pytest.approx(18 * unit, rel=0.2)
  again = degradation.downscale(result.image, 4).astype(int) - lr
  assert found.equal == (np.abs(again) <= found.within).sum() == found.pixels
  assert (again != 0).mean() > 0.5  # the noise is not copied
  flat = np.full_like(lr, 128 * unit)
  assert model.enlarge(flat, agree=True).agreement.within == 0


def test_noise_that_a_network_was_not_trained_on_is_not_copied(noisy, tmp_path, capsys):
  model = load('edsr_x4_tiny')
  result = model.enlarge(noisy)
  assert not result.settled and (result.image == model.upscale(noisy, agree=False)).all()
  image_files.write(tmp_path / 'noisy.png', noisy)
  for written in ('wrote 1 of 1', '1 existed already'):
    arguments = ('upscale', tmp_path / 'noisy.png', '--checkpoint', 'edsr_x4_tiny')
    assert cli.run([str(x) for x in arguments]) == 0
    out, error = capsys.readouterr()
    assert written in out
    assert ('the result was not made to agree' in error) == written.startswith('wrote')


def test_the_printed_line_counts_images_and_pixels(capsys):
  exact, off = Agreement(4096, 4096, 0), Agreement(4090, 4096, 17)
  for found in ([exact], [exact, exact], [exact, off, None], [off], [None]):
    report.agreement((Path(f'{i}.png'), each) for i, each in enumerate(found))
  assert capsys.readouterr().out.splitlines() == [
    'agrees with 0.png in 4,096 of 4,096 pixels',
    'agrees with all 2 images in 8,192 of 8,192 pixels',
    'agrees with 1 of 2 images in every pixel, in total in 8,186 of 8,192 pixels, '
    'at most 17 gray levels off',
    'agrees with 0.png in 4,090 of 4,096 pixels, at most 17 gray levels off',
  ]
