"""The page notices damaged scans of JPEG as `jaxsr.data.jpeg` does; its script runs in Node.js."""

import base64
import io
import itertools
import json
import shutil
import subprocess
from importlib.resources import files as resources

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from jaxsr.data import jpeg

SCRIPT = resources('jaxsr.export') / 'web' / 'scans.js'
RUN = """
const fs = require('fs');
require('vm').runInThisContext(fs.readFileSync(process.argv[1], 'utf8'));
const found = fs.readFileSync(0, 'utf8').split('\\n').map(text => {
  const bytes = new Uint8Array(Buffer.from(text, 'base64'));
  try { jpegFrame(bytes); return checkScans(bytes).left } catch (error) { return error.message }
});
console.log(JSON.stringify(found));
"""
KINDS = ('baseline', 'restarts', 'color', 'progressive', 'progressive color', 'lossless')


def verdicts(contents):
  """Returns the count of bytes that are left after a scan, or the page's refusal, per file."""
  node = shutil.which('node')
  if node is None:
    pytest.skip('needs Node.js')
  lines = '\n'.join(base64.b64encode(content).decode() for content in contents)
  command = [node, '-e', RUN, str(SCRIPT)]
  run = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
  return json.loads(run.stdout)


def waves(rng, height=53, width=70):
  y, x = np.mgrid[:height, :width]
  smooth = (np.sin(x / 9) + np.cos(y / 7) + 2) / 5 + rng.random((height, width)) * 0.15
  return (255 * smooth.clip(0, 1)).astype(np.uint8)


def encode(image, **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', **options)
  return file.getvalue()


def film(rng, kind):
  """Returns a JPEG of one of the kinds."""
  gray = waves(rng)
  if kind == 'lossless':
    deep = (gray.astype(np.uint16) << 4) + rng.integers(0, 16, gray.shape).astype(np.uint16)
    return imagecodecs.ljpeg_encode(deep, bitspersample=12)
  image = np.dstack([gray, gray[::-1], gray]) if 'color' in kind else gray
  restart = 7 if kind == 'restarts' else 0
  return encode(
    image,
    quality=85,
    subsampling=2,
    progressive='progressive' in kind,
    restart_marker_blocks=restart,
  )


def is_refused(content):
  """Whether jaxsr refuses a file."""
  try:
    frame = jpeg.frame(io.BytesIO(content))
    assert frame
    jpeg.decode(content, frame)
  except Exception:  # each decoder has errors of its own, and a damaged header has no frame
    return True
  return False


def damaged(rng, whole, count):
  """Yield files in whose scans bytes are overwritten, turned to zeros, flipped, swapped or lost."""
  start = whole.index(b'\xff\xda')
  for i in range(count):
    content, size = bytearray(whole), int(rng.choice([1, 2, 4, 8, 16, 32, 64]))
    at, other = (int(place) for place in rng.integers(start, len(whole) - size, 2))
    if i % 5 == 0:
      content[at : at + size] = rng.bytes(size)
    elif i % 5 == 1:
      content[at : at + size] = bytes(size)
    elif i % 5 == 2:
      content[at] ^= 1 << int(rng.integers(8))
    elif i % 5 == 3 and abs(at - other) >= size:
      content[at : at + size], content[other : other + size] = (
        content[other : other + size],
        content[at : at + size],
      )
    else:
      content[at:] = b'\xff\xd9' if i % 2 else b''
    yield bytes(content)


def test_whole_files_of_every_encoding_are_taken(rng):
  contents = []
  shapes = [(16, 16), (17, 31), (53, 70)]
  options = itertools.product(shapes, 'LC', (1, 60, 100), (0, 1, 2), (False, True), (0, 1, 3))
  for (height, width), mode, quality, subsampling, progressive, restart in options:
    gray = waves(rng, height, width) if quality < 100 else rng.integers(0, 256, (height, width))
    gray = gray.astype(np.uint8)
    image = np.dstack([gray, gray[::-1], gray[:, ::-1]]) if mode == 'C' else gray
    content = encode(
      image,
      quality=quality,
      subsampling=subsampling,
      progressive=progressive,
      restart_marker_blocks=restart,
      optimize=bool(restart),
    )
    contents.append(content)
  for bits, predictor in itertools.product((8, 12, 16), range(1, 8)):
    deep = rng.integers(0, 2**bits, (23, 34)).astype(np.uint8 if bits == 8 else np.uint16)
    contents.append(
      imagecodecs.jpeg8_encode(deep, bitspersample=bits, lossless=True, predictor=predictor)
    )
  contents += [encode(np.full((40, 50), gray, np.uint8), quality=95) for gray in (0, 255)]
  contents += [content + tail for content in contents[:40] for tail in (b'\1' * 99, contents[0])]
  end = contents[0][:-2]
  contents += [end + more + b'\xff\xd9' for more in (b'\xff\xff', b'\xff\xd0', bytes(300))]
  tables = end.index(b'\xff\xc4')
  contents.append(contents[0][:tables] + b'\x5a\xff\0\x5a' + contents[0][tables:])  # stray bytes
  assert verdicts(contents) == [0] * len(contents)


@pytest.mark.parametrize('kind', KINDS)
def test_damage_that_jaxsr_refuses_is_refused(rng, kind):
  contents = list(damaged(rng, film(rng, kind), 120))
  refused = [is_refused(content) for content in contents]
  found = [isinstance(verdict, str) for verdict in verdicts(contents)]
  assert sum(refused) > 50
  assert all(page >= own for page, own in zip(found, refused, strict=True))


def test_bytes_after_the_last_pixel_are_counted_or_refused(rng):
  whole = film(rng, 'baseline')[:-2]
  contents = [whole + rng.bytes(n).replace(b'\xff', b'\1') + b'\xff\xd9' for n in (1, 4, 5, 40)]
  few, four, *many = verdicts(contents)
  assert (few, four) == (1, 4)
  assert all('overwritten' in line for line in many)


def test_forged_headers_are_refused(rng):
  whole = film(rng, 'baseline')
  at = whole.index(b'\xff\xc0')
  for place, value in ((at + 5, 1), (at + 6, 90), (at + 6, 20), (at + 8, 120), (at + 8, 40)):
    content = whole[:place] + bytes([value]) + whole[place + 1 :]
    assert 'overwritten' in verdicts([content])[0], place
  assert 'no frame' in verdicts([whole[:at] + whole[whole.index(b'\xff\xda') :]])[0]
  tables = whole.index(b'\xff\xc4')
  assert 'Huffman' in verdicts([whole[:tables] + whole[whole.index(b'\xff\xda') :]])[0]


def test_missing_and_repeated_scans_are_refused(rng):
  whole = film(rng, 'progressive')
  scans = [i for i in range(len(whole)) if whole[i : i + 2] == b'\xff\xda']
  last = whole[scans[-1] :]
  lines = verdicts([whole[: scans[-1]] + b'\xff\xd9', whole[:-2] + last])
  assert 'some of its scans are missing' in lines[0]
  assert 'overwritten' in lines[1]


def test_intervals_in_another_order_are_refused():
  whole = encode(np.full((40, 400), 77, np.uint8), restart_marker_blocks=7)
  first = whole.index(b'\xff\xd1')
  second = whole.index(b'\xff\xd2')
  turned = whole[:first] + b'\xff\xd2' + whole[first + 2 : second] + b'\xff\xd1'
  assert is_refused(turned + whole[second + 2 :])
  assert 'overwritten' in verdicts([turned + whole[second + 2 :]])[0]


def test_blocks_brighter_than_white_are_refused():
  content = encode(np.full((40, 50), 255, np.uint8), quality=50)
  at = content.index(b'\xff\xdb') + 5  # the step of the mean
  brighter = content[:at] + bytes([2 * content[at]]) + content[at + 1 :]
  assert verdicts([content]) == [0]
  assert 'overwritten' in verdicts([brighter])[0]
