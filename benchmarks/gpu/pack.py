"""Pack images and wheels into loads for a machine without a network, and unpack them there.

python -m benchmarks.gpu.pack --train DIR [DIR ...] --val DIR --output LOADS
python -m benchmarks.gpu.pack --unpack LOADS --output FOLDER

Images are written as lossless WebP, a sixth smaller than PNG, which Pillow decodes by itself.
Each is compared with its original after packing; its SHA-256 travels along and is compared after
unpacking. Unpacking writes fast, large PNG files and leaves what is already there.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from PIL import Image

WHEELS = (  # packages beyond JAX, Flax, Optax, Orbax and PyTorch
  'array-record',
  'beartype',
  'dm-pix',
  'docstring-parser',
  'grain',
  'ml-collections',
  'portpicker',
  'shtab',
  'tensorboard',
  'typeguard',
  'tyro',
)
INDEX = 'films.json'
_PLATFORMS = ('manylinux_2_28_x86_64', 'manylinux2014_x86_64', 'manylinux_2_17_x86_64')


class Film(NamedTuple):
  """One image of a load: where it belongs, and the SHA-256 of its pixels."""

  name: str  # SPLIT/FILE.png
  sha256: str


def main(
  output: Path,
  train: tuple[Path, ...] = (),
  val: tuple[Path, ...] = (),
  unpack: Path | None = None,
  limit_mib: float = 50,
  python: str = '3.12',
  wheels: bool = True,
  train_films: int = 0,
  val_films: int = 0,
  extras: tuple[Path, ...] = (),
) -> None:
  """Pack folders of 8-bit gray images into loads below a limit, or unpack the loads of a folder.

  Args:
    output: where the loads `1`, `2`, ... are written, or where images are unpacked to.
    train: folders whose images become `train/`.
    val: folders whose images become `val/`.
    unpack: a folder of loads; those that have arrived so far are unpacked.
    limit_mib: the largest size of a load.
    python: the version of Python that the wheels are for.
    wheels: also download and pack the packages that the other machine lacks.
    train_films: the number of images per folder of `train`, evenly spaced; 0 takes all.
    val_films: the same for `val`.
    extras: further files that travel with the first load, such as weights of feature networks.
  """
  began = time.perf_counter()
  if unpack is not None:
    count = unpack_all(unpack, output)
    print(f'{count} images unpacked in {time.perf_counter() - began:.1f} s')
    return
  sources = [(folder, 'train', train_films) for folder in train]
  sources += [(folder, 'val', val_films) for folder in val]
  jobs = [
    (path, f'{split}/{path.stem}.png')
    for folder, split, count in sources
    for path in spaced(sorted(folder.glob('*.png')), count)
  ]
  if not jobs:
    sys.exit('error: there is no image to pack: give folders of PNG files with --train and --val')
  output.mkdir(parents=True)
  used = _download(output / '1' / 'wheels', python) if wheels else 0
  for path in extras:
    (output / '1' / 'extras').mkdir(parents=True, exist_ok=True)
    used += (output / '1' / 'extras' / path.name).write_bytes(path.read_bytes())
  with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and hashlib release the GIL
    packed = list(pool.map(_encode, *zip(*jobs, strict=True)))
  sizes = _distribute(packed, output, limit=int(limit_mib * 2**20), used=used)
  seconds = time.perf_counter() - began
  text = ', '.join(f'{size / 2**20:.1f}' for size in sizes)
  print(f'{len(packed)} images in {len(sizes)} loads of {text} MiB, packed in {seconds:.0f} s')


def spaced(paths: Sequence[Path], count: int) -> list[Path]:
  """Returns `count` of the paths, evenly spaced; all of them if `count` is 0."""
  if not count or count >= len(paths):
    return list(paths)
  return [paths[i * len(paths) // count] for i in range(count)]


def _download(folder: Path, python: str) -> int:
  """Downloads the wheels that the other machine lacks; returns their size in bytes."""
  folder.mkdir(parents=True)
  platforms = [f'--platform={name}' for name in _PLATFORMS]
  options = ['--no-deps', f'--python-version={python}', '--only-binary=:all:', *platforms]
  command = [sys.executable, '-m', 'pip', 'download', '-qq', *options, f'--dest={folder}', *WHEELS]
  subprocess.run(command, check=True)
  return sum(path.stat().st_size for path in folder.iterdir())


def _encode(path: Path, name: str) -> tuple[Film, bytes]:
  """Encodes an image without loss, and decodes it again to be sure."""
  with Image.open(path) as image:
    if image.mode not in ('L', 'RGB', 'RGBA'):
      sys.exit(f'error: {path} is {image.mode}; only 8-bit images are packed')
    pixels = np.asarray(image.convert('L'))
    if image.mode != 'L' and np.any(np.asarray(image.convert('RGB')) != pixels[..., None]):
      sys.exit(f'error: {path} is in color; only gray images are packed')
  data = io.BytesIO()
  Image.fromarray(pixels).convert('RGB').save(data, 'WEBP', lossless=True, quality=100, method=4)
  film = Film(name, _digest(pixels))
  if _digest(_decode(data.getvalue())) != film.sha256:
    sys.exit(f'error: {path} did not survive WebP')
  return film, data.getvalue()


def _decode(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    return np.ascontiguousarray(np.asarray(image)[..., 0])


def _digest(pixels: np.ndarray) -> str:
  return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _distribute(
  packed: Sequence[tuple[Film, bytes]], output: Path, *, limit: int, used: int
) -> list[int]:
  """Writes images to as few loads as hold them, spread evenly; returns the loads' sizes."""
  total = used + sum(len(data) for _, data in packed)
  count = -(-total // limit)
  sizes, films = [used] + [0] * (count - 1), [[] for _ in range(count)]
  split = {name: [p for p in packed if p[0].name.startswith(name)] for name in ('val', 'train')}
  for film, data in split['val'] + split['train']:  # validation films arrive first
    room = next(i for i in range(count) if sizes[i] + len(data) <= max(limit, total // count))
    folder = output / str(room + 1)
    folder.mkdir(exist_ok=True)
    (folder / f'{film.name.replace("/", "_").removesuffix(".png")}.webp').write_bytes(data)
    sizes[room] += len(data)
    films[room].append(film._asdict())
  for i, found in enumerate(films):
    (output / str(i + 1) / INDEX).write_text(json.dumps(found))
  return sizes


def unpack_all(loads: Path, output: Path) -> int:
  """Unpacks the images of all loads that are there, in parallel; returns how many were new.

  Raises:
    SystemExit: If the pixels of an image differ from the packed ones.
  """
  jobs: list[tuple[Path, Any]] = []
  for index in sorted(loads.glob(f'*/{INDEX}')):
    jobs += [(index.parent, film) for film in json.loads(index.read_text())]
  jobs = [(folder, film) for folder, film in jobs if not (output / film['name']).exists()]
  for split in ('train', 'val'):
    (output / split).mkdir(parents=True, exist_ok=True)
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(_unpack, *zip(*((*j, output) for j in jobs), strict=True))) if jobs else None
  return len(jobs)


def _unpack(folder: Path, film: dict[str, str], output: Path) -> None:
  source = folder / f'{film["name"].replace("/", "_").removesuffix(".png")}.webp'
  pixels = _decode(source.read_bytes())
  if _digest(pixels) != film['sha256']:
    sys.exit(f'error: {source} differs from the packed one')
  path = output / film['name']
  temporary = path.with_suffix('.part')
  Image.fromarray(pixels).save(temporary, 'PNG', compress_type=zlib.Z_RLE, compress_level=1)
  temporary.replace(path)


if __name__ == '__main__':
  tyro.cli(main)
