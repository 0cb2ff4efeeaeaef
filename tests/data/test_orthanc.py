"""A PACS, Orthanc on the loopback interface, takes the derived files as they should be taken."""

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import pydicom
from PIL import Image

from data.dicom_films import build, save
from jaxsr.data import dicom_out, image_files
from jaxsr.data.decoded import Method
from jaxsr.data.phantom import phantom

PROGRAM = shutil.which('Orthanc') or shutil.which('orthanc')
NOTE = 'jaxsr 1; edsr x4; weights 0123; source 4567; for research, not for diagnosis'
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not PROGRAM, reason='Orthanc is absent (Debian: orthanc)'),
]


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
  """A function that calls the REST interface of a running archive."""
  root = tmp_path_factory.mktemp('orthanc')
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  settings = {
    **{'HttpPort': port, 'DicomServerEnabled': False, 'RemoteAccessAllowed': False},
    **{'AuthenticationEnabled': False, 'StorageDirectory': str(root)},
    **{'IndexDirectory': str(root), 'Plugins': []},
  }
  (root / 'orthanc.json').write_text(json.dumps(settings))
  process = subprocess.Popen([PROGRAM, root / 'orthanc.json'], stderr=subprocess.DEVNULL)

  def call(path, content=None):
    request = urllib.request.Request(f'http://127.0.0.1:{port}{path}', data=content)
    with urllib.request.urlopen(request, timeout=60) as reply:
      found = reply.read()
      return json.loads(found) if 'json' in reply.headers['Content-Type'] else found

  try:
    for _ in range(100):
      try:
        call('/system')
        break
      except urllib.error.URLError:
        time.sleep(0.2)
    yield call
  finally:
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('compress', ['none', 'jpegls'])
def test_the_result_is_a_new_series_of_the_same_study(archive, tmp_path, kind, compress):
  levels = phantom(3, 0, size=128).astype(np.int64) * 16
  stored = 4095 - levels if kind == 'MONOCHROME1' else levels
  uids = {'StudyInstanceUID': f'1.2.{len(kind)}.{len(compress)}{kind[-1]}'}
  uids |= {'SeriesInstanceUID': f'{uids["StudyInstanceUID"]}.1', 'RescaleSlope': '1'}
  uids |= {'SOPInstanceUID': f'{uids["StudyInstanceUID"]}.1.1', 'RescaleIntercept': '0'}
  ds = build(stored, kind=kind, WindowCenter='2048', WindowWidth='4096', **uids)
  path = save(tmp_path / 'a.dcm', ds)
  sr = image_files.read(path).repeat(4, 0).repeat(4, 1)
  method = Method('edsr x4', NOTE, '1')
  dicom_out.write(tmp_path / 'b.dcm', sr, path, method, compress=compress)
  first = archive('/instances', path.read_bytes())
  result = archive('/instances', (tmp_path / 'b.dcm').read_bytes())
  assert first['Status'] == result['Status'] == 'Success'
  assert archive('/instances', (tmp_path / 'b.dcm').read_bytes())['Status'] == 'AlreadyStored'
  assert first['ParentStudy'] == result['ParentStudy']
  assert len(archive(f'/studies/{result["ParentStudy"]}')['Series']) == 2
  series = archive(f'/series/{result["ParentSeries"]}')['MainDicomTags']
  assert series['SeriesDescription'] == 'Chest PA SR edsr x4, not for diagnosis'
  kept = pydicom.dcmread(io.BytesIO(archive(f'/instances/{result["ID"]}/file')))
  want = pydicom.dcmread(tmp_path / 'b.dcm')
  np.testing.assert_array_equal(kept.pixel_array, want.pixel_array)
  shown = Image.open(io.BytesIO(archive(f'/instances/{result["ID"]}/preview'))).convert('L')
  assert np.corrcoef(np.asarray(shown).ravel(), sr.ravel())[0, 1] > 0.99  # upright, not inverted
