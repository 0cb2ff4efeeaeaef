"""Tiles that fit into memory, and images that are upscaled in strips."""

import jax
import numpy as np
import pytest

from jaxsr import models
from jaxsr.data import image_files, rows
from jaxsr.data.decoded import ImageInfo
from jaxsr.data.phantom import phantom
from jaxsr.inference import memory, streaming
from jaxsr.inference.memory import OutOfMemory, Tiles
from jaxsr.inference.model import load

GPU = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50GiB.'
CPU = 'INTERNAL: Error dispatching computation: Out of memory allocating 463997984 bytes.'


def failing(most, text, calls):
  """Make a function that fails above a side, as XLA does."""

  def make(side):
    calls.append(side)
    if side > most:
      raise jax.errors.JaxRuntimeError(text)
    return side

  return make


@pytest.mark.parametrize('text', [GPU, CPU])
def test_tiles_are_halved_until_they_fit_and_stay_so(monkeypatch, capsys, text):
  monkeypatch.setattr(memory, 'free_bytes', lambda: 2**50)
  tiles, calls = Tiles(models.build('lanczos', scale=4), 'auto'), []
  assert tiles.run(100, failing(150, text, calls)) == 128
  assert tiles.run(100, failing(150, text, calls)) == 128
  assert calls == [512, 256, 128, 128]
  lines = capsys.readouterr().err.splitlines()
  assert lines == [
    'tiles of 512 pixels do not fit into memory; 256 from here on',
    'tiles of 256 pixels do not fit into memory; 128 from here on',
  ]


def test_the_smallest_tiles_and_fixed_ones_are_not_halved(monkeypatch):
  monkeypatch.setattr(memory, 'free_bytes', lambda: 2**50)
  calls = []
  with pytest.raises(OutOfMemory) as caught:
    Tiles(models.build('lanczos', scale=4), 'auto').run(100, failing(0, CPU, calls))
  assert calls == [512, 256, 128, 64, 32] and caught.value.needed == 463997984
  calls.clear()
  with pytest.raises(OutOfMemory) as caught:
    Tiles(models.build('lanczos', scale=4), 100).run(100, failing(0, GPU, calls))
  assert calls == [100] and caught.value.needed == 1.5 * 2**30


def test_other_errors_are_raised():
  def make(side):
    raise jax.errors.JaxRuntimeError('INVALID_ARGUMENT')

  with pytest.raises(jax.errors.JaxRuntimeError, match='INVALID'):
    Tiles(models.build('lanczos', scale=4), 'auto').run(100, make)


def test_the_first_side_follows_the_free_memory(monkeypatch):
  network = load('edsr_x4_tiny').network
  found = []
  for free in (2**50, 2**29, 2**28 + 1):
    monkeypatch.setattr(memory, 'free_bytes', lambda free=free: free)
    found.append(Tiles(network, 'auto').side_for(512**2))
  assert found[0] == 512 > found[1] > found[2] >= 32


def test_an_image_is_not_begun_without_memory_for_the_compiler(monkeypatch):
  """XLA's compiler ends the process if it gets no memory."""
  monkeypatch.setattr(memory, 'free_bytes', lambda: 2**28 - 100)
  calls = []
  with pytest.raises(OutOfMemory) as caught:
    Tiles(models.build('lanczos', scale=4), 'auto').run(100, failing(512, CPU, calls))
  assert not calls and caught.value.needed == 100


def test_limits_of_containers_are_read(tmp_path, monkeypatch):
  (tmp_path / 'memory.max').write_text('1000\n')
  (tmp_path / 'memory.current').write_text('400\n')
  (tmp_path / 'memory.stat').write_text('anon 1\ninactive_file 50\n')
  monkeypatch.setattr(memory, '_CGROUP', tmp_path)
  assert memory.free_bytes() == 650
  (tmp_path / 'memory.max').write_text('max\n')
  assert memory.free_bytes() > 2**20


@pytest.fixture
def in_strips(monkeypatch):
  """Make results of more than 1000 pixels in strips of few rows."""
  monkeypatch.setattr(streaming, 'FROM', 1000)
  monkeypatch.setattr(streaming, '_STRIP', 16 * 200 * 8)


def test_strips_give_the_result_of_the_whole(in_strips):
  model = load('edsr_x4_tiny')
  image = phantom(3, 0, size=200)[..., None]
  margin = Tiles(model.network, 'auto').margin
  enlarge = lambda strip: model.upscale(strip)
  found = list(streaming.strips(enlarge, image, scale=4, margin=margin))
  assert len(found) > 2
  want = model.upscale(image).astype(int)
  assert np.abs(np.concatenate(found) - want).max() <= 1


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('target', [(301, 299), (150, 150), (599, 450)])
def test_reduced_strips_equal_pillows_filter(dtype, target):
  from PIL import Image

  image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (600, 500, 1)).astype(dtype)
  parts = (image[i : i + 70] for i in range(0, 600, 70))
  found = np.concatenate(list(streaming.resize_rows(parts, (600, 500), target)))
  floats = Image.fromarray(image[..., 0].astype(np.float32))
  want = np.asarray(floats.resize(target[::-1], Image.Resampling.BICUBIC))
  want = np.rint(want.clip(0, np.iinfo(dtype).max))
  assert found.shape == (*target, 1) and found.dtype == dtype
  assert np.abs(found[..., 0] - want).max() <= (1 if dtype == np.uint8 else 40)
  assert np.mean(found[..., 0] != want) < (0.001 if dtype == np.uint8 else 0.5)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize(
  ('channels', 'dtype', 'bits'), [(1, np.uint8, 8), (1, np.uint16, 12), (3, np.uint8, 8)]
)
def test_files_written_in_rows_are_those_written_at_once(tmp_path, suffix, channels, dtype, bits):
  top = np.iinfo(dtype).max
  image = np.random.default_rng(0).integers(0, 2**bits, (50, 31, channels))
  image = ((image * top) // (2**bits - 1)).astype(dtype)
  info = ImageInfo(bits, (90.0, 45.0))
  whole, parts = tmp_path / f'a{suffix}', tmp_path / f'b{suffix}'
  image_files.write(whole, image, 'jaxsr note', info=info, scale=4)
  with image_files.writing(
    parts, image.shape, image.dtype, 'jaxsr note', info=info, scale=4
  ) as writer:
    for start in range(0, 50, 8):
      writer.write(image[start : start + 8])
  (want, kept), (found, again) = (
    image_files.load(whole, channels),
    image_files.load(parts, channels),
  )
  np.testing.assert_array_equal(found, want)
  assert again.bits == kept.bits == bits and np.allclose(again.dpi, kept.dpi, atol=0.1)
  assert image_files.read_note(parts) == image_files.read_note(whole) == 'jaxsr note'
  assert rows.is_complete(parts) and rows.is_complete(whole)
  parts.write_bytes(parts.read_bytes()[:-30])
  assert not rows.is_complete(parts)
