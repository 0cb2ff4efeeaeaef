"""Images on the device: batches cut there equal those of the host, bit by bit."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxsr import config as configs
from jaxsr import sharding
from jaxsr.data import device_cache, pipeline, sources
from jaxsr.data.crops import Windows
from jaxsr.data.image_cache import Films
from jaxsr.errors import UserError
from jaxsr.training.train import train
from runs import final, four_steps, rows

WINDOWS = Windows(seed=3, patch=8, margin=3, by_error=0.5)


def phantoms(**options):
  return sources.Phantoms(**{'seed': 2, 'start': 0, 'count': 3, 'size': 128, 'bits': 8} | options)


class Labeled(Films):
  """Images whose teacher's image is the image upside down."""

  def _make(self, index):
    made = super()._make(index)
    return made._replace(teacher=made.hr[::-1])


@pytest.mark.parametrize(
  'kind, options, scale',
  [
    (Films, {}, 4),
    (Films, {'channels': 3}, 2),
    (Labeled, {'bits': 16}, 4),
    (Labeled, {'channels': 3}, 4),
  ],
)
def test_the_device_cuts_the_hosts_batches(kind, options, scale):
  films = kind(phantoms(**options), scale=scale, capacity=2**30)
  index, arrays = device_cache.load(films, sharding.make_mesh(1))
  host = pipeline.batches(films, WINDOWS, batch_size=16)
  device = pipeline.batches(index, WINDOWS, batch_size=16)
  cut = jax.jit(device_cache.cut, static_argnames=('patch', 'margin'))
  for i in (0, 5):
    where = {name: jax.numpy.asarray(x) for name, x in device[i].items()}
    found = jax.device_get(cut(arrays, where, patch=WINDOWS.patch, margin=WINDOWS.margin))
    wanted = host[i]
    assert found.keys() == wanted.keys()
    for name in wanted:
      assert found[name].dtype == wanted[name].dtype
      np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_every_turn_and_edge_is_met():
  """The comparison above covers all turns and all four edges."""
  index = device_cache.CropIndex((32, 32), np.tile(np.arange(1, 65) / 64, (3, 1)))
  batch = pipeline.batches(index, WINDOWS, batch_size=400)[0]
  assert set(batch['turn']) == set(range(8)) and set(batch['film']) == {0, 1, 2}
  for axis in (0, 1):
    assert {0, 32 - WINDOWS.side} <= set(batch['corner'][:, axis])


@pytest.fixture(scope='module')
def on_host(tiny_config, tmp_path_factory):
  folder = tmp_path_factory.mktemp('host')
  assert train(tiny_config, folder) == 0
  return folder


@pytest.fixture(scope='module')
def tiny_config():
  return four_steps(configs.load('configs/quickstart.py'))


def with_cache(config, cache):
  config = configs.copy(config)
  config.data.cache = cache
  return config


@pytest.mark.parametrize('cache', [pytest.param('none', marks=pytest.mark.slow), 'device'])
def test_a_run_ends_where_it_does_without(tiny_config, on_host, tmp_path, cache):
  config = with_cache(tiny_config, cache)
  assert train(config, tmp_path) == 0
  a, b = final(tiny_config, on_host), final(config, tmp_path)
  assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
  figures = ('psnr', 'ssim', 'loss')
  assert [[r[f] for f in figures] for r in rows(tmp_path)] == [
    [r[f] for f in figures] for r in rows(on_host)
  ]


def test_films_of_several_sizes_are_refused():
  source = phantoms()
  source.sizes = [(128, 128), (128, 256), (128, 128)]
  films = Films(source, scale=4, capacity=2**30)
  with pytest.raises(
    UserError, match='images of one size, but .*0.png is 128x128 and .*1.png is 25'
  ):
    device_cache.load(films, sharding.make_mesh(1))


def test_films_that_do_not_fit_are_refused(monkeypatch):
  device = SimpleNamespace(memory_stats=lambda: {'bytes_limit': 60_000})
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  films = Films(phantoms(), scale=4, capacity=2**30)
  with pytest.raises(UserError, match='config.data.cache=device: the images take .* GiB'):
    device_cache.load(films, sharding.make_mesh(1))


def test_worker_processes_draw_the_same_crops():
  index, _ = device_cache.load(Films(phantoms(), scale=4, capacity=2**30), sharding.make_mesh(1))
  dataset = pipeline.batches(index, WINDOWS, batch_size=4)
  stream = pipeline.iterate(dataset, start=3, threads=1, workers=2)
  for i, batch in zip(range(3, 6), stream, strict=False):
    for name, x in dataset[i].items():
      np.testing.assert_array_equal(batch[name], x, err_msg=name)
  stream.close()


MEMORY = """
import io, resource, sys
import numpy as np
from pathlib import Path
from PIL import Image
from jaxsr.data import pipeline, records
from jaxsr.data.image_cache import Films
from jaxsr.data.nih import constants, shards, splits
from jaxsr.data.nih.metadata import Entry
from jaxsr.data.nih.shards import Plan
from jaxsr.data.crops import Windows

COUNT = 112_120
folder = Path(sys.argv[1])
row = records.IndexRow('train', '', '', 'Mass', 50, 'F', 'PA', 1024, 1024)
names = (f'{i // 4:08d}_{i % 4:03d}.png' for i in range(COUNT))
records.write_index(folder, (row._replace(name=name, patient=name[:8]) for name in names))
records.write_facts(folder, records.Facts('raw', 4, '', [], 0, '', ''))


serialize = shards.serializer('raw')
plan = Plan('', (), '', splits.Rule(), (), 'raw', 4)
side = constants.IMAGE_SIDE


class Endless:
  def __getitem__(self, place):
    rng = np.random.default_rng(place)
    name = f'{place // 4:08d}_{place % 4:03d}.png'
    image = np.repeat(rng.integers(0, 255, (side, 1), np.uint8), side, axis=1)
    entry = Entry(name, name[:8], ('Mass',), 50, 'F', 'PA', side, side, (0.2, 0.2))
    return serialize(shards.make_example(entry, png(image), plan))


def png(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG', compress_level=1)
  return file.getvalue()


source = records.Records(folder, 'train')
source.__dict__['_source'] = Endless()
films = Films(source, scale=4, capacity=0)
dataset = pipeline.batches(films, Windows(0, 48, 8, 0.5), batch_size=16)
stream = pipeline.iterate(dataset, start=0, threads=2, workers=0)
for _ in range(200):
  batch = next(stream)
stream.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_streaming_all_of_nih_takes_less_than_two_gibibytes(tmp_path):
  pytest.importorskip('tensorflow_datasets', reason="records need pip install 'jaxsr-xray[nih]'")
  found = subprocess.run(
    [sys.executable, '-c', MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=300
  )
  assert found.returncode == 0, found.stderr
  assert float(found.stdout) < 2.0
