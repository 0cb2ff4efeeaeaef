"""The range of inputs: measured for packages, kept, and told when images lie outside."""

import json

import numpy as np
import pytest

import jaxsr
from jaxsr import cli
from jaxsr import config as configs
from jaxsr.commands import package as command
from jaxsr.data import acquisition, image_files, quality
from jaxsr.data.acquisition.film import acquire
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.inference import input_range, model_card, package
from runs import pack

MODEL = {'name': 'edsr', 'features': 8, 'blocks': 1, 'upsampler': 'direct', 'bicubic_skip': True}


def reduced(condition, number=0):
  hr = phantom(7, number, size=256)[..., None]
  rng = acquisition.generator(f'{number}', condition)
  return acquire(hr, acquisition.CONDITIONS[condition], rng, scale=4)


def limits(noise, blockiness):
  return {'noise': noise, 'blockiness': blockiness}


@pytest.fixture
def packages(tmp_path, monkeypatch):
  """A package for clean images, one for compressed ones, and one for all, in this folder."""
  monkeypatch.chdir(tmp_path)
  found = quality.measure(reduced('clean'), 255)
  clean = limits(1.3 * found.noise, 0.25)
  sections = {'a_clean': clean, 'b_jpeg': {**clean, 'blockiness': 5.0}, 'c_all': limits(99, 99)}
  for name, inputs in sections.items():
    pack(tmp_path / 'checkpoints' / name, MODEL, inputs=inputs)
  pack(tmp_path / 'checkpoints' / 'd_old', MODEL)
  return tmp_path


def check(model, condition):
  return jaxsr.check_input(jaxsr.load(model), reduced(condition))


def test_images_outside_are_told_with_the_package_to_take(packages, monkeypatch):
  assert check('a_clean', 'clean') == ''
  text = check('a_clean', 'very_low_dose')
  assert text.startswith('noisier than the images that a_clean was trained on: ')
  assert text.endswith('take c_all')
  text = check('a_clean', 'jpeg50')
  assert text.startswith('more compressed than') and text.endswith('take b_jpeg')
  assert check('b_jpeg', 'jpeg50') == check('c_all', 'very_low_dose') == ''
  assert check('d_old', 'very_low_dose') == ''
  assert jaxsr.check_input(jaxsr.load('bicubic'), reduced('very_low_dose')) == ''
  monkeypatch.setattr(package, 'names', lambda: ['a_clean', 'd_old'])
  assert 'no installed model was trained for such images' in check('a_clean', 'very_low_dose')


def test_the_package_of_the_nearest_size_is_told(packages):
  for name, features in (('all_large', 32), ('all_small', 10)):
    pack(packages / 'checkpoints' / name, {**MODEL, 'features': features}, inputs=limits(99, 99))
  pack(packages / 'checkpoints' / 'large', {**MODEL, 'features': 24}, inputs=limits(0, 0))
  assert check('large', 'very_low_dose').endswith('take all_large')
  assert check('a_clean', 'very_low_dose').endswith('take c_all')
  c_all = packages / 'checkpoints' / 'c_all'
  c_all.rename(packages / 'c_all')
  assert check('a_clean', 'very_low_dose').endswith('take all_small')


def test_the_bits_of_an_image_count(packages):
  model, image = jaxsr.load('a_clean'), reduced('very_low_dose').astype(np.uint16) * 16
  assert jaxsr.check_input(model, image, bits=12)
  with pytest.warns(UserWarning, match='pass bits=12'):
    assert not jaxsr.check_input(model, image)
  assert jaxsr.check_input(model, image[..., 0], bits=12)


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    (lambda x: x / np.float32(255), 'image is float32: upscale takes uint8 or uint16'),
    (lambda x: x.astype(np.int32), 'image is int32'),
    (lambda x: x[None], 'image is a batch: check_input takes one image'),
    (lambda x: np.repeat(x, 3, axis=2), 'so 3 channels: a_clean is for gray images'),
    (lambda x: x[0, 0], 'has the shape'),
  ],
)
def test_an_image_of_another_type_or_shape_is_an_error(packages, change, match):
  with pytest.raises(UserError, match=match):
    jaxsr.check_input(jaxsr.load('a_clean'), change(reduced('very_low_dose')))


def test_upscale_says_it_once_for_a_batch(packages, capsys):
  (packages / 'films').mkdir()
  for condition in ('clean', 'very_low_dose', 'low_dose'):
    image_files.write(packages / f'films/{condition}.png', reduced(condition))
  assert cli.run(['upscale', 'films', '--checkpoint', 'a_clean', '--output', 'large']) == 0
  lines = [line for line in capsys.readouterr().err.splitlines() if 'trained on' in line]
  assert len(lines) == 1 and lines[0].startswith('note: 2 of 3 images: noisier than')


def test_a_package_keeps_the_range_of_its_run(tiny):
  found = {}
  for kind in ('bicubic', 'acquisition'):
    tiny.data.degradation.update(kind=kind, clean=0.0, jpeg_share=1.0)
    tiny.data.phantom.update(size=256, count=6)
    found[kind] = input_range.of_training(tiny)
  clean = [quality.measure(reduced('clean', i), 255) for i in range(3)]
  assert all(x.noise < 2 * found['bicubic'].noise for x in clean)
  assert found['acquisition'].noise > 2 * found['bicubic'].noise
  assert found['acquisition'].blockiness > found['bicubic'].blockiness
  kept = command._inputs({'inputs': found['bicubic']._asdict()})
  assert input_range.of_config(kept) == found['bicubic'], 'packed again'


def test_a_run_without_its_images_is_packed_without_a_range(tmp_path, tiny, capsys):
  saved = json.loads(json.dumps(configs.to_dict(tiny)))
  del saved['data']['degradation'], saved['data']['train_lr']  # an older run
  kept = command._inputs(saved)
  assert kept['inputs'].keys() == {'noise', 'blockiness'}
  saved['data']['train'] = str(tmp_path / 'gone')
  assert command._inputs(saved) == {}
  assert 'will not warn' in capsys.readouterr().err


def test_shipped_packages_have_a_range():
  for name in jaxsr.list_models():
    model = jaxsr.load(name)
    assert (model.inputs is None) == (model.step is None), name


@pytest.mark.slow
@pytest.mark.parametrize('condition', ['clean', 'low_dose', 'jpeg75'])
def test_the_guard_flags_what_it_should_on_other_films(shared, condition):
  model, found = jaxsr.load('edsr_x4'), []
  for path in sorted((shared / 'nih/more').glob('*.png')):
    rng = acquisition.generator(path.name, condition)
    lr = acquire(image_files.read(path), acquisition.CONDITIONS[condition], rng, scale=4)
    found.append(bool(jaxsr.check_input(model, lr)))
  assert np.mean(found) <= 0.01 if condition == 'clean' else np.mean(found) >= 0.95


def test_the_card_says_what_a_network_was_trained_on(tiny):
  assert 'clean images' in model_card._inputs({'step': 1})
  saved = json.loads(json.dumps(configs.to_dict(tiny)))['data']['degradation']
  text = model_card._inputs({'degradation': saved})
  assert '0.01 to 2 of the usual dose' in text and 'JPEG at quality\n  40 to 97.' in text
