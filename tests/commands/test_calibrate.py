"""`jaxsr calibrate` and `jaxsr upscale --confidence`, on small films and a tiny network."""

import json
import shlex
import shutil

import numpy as np
import pytest

from jaxsr import cli
from jaxsr.data import degradation, film_digests, image_files
from jaxsr.data.phantom import phantom
from jaxsr.inference import confidence, package
from jaxsr.inference.model import load
from runs import pack

MODEL = {'name': 'edsr', 'features': 8, 'blocks': 1, 'upsampler': 'direct', 'bicubic_skip': True}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with films of eight patients and others, two networks, and a calibration of one."""
  root = tmp_path_factory.mktemp('calibrate')
  for i in range(12):
    folder = root / ('films' if i < 8 else 'others')
    folder.mkdir(exist_ok=True)
    image_files.write(folder / f'{i:08d}_000.png', phantom(7, i, size=128)[..., None])
  pack(root / 'net', MODEL)
  pack(root / 'other', MODEL | {'features': 12})
  assert calibrate(root, '--test', root / 'others') == 0
  return root


def calibrate(root, *options, output='cal', data='films', checkpoint='net'):
  arguments = ('--checkpoint', root / checkpoint, '--data', root / data, '--output', root / output)
  return cli.run([str(x) for x in ('calibrate', *arguments, *options)])


def upscale(root, *options, checkpoint='net', name='film.png'):
  arguments = (root / name, '--checkpoint', root / checkpoint, '--confidence')
  return cli.run([str(x) for x in ('upscale', *arguments, *options)])


@pytest.fixture
def lr(place):
  """The low resolution of a film, in a file."""
  film = image_files.read(place / 'others' / '00000009_000.png')
  small = degradation.downscale(film, 4)
  image_files.write(place / 'film.png', small)
  return small


def test_the_file_says_what_was_measured(place):
  found = json.loads((place / 'cal' / 'calibration.json').read_text())
  assert found['network']['name'] == 'net' and found['training_films'] == 'unknown'
  assert found['calibrated']['patients'] == 8 and found['tested']['patients'] == 4
  assert found['interval']['fitted_on'] == found['interval']['chosen_on'] == 4
  assert found['calibrated']['coverage']['mean'] == pytest.approx(0.9, abs=0.04)
  assert str(place) not in json.dumps(found)


def test_each_condition_is_calibrated_and_measured(place, capsys):
  """As for networks that were trained on noisy images, which do so without being asked."""
  trained = package.find('edsr_x4_tiny')
  found = []
  for conditions in ('', 'clean,very_low_dose'):
    options = ('--conditions', conditions) if conditions else ()
    assert calibrate(place, *options, output='noisy', checkpoint=trained) == 0
    found.append(json.loads((place / 'noisy' / 'calibration.json').read_text()))
  assert [x['conditions'] for x in found] == [['clean'], ['clean', 'very_low_dose']]
  clean, both = (x['calibrated'] for x in found)
  assert both['half_width'] > 1.1 * clean['half_width']
  assert clean['strata'] == {}
  assert [x['films'] for x in both['strata']['condition'].values()] == [8, 8]
  assert 'very_low_dose' in capsys.readouterr().out


def test_an_upscaled_image_gets_intervals_and_doubt(place, lr, capsys):
  assert upscale(place, '--calibration', place / 'cal') == 0
  sr, half, doubt = (
    image_files.read(place / f'film_x4{end}.png') for end in ('', '_interval', '_doubt')
  )
  found = load(str(place / 'net')).confidence(lr, calibration=place / 'cal')
  np.testing.assert_array_equal(found.image, sr)
  np.testing.assert_array_equal(np.floor(found.half_width), half[..., 0])
  np.testing.assert_array_equal(255 * found.doubt, doubt[..., 0])
  hr = image_files.read(place / 'others' / '00000009_000.png').astype(int)
  inside = np.abs(hr - sr) <= half
  assert inside.mean() == pytest.approx(0.9, abs=0.06)
  note = image_files.read_note(place / 'film_x4_interval.png')
  assert 'half width of 90% intervals, calibration' in note and 'of 8 patients' in note
  capsys.readouterr()
  assert upscale(place, '--calibration', place / 'cal') == 0
  assert '1 existed already' in capsys.readouterr().out
  (place / 'film_x4_doubt.png').unlink()
  assert upscale(place, '--calibration', place / 'cal') == 0
  assert (place / 'film_x4_doubt.png').exists()


def test_sixteen_bits_have_the_same_intervals_in_their_own_levels(place, lr):
  model = load(str(place / 'net'))
  one = model.confidence(lr[..., 0], calibration=place / 'cal')
  deep = model.confidence(lr[..., 0].astype(np.uint16) * 257, calibration=place / 'cal', bits=16)
  assert np.mean(np.abs(deep.half_width / 257 - one.half_width) < 0.05) > 0.95
  assert np.mean(deep.doubt == one.doubt) > 0.98


def test_another_network_and_other_weights_are_refused(place, lr, capsys, tmp_path):
  assert upscale(place, '--calibration', place / 'cal', checkpoint='other') == 2
  assert 'is for net, not for other' in capsys.readouterr().err
  shutil.copytree(place / 'net', tmp_path / 'net')
  config = json.loads((tmp_path / 'net' / package.CONFIG).read_text())
  content = bytearray((tmp_path / 'net' / package.WEIGHTS).read_bytes())
  content[-1] ^= 1  # one bit of one weight
  (tmp_path / 'net' / package.WEIGHTS).write_bytes(content)
  del config['sha256']  # as in older packages
  (tmp_path / 'net' / package.CONFIG).write_text(json.dumps(config))
  (tmp_path / 'net' / package.CARD).write_text('')
  assert upscale(place, '--calibration', place / 'cal', checkpoint=tmp_path / 'net') == 2
  assert 'is for other weights of net' in capsys.readouterr().err
  assert not list(place.glob('film_x4_interval.png.*'))


def test_another_agreement_setting_is_refused(place, lr, capsys, tmp_path):
  found = json.loads((place / 'cal' / 'calibration.json').read_text())
  assert found['agree'] == 'bicubic'
  assert upscale(place, '--calibration', place / 'cal', '--no-agree') == 2
  error = capsys.readouterr().err
  assert 'is for --agree (agree=True), but the images would be made with --no-agree ' in error
  (tmp_path / 'calibration.json').write_text(json.dumps(found | {'agree': 'none'}))
  assert upscale(place, '--calibration', tmp_path) == 2
  assert 'is for --no-agree (agree=False), but the images would be' in capsys.readouterr().err
  (tmp_path / 'calibration.json').write_text('{}')
  assert upscale(place, '--calibration', tmp_path) == 2
  assert 'is not a calibration' in capsys.readouterr().err


def test_without_a_calibration_a_line_says_how_to_make_one(place, lr, capsys):
  assert upscale(place) == 2
  error = capsys.readouterr().err
  command = f'jaxsr calibrate --checkpoint {shlex.quote(str(place / "net"))} --data FOLDER '
  assert f'net has no calibration; make one: {command}' in error
  assert error.count('\n') == 1
  assert upscale(place, '--ensemble', '--calibration', place / 'cal') == 2


def test_training_films_are_refused_unless_allowed(place, capsys, tmp_path):
  shutil.copytree(place / 'net', place / 'listed', dirs_exist_ok=True)
  film = image_files.read(place / 'films' / '00000003_000.png')
  (place / 'listed' / package.TRAINING_FILMS).write_text(
    film_digests.to_text([film_digests.of(film)])
  )
  assert calibrate(place, checkpoint='listed', output='refused') == 2
  assert '00000003_000.png: listed was trained on this film' in capsys.readouterr().err
  assert not (place / 'refused').exists()
  # The same pixels in another format and under another name.
  (tmp_path / 'renamed').mkdir()
  image_files.write(tmp_path / 'renamed' / 'a.tif', film)
  assert calibrate(place, checkpoint='listed', output='refused', data=tmp_path / 'renamed') == 2
  assert calibrate(place, '--train', place / 'others', data='others', output='refused') == 2
  assert calibrate(place, '--allow-training', checkpoint='listed', output='allowed') == 0
  found = json.loads((place / 'allowed' / 'calibration.json').read_text())
  assert found['training_films'] == 'allowed'


def test_patients_that_calibrate_do_not_test(place, capsys):
  assert calibrate(place, '--test', place / 'films', output='both') == 2
  assert '8 patients of it calibrate, too' in capsys.readouterr().err
  assert calibrate(place, '--rule', 'rcps', output='both') == 2
  assert (
    'needs at least 22 patients in the half that chooses the factor, found '
    in capsys.readouterr().err
  )
  assert not (place / 'both').exists()


def test_a_second_network_gives_the_doubt(place, lr, monkeypatch, capsys):
  assert calibrate(place, '--second', place / 'other', output='two') == 2
  assert 'is not the name of a package' in capsys.readouterr().err
  shutil.copytree(place / 'other', place / 'checkpoints' / 'second')
  monkeypatch.chdir(place)
  assert calibrate(place, '--second', 'second', output='two') == 0
  found = load(str(place / 'net')).confidence(lr, calibration=place / 'two')
  alone = load(str(place / 'net')).confidence(lr, calibration=place / 'cal')
  assert confidence.read(place / 'two').second is not None
  assert (found.doubt != alone.doubt).any()


def test_a_package_holds_its_calibration(place, lr, capsys):
  arguments = [
    'package',
    place / 'net',
    '--output',
    place / 'packed',
    '--calibration',
    place / 'cal',
  ]
  assert cli.run([str(x) for x in arguments]) == 0
  card = (place / 'packed' / package.CARD).read_text()
  assert '## Trust' in card and 'calibrated on 8 patients' in card and '`calibration.json`' in card
  assert upscale(place, '--overwrite', checkpoint='packed') == 0
  arguments[1], arguments[3] = place / 'other', place / 'wrong'
  assert cli.run([str(x) for x in arguments]) == 2
  assert not (place / 'wrong').exists()
