"""The page enlarges films in a browser as `jaxsr upscale` does, and opens no connection."""

import http.client
import json
import shutil
import socket
import struct
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
from jaxsr.errors import UserError
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
  lines = {'bits.dcm': 'allocates 8 bits and stores 12', 'inverse.dcm': 'contradict each other'}
  lines |= {'sign.dcm': 'lacks PixelRepresentation', 'samples.dcm': 'lacks SamplesPerPixel'}
  lines |= {f'turned{name}.dcm': 'compressed frame 72' for name in codes}
  lines |= {
    'bare.dcm': 'without a preamble',
    'zeros.dcm': 'damaged',
    'sum.png': 'cannot be unpacked',
  }
  lines |= {'cut.png': 'damaged', 'cut_end.png': 'damaged', 'width.png': 'checksum'}
  lines |= {'cmyk.jpg': 'CMYK', 'twelve.jpg': 'browsers do not decode', 'lost.dcm': 'damaged'}
  lines |= {'text.png': 'no PNG', 'large.png': '320 megapixels'}
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
    connection.request('GET', '/etc/passwd')
    assert connection.getresponse().status == 404
    with pytest.raises(UserError, match='--port'):
      demo.make_server(Demo(NAME, port=server.server_port))
    server.shutdown()
