"""The page enlarges films in a browser as `jaxsr upscale` does, and opens no connection."""

import base64
import http.client
import json
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.errors import ImageError, UserError
from jaxsr.export import runtime
from jaxsr.inference.model import load

pytest.importorskip('onnxruntime', reason="needs the extra 'export'")
NAME = 'edsr_x4_tiny'


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """The page of a small network."""
  try:
    for library in runtime.LIBRARIES:
      runtime.read(library, [], folder=None)
  except UserError as error:
    pytest.skip(str(error))
  path = tmp_path_factory.mktemp('page') / 'page.html'
  assert cli.run(['export', NAME, '--to', 'web', '--output', str(path)]) == 0
  return path


@pytest.fixture(scope='module')
def chromium():
  """A browser without a window."""
  api = pytest.importorskip('playwright.sync_api', reason='needs playwright (pip)')
  path = shutil.which('chromium') or shutil.which('google-chrome')
  if path is None:
    pytest.skip('needs Chromium')
  with api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
    yield browser
    browser.close()


class Listener(BaseHTTPRequestHandler):
  """Counts requests."""

  count = 0

  def do_GET(self):
    Listener.count += 1

  do_POST = do_GET


@pytest.fixture
def listener():
  """The address of a server on this machine, which a page could send films to."""
  with ThreadingHTTPServer(('127.0.0.1', 0), Listener) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


RAW = '1.2.840.10008.1.2.1'


def dicom(path, stored, bits, *, syntax=RAW, kind='MONOCHROME1', lost=0, code=None, **changed):
  """Write a radiograph whose values are compressed as `syntax`, some bytes of which are lost.

  `code` replaces the compressed values; elements that are `changed` to None are left out.
  """
  pydicom = pytest.importorskip('pydicom', reason="needs the extra 'dicom'")
  imagecodecs = pytest.importorskip('imagecodecs')
  from pydicom.encaps import encapsulate

  dataset = pydicom.Dataset()
  dataset.file_meta = pydicom.dataset.FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.7'
  dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
  dataset.Rows, dataset.Columns = stored.shape
  dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, kind
  dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
  dataset.PixelRepresentation = 0
  for name, value in changed.items():
    if value is None:
      delattr(dataset, name)
    else:
      setattr(dataset, name, value)
  if code is not None:
    dataset.PixelData = encapsulate([code])
  elif syntax.endswith('.50'):
    dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(stored, level=90)])
  elif syntax.endswith('.70'):
    code = imagecodecs.ljpeg_encode(stored, bitspersample=bits)
    half = len(code) // 2
    dataset.PixelData = encapsulate([code[:half] + code[half + lost :]])
  elif syntax.endswith('.80'):
    dataset.PixelData = encapsulate([imagecodecs.jpegls_encode(stored)])
  else:
    dataset.PixelData = stored.tobytes()
  dataset.save_as(path, enforce_file_format=True)


def png(path, samples, color, *, interlaced=False, pack=zlib.compress):
  """Write a PNG [h, w] or [h, w, c] of a kind that Pillow does not write."""
  chunk = lambda kind, data: (
    struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
  )
  passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
  parts = [*passes, (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
  lines = [row for y, x, down, across in parts for row in samples[y::down, x::across]]
  body = b''.join(b'\0' + row.astype(f'>u{samples.itemsize}').tobytes() for row in lines)
  height, width = samples.shape[:2]
  head = struct.pack('>IIBBBBB', width, height, 8 * samples.itemsize, color, 0, 0, interlaced)
  start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
  path.write_bytes(start + chunk(b'IDAT', pack(body)) + chunk(b'IEND', b''))


def films(folder):
  """Write films of every kind; returns each with the tolerance in its levels."""
  deep = phantom(3, 1, size=128, bits=16)[:72, :104]
  gray = (deep >> 8).astype(np.uint8)
  write = image_files.write
  write(folder / 'gray.png', gray[..., None])
  write(folder / 'deep.png', deep[..., None])
  write(folder / 'twelve.png', deep[..., None], info=image_files.ImageInfo(12))
  Image.fromarray(gray).save(folder / 'gray.jpg', quality=90)
  Image.fromarray(gray).convert('P').save(folder / 'palette.png')
  Image.fromarray(gray > 100).save(folder / 'one_bit.png')
  png(folder / 'interlaced.png', deep, 0, interlaced=True)
  png(folder / 'trailing.png', deep, 0, pack=lambda body: zlib.compress(body) + bytes(4))
  for orientation in range(2, 9):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(gray).save(folder / f'turned{orientation}.png', exif=exif)
  png(folder / 'transparent.png', np.dstack([deep, np.roll(deep, 9)]), 4)
  png(folder / 'rgb.png', np.dstack([deep] * 3), 2)
  dicom(folder / 'raw.dcm', (4095 - (deep >> 4)).astype(np.uint16), 12)
  dicom(folder / 'big.dcm', (deep >> 4).byteswap(), 12, syntax='1.2.840.10008.1.2.2')
  dicom(folder / 'jpeg.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.50', kind='MONOCHROME2')
  dicom(folder / 'lossless.dcm', (deep >> 4).astype(np.uint16), 12, syntax='1.2.840.10008.1.2.4.70')
  flat = np.full((17, 17), 77, np.uint8)  # codes of one bit, several in the last byte
  dicom(folder / 'flat.dcm', flat, 8, syntax='1.2.840.10008.1.2.4.70')
  dicom(folder / 'jpegls.dcm', deep, 16, syntax='1.2.840.10008.1.2.4.80')
  imagecodecs = pytest.importorskip('imagecodecs')
  codes = {'70': imagecodecs.ljpeg_encode(gray), '80': imagecodecs.jpegls_encode(gray)}
  assert gray.size % 2 == 0 and gray[1:, 1:].size % 2  # an odd number of bytes is no array of words
  odd = np.ascontiguousarray(gray[1:, 1:])
  codes |= {'70odd': imagecodecs.ljpeg_encode(odd), '80odd': imagecodecs.jpegls_encode(odd)}
  for name, code in codes.items():  # frames of 8 bits in values of 16
    stored = (odd if name.endswith('odd') else gray).astype(np.uint16)
    syntax = f'1.2.840.10008.1.2.4.{name[:2]}'
    dicom(folder / f'narrow{name}.dcm', stored, 8, syntax=syntax, code=code)
  half_a_step = 8  # of 12 bits in 16
  tolerances = {
    'twelve.png': half_a_step + 2,
    **dict.fromkeys(('deep.png', 'interlaced.png', 'transparent.png', 'rgb.png'), 2),
    'trailing.png': 2,
    **dict.fromkeys(('raw.dcm', 'big.dcm', 'lossless.dcm', 'jpegls.dcm'), 2),
  }
  return {path: tolerances.get(path.name, 1) for path in sorted(folder.iterdir())}


def overwritten(code):
  """Returns a JPEG some bytes of which were overwritten in the middle of its scan."""
  middle = (code.index(b'\xff\xda') + len(code)) // 2
  return code[:middle] + b'\x5a' * 24 + code[middle + 24 :]


def bad_films(folder):
  """Write files that cannot be enlarged; returns each with a part of the line that says why."""
  image_files.write(folder / 'whole.png', phantom(3, 1, size=128)[..., None])
  whole = (folder / 'whole.png').read_bytes()
  (folder / 'cut.png').write_bytes(whole[: len(whole) // 2])
  (folder / 'cut_end.png').write_bytes(whole[:-12])
  (folder / 'width.png').write_bytes(whole[:19] + b'\x7f' + whole[20:])
  (folder / 'text.png').write_text('no image')
  Image.new('L', (5000, 4000)).save(folder / 'large.png')
  Image.new('RGB', (64, 64), 'red').save(folder / 'color.png')
  (folder / 'cut.jpg').write_bytes(b'\xff\xd8\xff\xe0\0\4')
  (folder / 'cut.dcm').write_bytes(b'\0' * 128 + b'DICM' + b'\2\0\0\0UL\4\0')
  Image.new('CMYK', (64, 64)).save(folder / 'cmyk.jpg')
  imagecodecs = pytest.importorskip('imagecodecs')
  deep = phantom(3, 1, size=128, bits=16)
  code = imagecodecs.jpeg_encode(deep >> 4, bitspersample=12)
  (folder / 'twelve.jpg').write_bytes(code)
  dicom(folder / 'lost.dcm', deep, 16, syntax='1.2.840.10008.1.2.4.70', lost=400)
  gray = (deep[:40, :72] >> 8).astype(np.uint8)
  codes = {
    '50': imagecodecs.jpeg8_encode(gray),
    '70': imagecodecs.ljpeg_encode(gray),
    '80': imagecodecs.jpegls_encode(gray),
  }
  for name, code in codes.items():
    dicom(folder / f'turned{name}.dcm', gray.T, 8, syntax=f'1.2.840.10008.1.2.4.{name}', code=code)
  code = imagecodecs.ljpeg_encode(deep)
  half = len(code) // 2
  code = code[:half] + bytes(200) + code[half + 200 :]
  dicom(folder / 'zeros.dcm', deep, 16, syntax='1.2.840.10008.1.2.4.70', code=code)
  dicom(folder / 'bits.dcm', gray, 8, BitsStored=12, HighBit=11)
  dicom(folder / 'sign.dcm', gray, 8, PixelRepresentation=None)
  dicom(folder / 'samples.dcm', gray, 8, SamplesPerPixel=None)
  dicom(folder / 'inverse.dcm', gray, 8, kind='MONOCHROME2', PresentationLUTShape='INVERSE')
  dicom(folder / 'whole.dcm', gray, 8)
  (folder / 'bare.dcm').write_bytes((folder / 'whole.dcm').read_bytes()[132:])
  png(folder / 'sum.png', gray, 0, pack=lambda body: zlib.compress(body)[:-4] + bytes(8))
  jpeg = overwritten(codes['50'])
  (folder / 'overwritten.jpg').write_bytes(jpeg)
  dicom(folder / 'overwritten.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.50', code=jpeg)
  at = codes['50'].index(b'\xff\xc0') + 5
  (folder / 'height.jpg').write_bytes(codes['50'][:at] + b'\1' + codes['50'][at + 1 :])
  left = codes['50'][:-2] + b'\1\2' + codes['50'][-2:]
  dicom(folder / 'left.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.50', code=left)
  content = (folder / 'whole.dcm').read_bytes()
  at = content.index(b'\xe0\x7f\x10\0') + 8
  length = struct.pack('<I', gray.size - 18)
  padding = struct.pack('<HH2sHI6x', 0xFFFC, 0xFFFC, b'OB', 0, 6)
  content = content[:at] + length + content[at + 4 : -18] + padding
  (folder / 'short.dcm').write_bytes(content)
  dicom(folder / 'pieces.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.80', code=codes['80'])
  content = (folder / 'pieces.dcm').read_bytes()
  (folder / 'pieces.dcm').write_bytes(content[:-8])
  lines = {'bits.dcm': 'allocates 8 bits and stores 12', 'inverse.dcm': 'contradict each other'}
  lines |= {'sign.dcm': 'lacks PixelRepresentation', 'samples.dcm': 'lacks SamplesPerPixel'}
  lines |= {f'turned{name}.dcm': 'compressed frame 72' for name in codes}
  lines |= {
    'bare.dcm': 'without a preamble',
    'zeros.dcm': 'damaged',
    'sum.png': 'cannot be unpacked',
  }
  lost = ('overwritten.jpg', 'overwritten.dcm', 'height.jpg', 'left.dcm')
  lines |= dict.fromkeys(lost, 'a part of its pixels is missing or overwritten')
  lines |= {'short.dcm': 'pixels are missing', 'pieces.dcm': 'not divided into fragments'}
  lines |= {'cut.png': 'damaged', 'cut_end.png': 'damaged', 'width.png': 'checksum'}
  lines |= {'cmyk.jpg': 'CMYK', 'twelve.jpg': 'browsers do not decode', 'lost.dcm': 'damaged'}
  lines |= {'text.png': 'no PNG', 'large.png': '20,000,000 pixels'}
  lines |= {'color.png': 'in color', 'cut.jpg': 'damaged', 'cut.dcm': 'damaged'}
  return {folder / name: line for name, line in lines.items()}


@pytest.mark.slow
def test_the_page_enlarges_as_the_command_does(page, chromium, tmp_path, listener):
  good, bad = (tmp_path / name for name in ('good', 'bad'))
  good.mkdir()
  bad.mkdir()
  tab = chromium.new_page()
  requests, messages = [], []
  tab.on('request', lambda request: requests.append(request.url))
  tab.on('console', lambda message: messages.append(message.text))
  tab.on('pageerror', lambda error: messages.append(str(error)))
  tab.goto(page.as_uri())

  def open_film(path):
    tab.evaluate('() => { document.body.dataset.state = "" }')
    tab.set_input_files('#file', path)
    tab.wait_for_selector('body[data-state=done], body[data-state=failed]', timeout=120_000)
    return tab.evaluate('document.body.dataset.state'), tab.text_content('#status')

  model = load(NAME)
  for path, tolerance in films(good).items():
    state, line = open_film(path)
    assert state == 'done', line
    with tab.expect_download() as download:
      tab.click('#save')
    saved = tmp_path / download.value.suggested_filename
    assert saved.name == f'{path.stem}_x4.png'
    download.value.save_as(saved)
    image, info = image_files.load(path, 1)
    result, saved_info = image_files.load(saved, 1)
    assert result.dtype == image.dtype
    assert saved_info.bits == info.bits or path.suffix == '.dcm'
    peak = np.iinfo(image.dtype).max
    expected = np.rint(peak * np.asarray(model(image[None] / np.float32(peak)))[0].clip(0, 1))
    worst = np.abs(result - expected).max()
    assert worst <= tolerance, f'{path.name}: {worst} levels'
    saved.unlink()
  for path, reason in bad_films(bad).items():
    state, line = open_film(path)
    assert state == 'failed' and path.name in line and reason in line, line
    assert not tab.is_visible('#save')  # of the film before
  image = good / 'gray.jpg'
  image.write_bytes(image.read_bytes()[:-2] + b'\1\2\3\xff\xd9')
  assert 'has 3 bytes after its last pixel' in open_film(image)[1]
  assert messages == []
  assert all(url.startswith(('file:', 'blob:')) for url in requests), requests

  ways = [f'fetch({json.dumps(listener)})', f'navigator.sendBeacon({json.dumps(listener)}, "x")']
  ways += [
    f'(new Image()).src = {json.dumps(listener)}',
    f'new EventSource({json.dumps(listener)})',
  ]
  for way in ways:
    tab.evaluate(f'async () => {{ try {{ await ({way}) }} catch {{}} }}')
  tab.wait_for_timeout(500)
  assert Listener.count == 0 and len(messages) >= 3  # what the policy refused


READ = """async texts => Promise.all(texts.map(async text => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  try { return [...(await readFilm(new File([bytes], ''))).pixels] } catch { return null }
}))"""


def damaged(rng, whole, start, count):
  """Yield files that are cut, or some bytes of which are overwritten, after `start`."""
  for i in range(count):
    size = int(rng.choice([1, 4, 16, 64]))
    at = int(rng.integers(start, len(whole) - size))
    yield whole[:at] + (rng.bytes(size) + whole[at + size :] if i % 4 else b'\xff\xd9')


@pytest.mark.slow
def test_the_page_turns_jpeg_by_its_metadata_but_not_in_dicom(page, chromium, tmp_path):
  tab = chromium.new_page()
  tab.goto(page.as_uri())
  gray = (phantom(3, 1, size=128, bits=16)[:72, :72] >> 8).astype(np.uint8)
  ways = [{'exif': turned} for turned in map(exif_of, range(1, 9))]
  ways += [{'xmp': b'<rdf:Description tiff:Orientation="6"/>'}]
  for way in ways:
    Image.fromarray(gray).save(tmp_path / 'film.jpg', quality=90, **way)
    code = (tmp_path / 'film.jpg').read_bytes()
    dicom(tmp_path / 'film.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.50', code=code)
    paths = (tmp_path / 'film.jpg', tmp_path / 'film.dcm')
    found = tab.evaluate(READ, [base64.b64encode(path.read_bytes()).decode() for path in paths])
    for path, pixels in zip(paths, found, strict=True):
      expected = image_files.load(path, 1)[0].astype(int).ravel()
      assert np.abs(np.array(pixels) - expected).max() <= 2, (path.name, way)


def exif_of(orientation):
  """Returns EXIF of an orientation."""
  exif = Image.Exif()
  exif[274] = orientation
  return exif


@pytest.mark.slow
def test_the_page_names_and_steers_films(page, chromium, tmp_path):
  tab = chromium.new_page()
  tab.goto(page.as_uri())
  gray = phantom(3, 1, size=64)[..., None]
  names = ('1.2.840.5', 'other.png')
  for name in names:
    image_files.write(tmp_path / 'film.png', gray)
    (tmp_path / 'film.png').rename(tmp_path / name)
  paths = [tmp_path / name for name in names]
  tab.set_input_files('#file', paths[0])
  tab.wait_for_selector('body[data-state=done]', timeout=120_000)
  with tab.expect_download() as download:  # the other film takes the place of the first meanwhile
    tab.evaluate("() => { $('save').click(); $('save').click(); film.name = 'other.png'; }")
  assert download.value.suggested_filename == '1.2.840.5_x4.png'
  keys = {'End': 100, 'PageDown': 90, 'ArrowDown': 88, 'Home': 0, 'ArrowUp': 2, 'PageUp': 12}
  for key, place in keys.items():
    tab.press('.handle', key)
    assert tab.get_attribute('.handle', 'aria-valuenow') == str(place), key
  before = tab.evaluate('[view.left, view.top, view.zoom]')
  for key in ('ArrowLeft', 'ArrowDown', '+'):
    tab.press('canvas', key)
  after = tab.evaluate('[view.left, view.top, view.zoom]')
  assert after[2] > before[2] and after[:2] != before[:2]
  tab.evaluate("""() => {
    const data = new DataTransfer();
    for (const name of ['a.png', 'b.png']) data.items.add(new File(['x'], name));
    dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}));
  }""")
  assert '2 files: this page takes one at a time' in tab.text_content('#status')
  assert not tab.is_visible('#save')


@pytest.mark.slow
def test_the_page_refuses_damaged_pixels_that_jaxsr_refuses(page, chromium, tmp_path, rng):
  tab = chromium.new_page()
  tab.goto(page.as_uri())
  deep = phantom(3, 1, size=128, bits=16)[:72, :104]
  gray, twelve = (deep >> 8).astype(np.uint8), (deep >> 4).astype(np.uint16)
  write = {'baseline.jpg': {}, 'progressive.jpg': {'progressive': True}}
  for name, options in write.items():
    Image.fromarray(gray).save(tmp_path / name, quality=90, **options)
  image_files.write(tmp_path / 'deep.png', deep[..., None])
  dicom(tmp_path / 'jpeg.dcm', gray, 8, syntax='1.2.840.10008.1.2.4.50', kind='MONOCHROME2')
  for name, stored, bits in (('8', gray, 8), ('12', twelve, 12), ('16', deep, 16)):
    dicom(tmp_path / f'lossless{name}.dcm', stored, bits, syntax='1.2.840.10008.1.2.4.70')
    dicom(tmp_path / f'jpegls{name}.dcm', stored, bits, syntax='1.2.840.10008.1.2.4.80')
  for whole in sorted(tmp_path.iterdir()):
    content, name = whole.read_bytes(), tmp_path / f'damaged{whole.suffix}'
    start = content.index(b'IDAT' if whole.suffix == '.png' else b'\xff\xda')
    contents = [content, *damaged(rng, content, start, 40)]
    found = tab.evaluate(READ, [base64.b64encode(each).decode() for each in contents])
    assert found[0] is not None, whole.name
    refused = 0
    for each, pixels in zip(contents, found, strict=True):
      name.write_bytes(each)
      try:
        image_files.read(name)
      except ImageError:
        assert pixels is None, whole.name
        refused += 1
    assert refused > 15, whole.name


@pytest.mark.slow
def test_the_page_takes_jpeg_in_dicom_by_dcmtk(page, chromium, tmp_path):
  if shutil.which('dcmcjpeg') is None:
    pytest.skip('needs dcmcjpeg (dcmtk)')
  tab = chromium.new_page()
  tab.goto(page.as_uri())
  deep = phantom(3, 1, size=128, bits=16)[:72, :103]
  for bits in (8, 12, 16):
    stored = (deep >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16)
    dicom(tmp_path / 'raw.dcm', stored, bits, kind='MONOCHROME2')
    ways = [['+el', '+sv', str(predictor)] for predictor in range(1, 8)] + [['+e1']]
    ways += [['+eb', '+q', quality] for quality in ('50', '100')] if bits == 8 else []
    for way in ways:
      path = tmp_path / 'film.dcm'
      subprocess.run(['dcmcjpeg', *way, tmp_path / 'raw.dcm', path], check=True)
      (pixels,) = tab.evaluate(READ, [base64.b64encode(path.read_bytes()).decode()])
      assert pixels is not None, way
      tolerance = 2 if '+eb' in way else 0
      expected = image_files.load(path, 1)[0].astype(int).ravel()
      assert np.abs(np.array(pixels) - expected).max() <= tolerance, way


def test_a_library_of_another_content_is_refused(tmp_path):
  library = runtime.DICOM_PARSER
  with pytest.raises(UserError, match='npm pack dicom-parser@'):
    runtime.read(library, [], folder=tmp_path)
  (tmp_path / library.archive).write_bytes(b'other')
  with pytest.raises(UserError, match='is not the published archive'):
    runtime.read(library, [], folder=tmp_path)


def test_networks_that_cannot_run_in_tiles_have_no_page():
  from jaxsr import models
  from jaxsr.export import exportable, page
  from jaxsr.inference.model import Model

  network = models.build('rlfn', {'width': 0.2, 'depth': 0.2}, scale=4)
  model = Model('rlfn', network, {}, 4, 1)
  with pytest.raises(UserError, match='must see the whole image'):
    page.serialize(exportable.Exportable(model, 'float32', {}, None, ''))


def test_a_browser_that_leaves_early_prints_nothing(monkeypatch, capsys):
  from jaxsr.commands import demo
  from jaxsr.commands.options import Demo

  monkeypatch.setattr(demo, 'serialize', lambda *_, **__: (bytes(2**25), 0.0))
  with demo.make_server(Demo('bicubic', port=0)) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_connection(('127.0.0.1', server.server_port)) as connection:
      connection.sendall(b'GET / HTTP/1.0\r\n\r\n')
      connection.recv(100)
    time.sleep(0.3)
    server.shutdown()
  assert not capsys.readouterr().err


def test_demo_checks_the_port_before_it_builds_the_page(monkeypatch):
  from jaxsr.commands import demo
  from jaxsr.commands.options import Demo

  monkeypatch.setattr(demo, 'serialize', lambda *_, **__: pytest.fail('built'))
  with pytest.raises(UserError, match='--port 99999'):
    demo.make_server(Demo('bicubic', port=99999))


def test_demo_serves_the_page_with_the_headers_for_threads(monkeypatch):
  from jaxsr.commands import demo
  from jaxsr.commands.options import Demo

  monkeypatch.setattr(demo, 'serialize', lambda *_, **__: (b'<html>', 0.0))
  with demo.make_server(Demo(NAME, port=0)) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection('127.0.0.1', server.server_port)
    connection.request('GET', '/')
    answer = connection.getresponse()
    assert answer.read() == b'<html>'
    assert answer.headers['Cross-Origin-Opener-Policy'] == 'same-origin'
    assert answer.headers['Cross-Origin-Embedder-Policy'] == 'require-corp'
    connection.request('HEAD', '/?a=1')
    answer = connection.getresponse()
    assert (answer.status, answer.headers['Content-Length'], answer.read()) == (200, '6', b'')
    connection.request('GET', '/?a=1')
    assert connection.getresponse().read() == b'<html>'
    connection.request('GET', '/etc/passwd')
    assert connection.getresponse().status == 404
    with pytest.raises(UserError, match='--port'):
      demo.make_server(Demo(NAME, port=server.server_port))
    server.shutdown()
