"""Shares of overwritten JPEG that the exported page, and `jaxsr.read`, take for whole.

python -m benchmarks.damage --files 300

Random bytes are written over a phantom's scans, and files of other pixels than before are counted.
The script of the page runs in Node.js. Both use one decoder of JPEG-LS, so that column is common.
"""

import base64
import io
import json
import subprocess
from collections.abc import Callable
from importlib.resources import files as resources

import imagecodecs
import numpy as np
import tyro
from PIL import Image

from jaxsr.data import jpeg
from jaxsr.data.phantom import phantom

_LENGTHS = (1, 4, 16, 64)
_JPEG_LS = 0xF7
_SCRIPT = """
const fs = require('fs');
require('vm').runInThisContext(fs.readFileSync(process.argv[1], 'utf8'));
const isTaken = text => {
  const bytes = new Uint8Array(Buffer.from(text, 'base64'));
  try { jpegFrame(bytes); checkScans(bytes); return true } catch { return false }
};
console.log(JSON.stringify(fs.readFileSync(0, 'utf8').split('\\n').map(isTaken)));
"""


def main(files: int = 300, seed: int = 0) -> None:
  """Overwrite `files` copies of each film per length, and print a table."""
  rng = np.random.default_rng(seed)
  print('| Bytes overwritten |', ' | '.join(_FILMS), '|')
  print('|---' * (len(_FILMS) + 1) + '|')
  for length in _LENGTHS:
    cells = [_cell(rng, encode(), length, files) for encode in _FILMS.values()]
    print(f'| {length} |', ' | '.join(cells), '|', flush=True)


def _cell(rng: np.random.Generator, whole: bytes, length: int, files: int) -> str:
  """Returns the shares of the page and of the reader."""
  contents = [_overwritten(rng, whole, length) for _ in range(files)]
  (true, marker), found = _read(whole), [_read(content)[0] for content in contents]
  own = [pixels not in (None, true) for pixels in found]
  if marker == _JPEG_LS:
    return f'{np.mean(own):.1%}'
  taken = zip(_taken(contents), found, strict=True)
  page = [is_taken and pixels != true for is_taken, pixels in taken]
  return f'{np.mean(page):.1%} ({np.mean(own):.1%})'


def _overwritten(rng: np.random.Generator, whole: bytes, length: int) -> bytes:
  start = int(rng.integers(whole.index(b'\xff\xda') + 14, len(whole) - length - 2))
  return whole[:start] + rng.bytes(length) + whole[start + length :]


def _read(content: bytes) -> tuple[bytes | None, int]:
  """Returns the pixels of a file, None if the reader refuses it, and the marker of its frame."""
  frame = jpeg.frame(io.BytesIO(content))
  if frame is None:
    return None, 0
  try:
    return jpeg.decode(content, frame)[0].tobytes(), frame.marker
  except Exception:  # each decoder has errors of its own
    return None, frame.marker


def _taken(contents: list[bytes]) -> list[bool]:
  """Returns which files the page takes."""
  script = str(resources('jaxsr.export') / 'web' / 'scans.js')
  lines = '\n'.join(base64.b64encode(content).decode() for content in contents)
  command = ['node', '-e', _SCRIPT, script]
  run = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
  return json.loads(run.stdout)


def _film() -> np.ndarray:
  return phantom(3, 1, size=256, bits=16)[:150, :203]


def _lossy(**options: bool) -> bytes:
  file = io.BytesIO()
  Image.fromarray((_film() >> 8).astype(np.uint8)).save(file, 'JPEG', quality=90, **options)
  return file.getvalue()


_FILMS: dict[str, Callable[[], bytes]] = {
  'Baseline': _lossy,
  'Progressive': lambda: _lossy(progressive=True),
  'JPEG Lossless': lambda: bytes(imagecodecs.ljpeg_encode(_film())),
  'JPEG-LS': lambda: bytes(imagecodecs.jpegls_encode(_film())),
}


if __name__ == '__main__':
  tyro.cli(main)
