"""Comparison of record formats: python -m benchmarks.records --data COPY [--against-torch].

COPY is a local copy as for `jaxsr data prepare`: images of NIH ChestX-ray14 with their table. Each
form of records is prepared in a temporary folder (images per second) and read as in training: one
crop of 256x256 high-resolution pixels with its low resolution from each film, in random order.
Crops per second are by wall clock, and by the processor time of the process. `cold` is the first
pass, after the files were dropped from the page cache.

`tiles` is measured only here: films in 64 tiles of 128x128 pixels, of which a crop reads nine, with
the low resolution computed from the crop while reading; the map of bicubic's errors is not
available then. `--against-torch` measures PyTorch's DataLoader on the PNG files. The last lines are
the time per core of each step of the preparation, by Pillow and NumPy, and compiled.
"""

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tyro
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.loader import torch_batches
from jaxsr.data import crops, degradation, image_files, pipeline, records
from jaxsr.data.crops import Windows
from jaxsr.data.device_cache import CropIndex
from jaxsr.data.fast import bicubic, png
from jaxsr.data.image_cache import Films
from jaxsr.data.nih import builder, local_copy, shards
from jaxsr.data.nih.splits import Rule
from jaxsr.data.records import Records
from jaxsr.files import release

WINDOWS = Windows(seed=0, patch=48, margin=8, by_error=0.5)
SCALE, TILE, GRID = 4, 128, 8


def main(data: Path, crops: int = 2_000, threads: int = 1, against_torch: bool = False) -> None:
  """Measure every form."""
  found = local_copy.find(data)
  side = SCALE * WINDOWS.side
  with tempfile.TemporaryDirectory() as temporary:
    for form in records.FORMS:
      output = Path(temporary, form)
      output.mkdir()
      plan = shards.make_plan(found, output, rule=Rule(validation=0, test=0), form=form)
      start = time.perf_counter()
      folder = builder.prepare(plan, found.shards, output, runner='DirectRunner', flags=[])
      seconds = time.perf_counter() - start
      source = Records(folder, 'train')
      size = sum(path.stat().st_size for path in folder.glob('*array_record*')) / len(source)
      print(f'{form}: {len(source) / seconds:.0f} images/s prepared, {size / 1e6:.2f} MB each')
      few = crops if form != 'png' else crops // 2
      _forget(folder)
      _measure(f'  {form}, no cache, cold', few // 4, _stream(source, 0, threads))
      _measure(f'  {form}, no cache', few, _stream(source, 0, threads))
      if form == 'raw':
        films = Films(source, scale=SCALE, capacity=2**35)
        errors = np.stack([films[i].error for i in range(len(films))])
        _measure('  any, on the host', crops, _batches(films, threads))
        pointers = _batches(CropIndex((256, 256), errors), threads)
        _measure('  any, on the device: its pointers', crops, pointers)
        _tiles(source, Path(temporary, 'tiles'), crops, side)
    _steps(image_files.find(data)[:100])
    if against_torch:
      batches = torch_batches(image_files.find(data), side=side, batch_size=16)
      _measure('PyTorch DataLoader', 20 * 16, lambda _: [next(batches) for _ in range(20)])


def _stream(source: Records, capacity: int, threads: int) -> Callable[[int], object]:
  return _batches(Films(source, scale=SCALE, capacity=capacity), threads)


def _batches(films: Films | CropIndex, threads: int) -> Callable[[int], object]:
  dataset = pipeline.batches(films, WINDOWS, batch_size=16)

  def take(count: int) -> None:
    stream = pipeline.iterate(dataset, start=0, threads=threads, workers=0)
    for _ in range(count // 16):
      next(stream)
    stream.close()

  return take


def _tiles(source: Records, path: Path, crops: int, side: int) -> None:
  """Measure writing films as tiles, and reading crops from them."""
  writer = ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
  for i in range(len(source)):
    film = source[i]
    for row in range(GRID):
      for column in range(GRID):
        place = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        writer.write(film[place].tobytes())
  writer.close()
  reader, rng = ArrayRecordDataSource(str(path)), np.random.default_rng(0)

  def take(count: int) -> None:
    for _ in range(count):
      film, corner = (
        rng.integers(len(source)),
        rng.integers(0, 1024 - side, size=2) // SCALE * SCALE,
      )
      first, last = corner // TILE, (corner + side - 1) // TILE
      places = [
        int(film * GRID**2 + row * GRID + column)
        for row in range(first[0], last[0] + 1)
        for column in range(first[1], last[1] + 1)
      ]
      shape = (*(last - first + 1), TILE, TILE)
      pieces = np.stack([np.frombuffer(x, np.uint8) for x in reader.__getitems__(places)])
      whole = pieces.reshape(shape).transpose(0, 2, 1, 3).reshape(shape[0] * TILE, -1, 1)
      top, left = corner - first * TILE
      degradation.downscale(
        np.ascontiguousarray(whole[top : top + side, left : left + side]), SCALE
      )

  _forget(path.parent)
  _measure('  tiles, no cache, cold', crops // 4, take)
  _measure('  tiles, no cache', crops, take)


def _steps(paths: Sequence[Path]) -> None:
  """Measure the steps of preparing films, by Pillow and NumPy, and compiled."""
  contents = [path.read_bytes() for path in paths]
  films = [image_files.read(path) for path in paths]
  planes = [image[..., 0] for image in films]
  lows = [bicubic.downscale(plane, SCALE) for plane in planes]
  _pair(
    'decode',
    [lambda x=x: image_files.decode(io.BytesIO(x), Path('film.png')) for x in contents],
    [lambda x=x: png.decode(x, most=image_files.MAX_PIXELS) for x in contents],
  )
  _pair(
    'downscale',
    [lambda x=x: degradation.downscale(x, SCALE) for x in films],
    [lambda x=x: bicubic.downscale(x, SCALE) for x in planes],
  )
  _pair(
    "map bicubic's error",
    [lambda x=x, y=y: crops.map_error(x, y[..., None]) for x, y in zip(films, lows, strict=True)],
    [lambda x=x, y=y: bicubic.map_error(x, y) for x, y in zip(planes, lows, strict=True)],
  )


def _pair(name: str, *ways: Sequence[Callable[[], object]]) -> None:
  """Print the medians of two implementations of a step, timed in turn."""
  seconds = np.array([[_time(call) for call in calls] for calls in zip(*ways, strict=True)])
  slow, fast = 1e3 * np.median(seconds[1:], axis=0)  # the first one compiles
  print(f'{name:20s} {slow:6.2f} ms by Pillow and NumPy, {fast:6.2f} compiled', flush=True)


def _time(call: Callable[[], object]) -> float:
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def _forget(folder: Path) -> None:
  """Drop the files of a folder from the page cache."""
  for path in folder.rglob('*'):
    if path.is_file():
      release(path)


def _measure(name: str, count: int, take: Callable[[int], object]) -> None:
  wall, processor = time.perf_counter(), time.process_time()
  take(count)
  wall, processor = time.perf_counter() - wall, time.process_time() - processor
  print(f'{name:40s} {count / wall:8.0f}/s {count / processor:8.0f}/s per core', flush=True)


if __name__ == '__main__':
  tyro.cli(main)
