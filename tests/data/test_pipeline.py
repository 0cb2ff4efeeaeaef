import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.data import crops, degradation, image_cache, image_files, pipeline, sources
from jaxsr.data.batch import normalize, quantize
from jaxsr.data.crops import Windows
from jaxsr.errors import ImageError

WINDOWS = Windows(seed=1, patch=8, margin=3, by_error=0.5)


def make_batches(films, *, batch_size=4, process=0, processes=1, **changes):
  windows = dataclasses.replace(WINDOWS, **changes)
  share = {'process': process, 'processes': processes}
  return pipeline.batches(films, windows, batch_size=batch_size, **share)


@pytest.fixture(scope='module')
def phantoms():
  source = sources.Phantoms(seed=2, start=0, count=3, size=128, bits=8)
  return image_cache.Films(source, scale=4, capacity=2**30)


@pytest.fixture
def dataset(phantoms):
  return make_batches(phantoms)


def equal(a, b):
  return all(np.array_equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_batch_i_is_a_function_of_i(phantoms, dataset):
  again = make_batches(phantoms)
  batches = [dataset[i] for i in range(6)]
  for i in (5, 0, 3):
    assert equal(again[i], batches[i])
  assert not equal(batches[0], batches[3])
  assert not equal(batches[0], make_batches(phantoms, seed=2)[0])


@pytest.mark.parametrize('workers', [0, 2])
def test_a_stream_goes_on_anywhere(dataset, workers):
  stream = pipeline.iterate(dataset, start=7, threads=2, workers=workers)
  for i, batch in zip(range(7, 12), stream, strict=False):
    assert equal(batch, dataset[i])
  stream.close()


def test_an_epoch_shows_every_film_once(phantoms):
  seen = []

  class Spy(image_cache.Films):
    def __getitem__(self, index):
      seen.append(index)
      return phantoms[index]

  spy = Spy(phantoms.source, scale=4, capacity=0)
  dataset = make_batches(spy, batch_size=3)
  orders = []
  for epoch in range(6):
    seen.clear()
    _ = dataset[epoch]
    assert sorted(seen) == [0, 1, 2]
    orders.append(tuple(seen))
  assert len(set(orders)) > 1


def test_processes_share_the_global_batch(phantoms, dataset):
  shares = [make_batches(phantoms, process=p, processes=2) for p in (0, 1)]
  for i in (0, 5):
    parts = [share[i] for share in shares]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert equal(whole, dataset[i])


def test_crops_are_aligned_at_every_turn():
  """In an image whose pixels encode their position, crops show where they come from."""
  scale, side = 4, 40
  lr = np.arange(side * side, dtype=np.uint16).reshape(side, side, 1)
  hr = lr.repeat(scale, axis=0).repeat(scale, axis=1)
  made = crops.Film(hr, lr, np.arange(1, 101) / 100)

  class One(image_cache.Films):
    def __getitem__(self, index):
      return made

  source = sources.Phantoms(seed=0, start=0, count=1, size=128, bits=16)
  crop = pipeline.CropSampler(One(source, scale=scale, capacity=0), WINDOWS)
  turns = set()
  for seed in range(200):
    found = crop(0, np.random.default_rng(seed))
    assert found['lr'].shape == (14, 14, 1)
    np.testing.assert_array_equal(
      found['hr'], found['lr'].repeat(scale, axis=0).repeat(scale, axis=1)
    )
    corner = found['lr'][0, 0, 0].astype(int)
    turns.add((int(found['lr'][0, 1, 0]) - corner, int(found['lr'][1, 0, 0]) - corner))
    check_mask(found, side, margin=3, scale=scale)
  assert turns == {(a, b) for a in (1, -1) for b in (40, -40)} | {
    (b, a) for a in (1, -1) for b in (40, -40)
  }


def check_mask(found, side, *, margin, scale):
  """A crop has a margin on each side that is not an edge of the image."""
  rows, columns = np.divmod(found['lr'][..., 0].astype(int), side)
  mask = found['mask'][..., 0].astype(bool)
  assert mask.any()
  for axis in (0, 1):
    kept = mask.any(axis=1 - axis)
    for end in (0, -1):
      line = np.take(rows, end, axis), np.take(columns, end, axis)
      at_edge = any(np.all(x == edge) for x in line for edge in (0, side - 1))
      lost = np.argmax(kept) if end == 0 else np.argmax(kept[::-1])
      assert lost == (0 if at_edge else margin * scale)
  assert np.array_equal(mask, np.outer(mask.any(axis=1), mask.any(axis=0)))


def test_crops_by_error_lie_where_bicubic_errs(phantoms):
  def mean_error(by_error):
    dataset = make_batches(phantoms, by_error=by_error, batch_size=64)
    batch = dataset[0]
    up = np.stack([degradation.upscale(lr, 4) for lr in batch['lr']])
    return np.square(batch['hr'].astype(float) - up)[batch['mask'] == 1].mean()

  assert mean_error(1.0) > 2 * mean_error(0.0)  # a patch is a sixteenth of these films


def test_edges_are_learnt_from(phantoms):
  batch = make_batches(phantoms, by_error=0.0, batch_size=400)[0]
  at_edge = batch['mask'][:, 0, :, 0].any(axis=1).mean()
  assert 0.1 < at_edge < 0.3


def test_the_crop_is_of_the_protocols_low_resolution(phantoms):
  crop = pipeline.CropSampler(phantoms, Windows(seed=0, patch=8, margin=0, by_error=0.0))
  shown = [crop(n, np.random.default_rng(4)) for n in range(3)]
  windows = np.lib.stride_tricks.sliding_window_view(phantoms[0].lr[..., 0], (8, 8)).reshape(-1, 64)
  lrs = [sample['lr'][..., 0] for sample in shown]
  turned = [np.rot90(m, k) for lr in lrs for m in (lr, lr.T) for k in range(4)]
  assert any((windows == t.ravel()).all(axis=1).any() for t in turned)


def test_a_film_that_turns_out_damaged_is_replaced_by_the_next(folder, capsys):
  (folder / 'd.tif').unlink()  # TIFF has no checksum
  content = bytearray((folder / 'b.png').read_bytes())
  content[len(content) // 2] ^= 1
  (folder / 'b.png').write_bytes(content)
  whole = image_cache.Films(sources.Folder(folder), scale=4, capacity=2**30)
  np.testing.assert_array_equal(whole[1].hr, whole[2].hr)
  np.testing.assert_array_equal(whole[1].hr, whole[2].hr)
  assert capsys.readouterr().err.count('left out of training') == 1
  for path in image_files.find(folder):
    path.write_bytes(path.read_bytes()[:-2000] + bytes(2000))
  with pytest.raises(ImageError, match='all other images'):
    image_cache.Films(whole.source, scale=4, capacity=2**30)[0]


def test_memory_stays_below_its_capacity(phantoms):
  one = sum(array.nbytes for array in phantoms[0] if array is not None)
  small = image_cache.Films(phantoms.source, scale=4, capacity=2 * one)
  for index in (0, 1, 2, 0):
    np.testing.assert_array_equal(small[index].hr, phantoms[index].hr)
    assert len(small._kept) <= 2
    assert small._bytes == len(small._kept) * one


def test_sixteen_bit_films_stay_sixteen_bit():
  source = sources.Phantoms(seed=2, start=0, count=1, size=128, bits=16)
  deep = image_cache.Films(source, scale=4, capacity=2**30)
  batch = make_batches(deep)[0]
  assert batch['hr'].dtype == batch['lr'].dtype == np.uint16
  floats = normalize({name: jnp.asarray(x) for name, x in batch.items()})
  np.testing.assert_allclose(floats['hr'], batch['hr'] / 65535, atol=1e-7)


def test_by_error_covers_flat_films():
  flat = crops.make_film(np.full((64, 64, 1), 9, np.uint8), 4)
  np.testing.assert_allclose(np.diff(flat.error), 1 / 16)


def test_quantize_rounds_and_clips():
  x = jnp.array([-0.5, 0.0, 0.6 / 255, 254.4 / 255, 7.0]).reshape(1, 5, 1, 1)
  np.testing.assert_allclose(quantize(x, 255).ravel() * 255, [0, 0, 1, 254, 255], atol=1e-4)
