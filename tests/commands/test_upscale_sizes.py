"""`jaxsr upscale` to any size, of any size, and what it says of a batch."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxsr import cli
from jaxsr.data import decoded, dicom_out, image_files
from jaxsr.data.phantom import phantom
from jaxsr.inference import package, streaming
from jaxsr.inference.model import Model, load


def upscale(*arguments):
  """Run the console command; return its exit code."""
  with pytest.raises(SystemExit) as caught:
    cli.main(['upscale', *map(str, arguments)])
  return caught.value.code


@pytest.fixture
def film(tmp_path):
  path = tmp_path / 'film.png'
  image_files.write(path, phantom(3, 0, size=96)[:, :80, None])
  return path


@pytest.mark.parametrize(
  ('options', 'shape', 'scale'),
  [
    (('--scale', '2.5'), (240, 200), 3),
    (('--scale', '6'), (576, 480), 8),
    (('--size', '200'), (200, 167), 3),
  ],
)
def test_any_size_is_a_reduction_of_the_next_larger_scale(film, tmp_path, options, shape, scale):
  out = tmp_path / 'out.png'
  assert upscale(film, '--checkpoint', 'bicubic', '--output', out, *options) == 0
  large = load('bicubic', scale=scale).upscale(image_files.read(film)[..., 0])
  floats = Image.fromarray(large.astype(np.float32))
  want = np.rint(np.asarray(floats.resize(shape[::-1], Image.Resampling.BICUBIC))).clip(0, 255)
  found = image_files.read(out)[..., 0]
  assert found.shape == shape and np.mean(found != want) < 0.001


@pytest.mark.parametrize(
  ('options', 'code', 'message'),
  [
    (('--scale', '9'), 2, '--scale 9: choose a number above 1, up to 8'),
    (('--scale', '1'), 2, '--scale 1'),
    (('--size', '0'), 2, '--size 0 is less than 1'),
    (('--size', '99', '--scale', '2'), 2, 'exclude each other'),
    (('--size', '90'), 1, 'film.png: has 80x96 pixels; --size takes more than that'),
    (('--size', '900'), 1, 'film.png: has 80x96 pixels'),
    (('--scale', '3', '--checkpoint', 'edsr_x2'), 2, 'edsr_x2 was trained for scale 2'),
    (('--scale', '5'), 2, 'the pretrained models enlarge up to 4 times'),
    (('--size', '480'), 1, 'film.png: scale 5: the pretrained models enlarge up to 4 times'),
  ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(film, capsys, options, code, message):
  pretrained = '--checkpoint' in options or 'pretrained' in message
  known = () if pretrained else ('--checkpoint', 'bicubic')
  assert upscale(film, *known, *options) == code
  assert message in capsys.readouterr().err
  assert sorted(path.name for path in film.parent.iterdir()) == ['film.png']


def test_a_dicom_film_of_another_size_keeps_its_spacing_true(tmp_path):
  pydicom = pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")
  from data.dicom_films import build, ramp, save

  path = save(tmp_path / 'a.dcm', build(ramp()))
  out = tmp_path / 'b.dcm'
  assert upscale(path, '--checkpoint', 'bicubic', '--size', 60, '--output', out) == 0
  ds = pydicom.dcmread(out)
  assert (ds.Rows, ds.Columns) == (40, 60) and list(ds.PixelSpacing) == [0.28, 0.2]


def test_films_of_other_parts_are_counted_once(tmp_path, capsys):
  pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")
  from data.dicom_films import build, ramp, save

  folder = tmp_path / 'study'
  folder.mkdir()
  elements = [{}, {'BodyPartExamined': 'HAND'}, {'Modality': 'MG'}, {'ViewPosition': 'MLO'}]
  for i, changed in enumerate([*elements, {'BodyPartExamined': None, 'ViewPosition': ''}]):
    save(folder / f'{i}.dcm', build(ramp(), SOPInstanceUID=f'1.2.{i + 1}', **changed))
  assert upscale(folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out') == 0
  error = capsys.readouterr().err
  assert error.count('not a chest radiograph') == 1 and 'note: 3 of 5 images: ' in error
  assert 'HAND' not in error and 'MLO' not in error


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.dcm'])
def test_a_large_film_is_made_in_strips_and_seen_as_done(tmp_path, monkeypatch, capsys, suffix):
  """The result has more pixels than are read; strips give the same as the whole."""
  path = tmp_path / f'film{suffix}'
  if suffix == '.dcm':
    pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")
    from data.dicom_films import build, save

    save(path, build(phantom(3, 0, size=64).astype(int), bits=8))
  else:
    image_files.write(path, phantom(3, 0, size=64)[..., None])
  whole, parts = tmp_path / f'whole{suffix}', tmp_path / f'parts{suffix}'
  options = ('--checkpoint', 'bicubic', '--scale', '3.5', '--output')
  assert upscale(path, *options, whole) == 0
  monkeypatch.setattr(streaming, 'FROM', 1000)
  monkeypatch.setattr(streaming, '_STRIP', 16 * 64 * 20)
  assert upscale(path, *options, parts) == 0
  want, found = image_files.read(whole), image_files.read(parts)
  assert np.abs(found.astype(int) - want).max() <= 1
  for module in (image_files, decoded, dicom_out):
    monkeypatch.setattr(module, 'MAX_PIXELS', 64 * 64 + 1)
  capsys.readouterr()
  assert upscale(path, *options, parts) == 0
  assert 'wrote 0 of 1 image' in capsys.readouterr().out
  parts.write_bytes(parts.read_bytes()[:-50])
  assert upscale(path, *options, parts) == 0
  assert 'wrote 1 of 1 image' in capsys.readouterr().out


@pytest.mark.parametrize('suffix', ['.png', '.dcm'])
def test_a_large_film_has_intervals_and_doubt(tmp_path, monkeypatch, capsys, suffix):
  """Made in strips, with the texts and values of the whole."""
  path = tmp_path / f'film{suffix}'
  if suffix == '.dcm':
    pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")
    from data.dicom_films import build, save

    save(path, build(phantom(3, 0, size=96).astype(int) * 16))
  else:
    image_files.write(path, phantom(3, 0, size=96)[..., None])
  options = ('--checkpoint', 'edsr_x4_tiny', '--confidence', '--output')
  whole, parts = tmp_path / f'whole{suffix}', tmp_path / f'parts{suffix}'
  assert upscale(path, *options, whole, '--no-agree', '--calibration', calibration(tmp_path)) == 0
  monkeypatch.setattr(streaming, 'FROM', 1000)
  monkeypatch.setattr(streaming, '_STRIP', 16 * 96 * 40)
  capsys.readouterr()
  assert upscale(path, *options, parts) == 0
  assert 'so the result was not made to agree with it; its intervals' in capsys.readouterr().err
  for name in ('', '_interval', '_doubt'):
    want, found = (image_files.read(p.with_stem(p.stem + name)) for p in (whole, parts))
    assert found.shape == (384, 384, 1) and found.any()
    most = {'_doubt': 0}.get(name, 1 if want.dtype == np.uint8 else 48)  # or steps of 12 bits
    assert np.abs(found.astype(int) - want).max() <= most
  assert upscale(path, *options, parts) == 0
  assert 'wrote 0 of 1 image' in capsys.readouterr().out
  if suffix == '.dcm':
    import pydicom

    want, found = (pydicom.dcmread(p.with_stem(p.stem + '_interval')) for p in (whole, parts))
    assert abs(found.WindowWidth - want.WindowWidth) <= 1
    want, found = (pydicom.dcmread(p).DerivationDescription for p in (whole, parts))
    assert found.rpartition(';')[2] == want.rpartition(';')[2]


def calibration(folder):
  """Returns a copy of the package's calibration for results that do not agree."""
  found = package.find('edsr_x4_tiny') / package.CALIBRATION
  copy = folder / package.CALIBRATION
  copy.write_text(found.read_text().replace('"agree": "bicubic"', '"agree": "none"'))
  return copy


def test_a_film_that_does_not_fit_is_named_and_the_others_are_made(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'films'
  for name, size in (('a', 64), ('b', 96), ('c', 64)):
    folder.mkdir(exist_ok=True)
    image_files.write(folder / f'{name}.png', phantom(3, 0, size=size)[..., None])
  real = Model.enlarge

  def limited(self, image, **options):
    if image.shape[0] > 64:
      raise jax.errors.JaxRuntimeError('INTERNAL: Out of memory allocating 12345 bytes.')
    return real(self, image, **options)

  monkeypatch.setattr(Model, 'enlarge', limited)
  assert upscale(folder, '--checkpoint', 'bicubic', '--output', tmp_path / 'out') == 1
  streams = capsys.readouterr()
  assert 'wrote 2 of 3 images' in streams.out
  assert 'b.png: does not fit into memory (96x96 pixels, 384x384 enlarged): 12,345' in streams.err


def test_more_than_400_megapixels_are_refused(tmp_path, monkeypatch, capsys):
  path = tmp_path / 'a.png'
  image_files.write(path, np.zeros((32, 32, 1), np.uint8))
  monkeypatch.setattr(streaming, 'MOST', 10**4)
  assert upscale(path, '--checkpoint', 'bicubic') == 1
  assert 'would have 128x128 pixels, more than' in capsys.readouterr().err
  assert not (tmp_path / 'a_x4.png').exists()


def in_a_process(script, *arguments, **environment):
  """Run a script in a process; returns what it wrote to stderr."""
  command = [sys.executable, '-c', script, *map(str, arguments)]
  environment = os.environ | environment
  found = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment)
  assert found.returncode == 0, found.stderr
  return found.stderr


WITHOUT_MEMORY = """
import resource, sys
from jaxsr import cli
from jaxsr.commands import upscale_plan
from jaxsr.data import image_files
from jaxsr.inference import memory
from jaxsr.inference.model import load
model, image = load('edsr_x4'), image_files.read(sys.argv[1])
for tile in (512, 256, 128):
  model.enlarge(image, tile=tile, agree=False)
upscale_plan.load = lambda *args, **options: model
memory.free_bytes = lambda: 2**50  # so that the first tiles are too large
pages = int(open('/proc/self/statm').read().split()[0])
limit = pages * resource.getpagesize() + 130 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
cli.main(['upscale', sys.argv[1], '--output', sys.argv[2], '--checkpoint=edsr_x4', '--no-agree'])
"""


@pytest.mark.slow
def test_a_real_failure_of_memory_ends_in_the_right_image(tmp_path):
  """Programs are compiled before memory is short, since that would end the process."""
  path, out = tmp_path / 'a.png', tmp_path / 'b.png'
  image_files.write(path, phantom(3, 0, size=640)[..., None])
  one = '--xla_force_host_platform_device_count=1'
  error = in_a_process(WITHOUT_MEMORY, path, out, XLA_FLAGS=one)
  assert 'tiles of 512 pixels do not fit into memory; 256 from here on' in error
  want = load('edsr_x4').upscale(image_files.read(path), tile=256, agree=False)
  assert np.abs(image_files.read(out).astype(int) - want).max() <= 1


PEAK = """
import resource, sys
from jaxsr import cli
try:
  cli.main()  # as the console command, which configures malloc
finally:
  print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize('options', [(), ('--confidence',)], ids=['image', 'confidence'])
@pytest.mark.parametrize('compress', [None, 'none', 'jpegls', 'j2k'])
def test_a_film_of_8192_pixels_takes_at_most_a_gibibyte_and_a_half(tmp_path, compress, options):
  """As PNG, or as DICOM with each compression."""
  suffix = '.dcm' if compress else '.png'
  path, out = tmp_path / f'a{suffix}', tmp_path / f'b{suffix}'
  image = np.tile(phantom(3, 0, size=1024), (2, 2)).astype(np.uint16) * 16
  if compress:
    from data.dicom_films import build, save

    save(path, build(image))
    options = (*options, '--compress', compress)
  else:
    image_files.write(path, image[..., None])
  error = in_a_process(
    PEAK, 'upscale', path, '--checkpoint', 'edsr_x4_tiny', '--output', out, *options
  )
  peak = 1024 * int(error.rpartition('peak ')[2])
  assert peak <= 1.5 * 2**30, f'{peak / 2**30:.2f} GiB'
  assert image_files.check(out)[:2] == (8192, 8192)
