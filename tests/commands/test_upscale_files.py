"""`jaxsr upscale` on folders with DICOM: formats, names, and what is kept from run to run."""

import numpy as np
import pytest

pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")

import imagecodecs
import pydicom
from PIL import Image

import jaxsr
from data.dicom_films import build, ramp, save
from jaxsr import cli
from jaxsr import config as configs
from jaxsr.config import validate
from jaxsr.data import image_files, image_formats
from jaxsr.errors import UserError

CANARY = 'QXCANARYZ7'


def upscale(*arguments):
  """Run the console command; return its exit code."""
  with pytest.raises(SystemExit) as caught:
    cli.main(['upscale', '--checkpoint=bicubic', '--scale=2', *map(str, arguments)])
  return caught.value.code


@pytest.fixture
def study(tmp_path):
  """A folder with DICOM, one file of it without a suffix, and a PNG of the same name."""
  root = tmp_path / 'study'
  (root / 'deeper').mkdir(parents=True)
  save(root / 'film.dcm', build(ramp(), PatientName=CANARY))
  save(root / 'deeper' / 'IM001', build(ramp(), SOPInstanceUID='1.2.3.5'))
  image_files.write(root / 'film.png', np.full((16, 24, 1), 99, np.uint8))
  return root


def names(root):
  return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def test_formats_tree_and_names_are_kept_and_a_second_run_keeps_all(study, tmp_path, capsys):
  out = tmp_path / 'out'
  assert upscale(study, '--output', out) == 0
  assert names(out) == names(study) == ['deeper/IM001', 'film.dcm', 'film.png']
  first = {name: (out / name).read_bytes() for name in names(out)}
  found = pydicom.dcmread(out / 'film.dcm')
  assert found.StudyInstanceUID == '1.2' and list(found.PixelSpacing) == [0.35, 0.25]
  assert image_files.read(out / 'deeper' / 'IM001').shape == (32, 48, 1)
  assert upscale(study, '--output', out) == 0
  assert 'wrote 0 of 3 images' in capsys.readouterr().out
  assert {name: (out / name).read_bytes() for name in names(out)} == first
  cut = first['film.dcm'][:-100]
  (out / 'film.dcm').write_bytes(cut)
  assert upscale(study, '--output', out) == 0
  again = pydicom.dcmread(out / 'film.dcm')
  assert again.SOPInstanceUID == found.SOPInstanceUID and again.PixelData == found.PixelData


@pytest.mark.parametrize('beside', [True, False])
def test_a_result_with_too_long_a_name_fails_alone(tmp_path, capsys, beside):
  films = tmp_path / 'films'
  films.mkdir()
  names = ('a.png', 'l' * 250 + '.png' if beside else 'l' * 255, 'z.png')
  image_files.write(films / 'a.png', np.full((16, 24, 1), 99, np.uint8))
  for name in names[1:]:
    (films / name).write_bytes((films / 'a.png').read_bytes())
  given = [films / name for name in names] if beside else [films, '--output', tmp_path / 'out']
  assert upscale(*given) == 1
  told = capsys.readouterr()
  assert 'wrote 2 of 3 images' in told.out
  assert 'llll.png: its result' in told.err or 'llll: its result' in told.err
  assert 'File name too long' in told.err


def test_a_result_in_another_compression_is_made_again(study, tmp_path, capsys):
  command = (study / 'film.dcm', '--output', tmp_path / 'sr.dcm')
  assert upscale(*command) == 0
  for compress, written in (('jpegls', 1), ('jpegls', 0), ('none', 1), ('none', 0)):
    capsys.readouterr()
    assert upscale(*command, '--compress', compress) == 0
    assert f'wrote {written} of 1' in capsys.readouterr().out
    syntax = pydicom.dcmread(tmp_path / 'sr.dcm').file_meta.TransferSyntaxUID
    assert syntax.is_compressed == (compress != 'none')


def test_png_on_request_keeps_names_distinct_and_free_of_the_patient(study, tmp_path, capsys):
  out = tmp_path / 'out'
  assert upscale(study, '--output', out, '--format', 'png') == 0
  assert names(out) == ['deeper/IM001.png', 'film.dcm.png', 'film.png']
  streams = capsys.readouterr()
  content = b''.join((out / name).read_bytes() for name in names(out))
  assert CANARY not in streams.out + streams.err and CANARY.encode() not in content
  assert image_files.read_note(out / 'film.dcm.png').startswith('jaxsr ')


def test_results_beside_their_films_have_names_of_their_own(study, capsys):
  assert upscale(study / 'film.dcm', study / 'film.png', study / 'deeper' / 'IM001') == 0
  assert {'film_x2.dcm', 'film_x2.png', 'deeper/IM001_x2.dcm'} <= set(names(study))
  assert upscale(study / '*.dcm') == 0
  assert 'wrote 0 of 1 image' in capsys.readouterr().out


def test_two_results_of_one_name_fail_and_the_others_are_made(study, tmp_path, capsys):
  other = tmp_path / 'other' / 'film.png'
  other.parent.mkdir()
  image_files.write(other, np.full((16, 24, 1), 9, np.uint8))
  out = tmp_path / 'out'
  assert upscale(study / 'film.png', other, study / 'film.dcm', '--output', out) == 1
  streams = capsys.readouterr()
  assert 'wrote 1 of 3 images' in streams.out and names(out) == ['film.dcm']
  assert streams.err.count('film.png as well: rename one of them') == 2


@pytest.mark.parametrize('output', [(), ('--output', 'out')])
def test_an_image_given_twice_is_enlarged_once(study, monkeypatch, capsys, output):
  monkeypatch.chdir(study)
  given = ('film.png', './film.png', 'f*.png', study / 'film.png')
  assert upscale(*given, *output) == 0
  assert 'wrote 1 of 1 image' in capsys.readouterr().out


def test_one_image_given_twice_may_have_a_file_as_output(study):
  film = study / 'film.png'
  assert upscale(film, film, '--output', study / 'large.png') == 0


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    ('.png', 'is a suffix without a name; give one, as in sr.png'),
    ('.DCM', 'is a suffix without a name'),
    ('out.png.gz', '.gz cannot be written; choose one of .png, '),
    ('out.zip', '.zip cannot be written'),
  ],
)
def test_no_folder_gets_the_name_of_a_file(study, tmp_path, capsys, output, message):
  (tmp_path / 'new').mkdir()
  assert upscale(study / 'film.png', '--output', tmp_path / 'new' / output) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert f'{output}: {message}' in line and not [*(tmp_path / 'new').iterdir()]


def test_a_folder_and_an_image_of_it_are_enlarged_once(study, tmp_path, capsys):
  assert upscale(study, study / 'film.png', '--output', tmp_path / 'out') == 0
  assert 'wrote 3 of 3' in capsys.readouterr().out


@pytest.mark.parametrize('bits', [-1, 7, 17])
def test_bits_that_no_file_has_are_refused(study, bits, capsys):
  for command in (
    ['upscale', study],
    ['evaluate', '--data', study],
    ['compare', 'bicubic', 'lanczos', '--data', study],
    ['calibrate', '--data', study],
    ['degrade', study],
    ['package', 'edsr_x4_tiny', '--data', study],
  ):
    options = [] if command[0] == 'upscale' else ['--output', study / 'new']
    with pytest.raises(SystemExit) as caught:
      cli.main([*map(str, [*command, *options]), f'--bits={bits}'])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and line.startswith(f'error: --bits {bits}: choose 8 to 16')
  with pytest.raises(UserError, match='choose 8 to 16'):
    jaxsr.read(study / 'film.png', bits=bits)
  with pytest.raises(UserError, match='choose 8 to 16'):
    jaxsr.load('bicubic', scale=2).upscale(np.zeros((8, 8), np.uint8), bits=bits)
  config = configs.base()
  config.data.bits = bits
  with pytest.raises(UserError, match=f'config.data.bits {bits}: choose 8 to 16'):
    validate.check(config)


@pytest.mark.parametrize(
  'options', [('--format', 'dicom', '--output', 'out'), ('--output', 'out.dcm')]
)
def test_only_dicom_can_become_dicom(study, tmp_path, monkeypatch, capsys, options):
  monkeypatch.chdir(tmp_path)
  assert upscale(study / 'film.png', *options) == 2
  assert 'film.png: has no patient or study, which DICOM needs' in capsys.readouterr().err
  assert names(tmp_path) == ['study/' + name for name in names(study)]


def test_a_png_that_cannot_become_dicom_fails_alone(study, tmp_path, capsys):
  (study / 'film.png').rename(study / 'png.dcm')
  assert upscale(study, '--output', tmp_path / 'out', '--format', 'dicom') == 1
  assert 'png.dcm: has no patient or study' in capsys.readouterr().err
  assert names(tmp_path / 'out') == ['deeper/IM001', 'film.dcm']


def test_the_suffix_of_the_output_must_agree_with_the_format(study, tmp_path, capsys):
  assert upscale(study / 'film.dcm', '--output', tmp_path / 'a.png', '--format', 'dicom') == 2
  assert 'is not DICOM, which --format asks for' in capsys.readouterr().err


def test_the_api_writes_dicom_like_a_film(study):
  image = jaxsr.read(study / 'film.dcm')
  sr = np.kron(image, np.ones((4, 4), np.uint16))
  jaxsr.write(study / 'out.dcm', sr, like=study / 'film.dcm')
  found = pydicom.dcmread(study / 'out.dcm')
  assert list(found.PixelSpacing) == [0.175, 0.125] and found.StudyInstanceUID == '1.2'
  np.testing.assert_array_equal(jaxsr.read(study / 'out.dcm'), sr)
  jaxsr.write(study / 'other.dcm', sr[::-1], like=study / 'film.dcm')
  assert pydicom.dcmread(study / 'other.dcm').SOPInstanceUID != found.SOPInstanceUID


@pytest.mark.parametrize(
  ('shape', 'dtype', 'like', 'message'),
  [
    ((64, 96), np.uint16, None, 'needs a patient and a study'),
    ((64, 96), np.uint16, 'film.png', 'is not DICOM and has no patient'),
    ((64, 64), np.uint16, 'film.dcm', 'not the same view'),
    ((64, 96), np.uint8, 'film.dcm', '16-bit levels'),
  ],
)
def test_the_api_refuses_what_is_no_enlargement(study, shape, dtype, like, message):
  with pytest.raises(jaxsr.UserError, match=message):
    jaxsr.write(study / 'out.dcm', np.zeros(shape, dtype), like=like and study / like)
  assert not (study / 'out.dcm').exists()


def test_confidence_becomes_instances_of_the_series(study, tmp_path, capsys):
  """Also of names that end in numbers; the PNG of the study keeps images beside it."""
  (study / 'film.dcm').rename(study / '1.2.3')
  (study / 'deeper' / 'IM001').rename(study / '1.2.4')
  out = tmp_path / 'out'
  command = ['upscale', study, '--checkpoint', 'edsr_x4_tiny', '--confidence', '--output', out]
  assert cli.run([str(x) for x in command]) == 0
  png = ['film.png', 'film_doubt.png', 'film_interval.png']
  stems = ('1.2.3', '1.2.4')
  dicom = [f'{stem}{end}' for stem in stems for end in ('', '_doubt', '_interval')]
  assert names(out) == [*dicom, *png]
  found = {name: pydicom.dcmread(out / name) for name in dicom}
  assert len({ds.SeriesInstanceUID for ds in found.values()}) == 1
  assert len({ds.SOPInstanceUID for ds in found.values()}) == 6
  lr = image_files.read(study / '1.2.3')
  want = jaxsr.load('edsr_x4_tiny').confidence(lr, bits=16)
  half = np.floor(want.half_width * (4095 / 65535))
  np.testing.assert_array_equal(found['1.2.3_interval'].pixel_array, half)
  np.testing.assert_array_equal(found['1.2.3_doubt'].pixel_array, 255 * want.doubt)
  text = found['1.2.3'].DerivationDescription
  assert '90% intervals by calibration' in text and 'doubt in' in text
  capsys.readouterr()
  assert cli.run([str(x) for x in command]) == 0
  assert 'wrote 0 of 3 images' in capsys.readouterr().out
  (out / '1.2.4_doubt').unlink()
  assert cli.run([str(x) for x in command]) == 0
  assert 'wrote 1 of 3 images' in capsys.readouterr().out and (out / '1.2.4_doubt').exists()


def test_by_products_of_one_name_fail(study, tmp_path, capsys):
  """Intervals of film.png and film.tif would both be film_interval.png."""
  image_files.write(study / 'film.tif', np.full((16, 24, 1), 99, np.uint8))
  given = (study / 'film.png', study / 'film.tif')
  command = [
    'upscale',
    *given,
    '--checkpoint',
    'edsr_x4_tiny',
    '--confidence',
    '--output',
    tmp_path,
  ]
  assert cli.run([str(x) for x in command]) == 1
  assert capsys.readouterr().err.count('film_interval.png as well: rename one of them') == 2
  assert not list(tmp_path.glob('film*'))


def test_images_that_a_user_saved_are_no_results(tmp_path, capsys):
  """`jaxsr.write` leaves a comment, too, but the image may be the user's own."""
  truth = np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)
  for folder in ('lr', 'hr'):
    (tmp_path / folder).mkdir()
  jaxsr.write(tmp_path / 'lr' / 'film.png', truth[::2, ::2])
  for like in (None, tmp_path / 'lr' / 'film.png'):
    jaxsr.write(tmp_path / 'hr' / 'film.png', truth, like=like)
    before = (tmp_path / 'hr' / 'film.png').read_bytes()
    for extra in ((), ('--overwrite',)):
      assert upscale(tmp_path / 'lr', '--output', tmp_path / 'hr', *extra) == 2
      (line,) = capsys.readouterr().err.splitlines()
      assert 'hr/film.png: not written by jaxsr upscale' in line
    assert (tmp_path / 'hr' / 'film.png').read_bytes() == before


@pytest.mark.parametrize('name', ['film.png', 'film.tif', 'film.jpg', 'film.dcm'])
def test_results_of_another_image_of_equal_name_stay(tmp_path, capsys, name):
  out = tmp_path / 'out'
  for folder, value in (('first', 9), ('second', 200)):
    (tmp_path / folder).mkdir()
    if name.endswith('.dcm'):
      save(tmp_path / folder / name, build(ramp(), PatientName=folder))
    else:
      image_files.write(tmp_path / folder / name, np.full((16, 24, 1), value, np.uint8))
  assert upscale(tmp_path / 'first', '--output', out) == 0
  before = (out / name).read_bytes()
  assert upscale(tmp_path / 'second', '--output', out) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert f'out/{name}: made from another image' in line and '--overwrite' in line
  assert (out / name).read_bytes() == before
  assert upscale(tmp_path / 'second', '--output', out, '--overwrite') == 0
  assert (out / name).read_bytes() != before


def test_by_products_of_another_image_stay(tmp_path, capsys):
  """The result of film_doubt.png has the name of a by-product of film.png."""
  for name in ('film', 'film_doubt'):
    image_files.write(tmp_path / f'{name}.png', np.full((64, 64, 1), 99, np.uint8))
  out = tmp_path / 'out'
  assert upscale(tmp_path / 'film_doubt.png', '--output', out) == 0
  before = (out / 'film_doubt.png').read_bytes()
  with pytest.raises(SystemExit) as caught:
    command = ('upscale', tmp_path / 'film.png', '--confidence', '--output', out)
    image_files.write(tmp_path / 'film.png', np.full((64, 64, 1), 100, np.uint8))
    cli.main([*map(str, command)])
  assert caught.value.code == 2
  assert 'out/film_doubt.png: made from another image' in capsys.readouterr().err
  assert (out / 'film_doubt.png').read_bytes() == before


def test_foreign_suffixes_and_none_get_that_of_the_format(tmp_path, monkeypatch, capsys):
  films, out = tmp_path / 'films', tmp_path / 'out'
  films.mkdir()
  image = np.full((16, 24, 1), 99, np.uint8)
  for i, (name, form) in enumerate(
    [
      ('a.png', 'png'),
      ('b.dat', 'png'),
      ('c.bak', 'tif'),
      ('d.0001', 'jpg'),
      ('e', 'tif'),
      ('f.jpg', 'png'),  # of another format than it says
      ('g.png', 'jpg'),
      ('h.dcm', 'png'),
    ]
  ):
    image_files.write(tmp_path / f'x.{form}', image + i)
    (tmp_path / f'x.{form}').rename(films / name)
  save(films / 'i.png', build(ramp()))
  save(films / 'j.dat', build(ramp()))
  (films / 'k.png').write_text('damaged')
  deep = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 99
  Image.fromarray(deep).save(films / 'l', 'PNG')
  (films / 'l').rename(films / 'l.jpg')
  (films / 'm.jpg').write_bytes(imagecodecs.ljpeg_encode(deep, bitspersample=16))
  monkeypatch.chdir(tmp_path)
  assert upscale('films', '--output', out) == 1
  told = capsys.readouterr()
  assert 'wrote 12 of 13 images' in told.out and 'failed: films/k.png: is not an image' in told.err
  wanted = ['a.png', 'b.dat.png', 'c.bak.tif', 'd.0001.jpg', 'e.tif', 'f.png', 'g.jpg', 'h.png']
  assert names(out) == [*wanted, 'i.dcm', 'j.dat', 'l.png', 'm.png']
  for name in names(out):
    kind = {'.dat': 'DICOM', '.dcm': 'DICOM'}.get(name[-4:]) or image_formats.KINDS[name[-4:]]
    assert image_formats.kind(out / name) == kind
  assert upscale('films', '--output', out) == 1
  assert 'wrote 0 of 13 images' in capsys.readouterr().out
  assert upscale('films/b.dat', 'films/e', 'films/l.jpg') == 0
  assert {'b.dat_x2.png', 'e_x2.tif', 'l_x2.png'} <= set(names(films))
