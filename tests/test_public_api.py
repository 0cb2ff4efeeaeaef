"""What `import jaxsr` offers: loading, upscaling, reading, writing and evaluating."""

import dataclasses
import doctest
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

import jaxsr
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.errors import ImageError, UserError
from jaxsr.evaluation import text as evaluation_text
from jaxsr.inference import arguments
from jaxsr.models import build
from runs import pack, variables_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('Model', 'check_input', 'evaluate', 'list_models', 'load', 'read', 'write')


@pytest.fixture(scope='module')
def tiny():
  return jaxsr.load('edsr_x4_tiny')


@pytest.fixture(scope='module')
def rgb():
  network = build('edsr', {'features': 8, 'blocks': 1}, scale=2, channels=3)
  return jaxsr.Model('rgb', network, variables_of(network), 2, 3)


def python(code, *options):
  """Run code in a fresh interpreter; return what it prints."""
  command = [sys.executable, *options, '-c', code]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_importing_the_package_imports_nothing_large():
  code = """
import sys
before = set(sys.modules)
import jaxsr
loaded = sorted({name.split('.')[0] for name in set(sys.modules) - before})
print([name for name in loaded if name not in sys.stdlib_module_names])
print(dir(jaxsr))
"""
  loaded, names = python(code).splitlines()
  assert loaded == "['jaxsr']"
  assert all(f"'{name}'" in names for name in (*NAMES, '__version__'))


def test_importing_the_package_is_quick():
  """The fastest of five, since other processes may use the cores."""

  def seconds(code):
    begun = time.perf_counter()
    python(code, '-I', '-S')
    return time.perf_counter() - begun

  add = f'import sys; sys.path.insert(0, {str(ROOT)!r}); '
  took = min(seconds(f'{add}import jaxsr') for _ in range(5))
  assert took - min(seconds(add) for _ in range(5)) < 0.3


def test_every_name_is_there_and_documented():
  for name in NAMES:
    value = getattr(jaxsr, name)
    assert value.__doc__ and '>>>' in value.__doc__, name
    assert getattr(jaxsr, name) is value
  with pytest.raises(AttributeError, match="no attribute 'enlarge'"):
    jaxsr.enlarge  # noqa: B018


@pytest.mark.parametrize(
  'module',
  [
    'jaxsr',
    'jaxsr.inference.model',
    'jaxsr.inference.images',
    'jaxsr.inference.input_range',
    'jaxsr.evaluation.evaluate',
  ],
)
def test_examples_in_docstrings_are_true(module, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
  assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, '>u2'])
def test_rank_and_dtype_are_those_of_the_input(tiny, dtype):
  bits = 8 * np.dtype(dtype).itemsize
  image = phantom(3, 0, size=64, bits=bits).astype(dtype)
  flat = tiny.upscale(image)
  assert flat.shape == (256, 256) and flat.dtype == np.dtype(dtype).newbyteorder('=')
  single = tiny.upscale(image[..., None])
  batch = tiny.upscale(np.stack([image, image.T])[..., None])
  assert single.shape == (256, 256, 1) and batch.shape == (2, 256, 256, 1)
  np.testing.assert_array_equal(single[..., 0], flat)
  np.testing.assert_array_equal(batch[0], single)
  np.testing.assert_array_equal(batch[1, ..., 0], tiny.upscale(image.T))


def test_images_whose_values_are_no_levels_are_refused(tiny, tmp_path):
  gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
  takers = (
    tiny.upscale,
    tiny.enlarge,
    tiny.confidence,
    lambda image: arguments.prepare(image, tiny, 0, 1),  # of `check_input`
    lambda image: jaxsr.write(tmp_path / 'a.png', image),
  )
  masked = np.ma.masked_greater(np.asarray(gray), 99)
  for take in takers:
    for mode in ('P', 'YCbCr', '1'):
      with pytest.raises(UserError, match=f'PIL image of mode {mode}, whose values are not gray'):
        take(gray.convert(mode))
    with pytest.raises(UserError, match='masked array with masked pixels'):
      take(masked)
  assert not list(tmp_path.iterdir())
  for same in (gray, np.ma.masked_greater(np.asarray(gray), 255)):
    np.testing.assert_array_equal(tiny.upscale(same), tiny.upscale(np.asarray(gray)))


def test_write_takes_each_byte_order_and_names_a_place_that_takes_no_file(tmp_path):
  image = np.arange(256, dtype='>u2').reshape(16, 16) * 256
  for name in ('a.png', 'a.tif'):
    jaxsr.write(tmp_path / name, image)
    np.testing.assert_array_equal(jaxsr.read(tmp_path / name), image)
  with pytest.raises(UserError, match=r'/gone/a.png: its folder does not exist; create it first$'):
    jaxsr.write(tmp_path / 'gone' / 'a.png', image)
  (tmp_path / 'b.png').mkdir()
  with pytest.raises(UserError, match=r'/b.png: cannot be written \(Is a directory\)$'):
    jaxsr.write(tmp_path / 'b.png', image)


def test_floats_of_each_byte_order_are_taken(tiny):
  x = np.linspace(0, 1, 256).reshape(1, 16, 16, 1)
  np.testing.assert_array_equal(tiny(x.astype('>f4')), tiny(x.astype(np.float32)))
  with pytest.raises(UserError, match='masked array with masked pixels'):
    tiny(np.ma.masked_greater(x, 0.5))


def test_an_rgb_model_takes_rgb(rgb):
  image = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
  batch = rgb.upscale(image)
  assert batch.shape == (2, 32, 48, 3)
  np.testing.assert_array_equal(rgb.upscale(image[1]), batch[1])
  for wrong in (image[0, ..., 0], image[..., :1]):
    with pytest.raises(UserError, match=r'so 1 channels: rgb is for RGB images, \[h, w, 3\]'):
      rgb.upscale(wrong)


@pytest.mark.parametrize(
  'dtype',
  [np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64, np.bool_, np.complex64],
)
def test_other_dtypes_are_refused_by_name(tiny, dtype):
  with pytest.raises(UserError, match=f'image is {np.dtype(dtype)}: upscale takes uint8'):
    tiny.upscale(np.ones((16, 16), dtype))


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_a_float_image_names_the_call_for_it(tiny, dtype):
  with pytest.raises(UserError, match=r'upscale takes uint8 or uint16; .* call model\(x\)'):
    tiny.upscale(np.ones((16, 16), dtype))


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((16,), r'shape \[16\]: upscale takes \[h, w\], \[h, w, 1\] or \[b, h, w, 1\]'),
    ((1, 1, 16, 16, 1), 'upscale takes'),
    ((0, 16), 'upscale takes'),
    ((16, 16, 3), r'so 3 channels: edsr_x4_tiny is for gray images, \[h, w\]'),
    ((2, 16, 16), 'so 16 channels: edsr_x4_tiny is for gray images'),
  ],
)
def test_other_shapes_are_refused(tiny, shape, message):
  with pytest.raises(UserError, match=message):
    tiny.upscale(np.ones(shape, np.uint8))


def test_upscale_takes_the_options_of_the_command(tiny):
  image = phantom(3, 0, size=64)
  default = tiny.upscale(image).astype(int)
  assert np.abs(tiny.upscale(image, tile=32) - default).max() <= 1
  ensemble = np.abs(tiny.upscale(image, ensemble=True) - default)
  assert 0 < ensemble.max() < 40
  with pytest.raises(UserError, match='tile 0 is less than 1'):
    tiny.upscale(image, tile=0)


def test_a_model_is_a_pure_function(tiny):
  x = phantom(3, 0, size=64)[None, ..., None].astype(np.float32) / 255
  y = tiny(x)
  assert y.shape == (1, 256, 256, 1) and y.dtype == jnp.float32
  direct = tiny.network.apply(tiny.variables, jnp.asarray(x), train=False)
  np.testing.assert_allclose(y, direct, atol=1e-6)
  np.testing.assert_allclose(jax.jit(lambda x: tiny(x))(x), y, atol=1e-6)
  gradient = jax.grad(lambda x: tiny(x).sum())(jnp.asarray(x))
  assert gradient.shape == x.shape and float(jnp.abs(gradient).max()) > 0
  rounded = np.rint(np.clip(y[0, ..., 0], 0, 1) * 255)
  assert np.abs(rounded - tiny.upscale(phantom(3, 0, size=64), agree=False)).max() <= 1


def test_the_pure_function_refuses_what_it_does_not_take(tiny):
  with pytest.raises(UserError, match=r'x is uint8: .* call model\.upscale\(image\)'):
    tiny(np.ones((1, 16, 16, 1), np.uint8))
  for shape in ((16, 16), (16, 16, 1), (1, 16, 16, 3)):
    with pytest.raises(UserError, match=r'edsr_x4_tiny takes \[b, h, w, 1\]'):
      tiny(np.ones(shape, np.float32))
  with pytest.raises(UserError, match='takes'):
    jax.jit(lambda x: tiny(x))(jnp.ones((16, 16)))


def test_a_model_is_frozen_and_its_repr_is_short(tiny):
  assert len(repr(tiny)) < 120 and repr(tiny).startswith("Model('edsr_x4_tiny', network=edsr")
  with pytest.raises(dataclasses.FrozenInstanceError):
    tiny.scale = 2
  assert (tiny.scale, tiny.channels, tiny.name, tiny.step) == (4, 1, 'edsr_x4_tiny', 6000)
  assert hash(tiny) == hash(tiny) and tiny == tiny


def test_models_are_found_by_name_and_folder(tmp_path, monkeypatch):
  names = jaxsr.list_models()
  assert {'bicubic', 'lanczos', 'edsr_x2', 'edsr_x4', 'edsr_x4_tiny'} <= set(names)
  assert jaxsr.load(ROOT / 'checkpoints' / 'edsr_x4_tiny').name == 'edsr_x4_tiny'
  monkeypatch.setenv('HOME', str(tmp_path))
  pack(tmp_path / 'mine', {'name': 'edsr', 'features': 8, 'blocks': 1})
  assert jaxsr.load('~/mine').name == 'mine'
  assert jaxsr.load(scale=2).name == 'edsr_x2'
  with pytest.raises(UserError, match="'nothing' is neither .* edsr_x4_tiny"):
    jaxsr.load('nothing')


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_gray_images_come_back_as_they_were(tmp_path, rng, name, dtype):
  image = rng.integers(0, np.iinfo(dtype).max + 1, (20, 31), dtype)
  jaxsr.write(tmp_path / name, image)
  found = jaxsr.read(tmp_path / name)
  assert found.dtype == dtype and found.flags.c_contiguous and found.flags.writeable
  np.testing.assert_array_equal(found, image)
  jaxsr.write(tmp_path / name, image[..., None])
  np.testing.assert_array_equal(jaxsr.read(str(tmp_path / name)), image)


def test_color_images_come_back_as_they_were(tmp_path, rng):
  image = rng.integers(0, 256, (20, 31, 3), np.uint8)
  jaxsr.write(tmp_path / 'a.png', image)
  np.testing.assert_array_equal(jaxsr.read(tmp_path / 'a.png'), image)


def test_a_written_file_names_its_source(tmp_path):
  jaxsr.write(tmp_path / 'a.png', np.ones((16, 16), np.uint8))
  jaxsr.write(tmp_path / 'b.png', np.ones((16, 16), np.uint8), like=tmp_path / 'a.png')
  first, second = (image_files.read_note(tmp_path / name) for name in ('a.png', 'b.png'))
  assert first.startswith('jaxsr ') and 'source' not in first and 'source ' in second


@pytest.mark.parametrize(
  ('name', 'image', 'message'),
  [
    ('a.png', np.ones((8, 8), np.float32), 'image is float32: write takes uint8 or uint16'),
    ('a.png', np.ones((8, 8), np.int16), 'image is int16'),
    ('a.png', np.ones((1, 8, 8, 1), np.uint8), 'write takes'),
    ('a.png', np.ones((8, 8, 2), np.uint8), 'write takes'),
    ('a.gif', np.ones((8, 8), np.uint8), 'ends in none of .png'),
    ('a.jpg', np.ones((8, 8), np.uint16), 'JPEG holds 8 bit'),
  ],
)
def test_images_that_cannot_be_written_are_refused(tmp_path, name, image, message):
  with pytest.raises(UserError, match=message):
    jaxsr.write(tmp_path / name, image)
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_image_is_refused(tmp_path):
  (tmp_path / 'a.png').write_text('text')
  for name in ('a.png', 'b.png'):
    with pytest.raises(ImageError, match=name):
      jaxsr.read(tmp_path / name)


def test_evaluate_returns_what_it_writes(tiny, folder, tmp_path, capsys):
  table = jaxsr.evaluate(tiny, folder, output=tmp_path / 'e')
  assert json.loads((tmp_path / 'e' / 'summary.json').read_text()) == table
  assert table['checkpoint'] == 'edsr_x4_tiny' and table['data'] == 'films' and table['n'] == 4
  assert table['psnr'] > table['bicubic_psnr'] and table['failed'] == []
  assert 'replaces' not in capsys.readouterr().err
  jaxsr.evaluate(jaxsr.load('lanczos'), folder / 'a.png', output=tmp_path / 'e')
  told = capsys.readouterr().err
  assert f'{tmp_path / "e"}: replaces the evaluation of edsr_x4_tiny on films (4 images)' in told
  text = evaluation_text.table(table)
  assert text.startswith('edsr_x4_tiny, step 6000, x4, protocol xray, 4 images\n')
  assert f'{table["psnr"]:.3f}' in text and f'{table["bicubic_ssim_centre"]:.4f}' in text


def test_evaluate_names_what_is_wrong(tiny, folder, tmp_path):
  with pytest.raises(UserError, match='protocol .*: choose one of xray, luma'):
    jaxsr.evaluate(tiny, folder, protocol='natural')
  with pytest.raises(UserError, match='no such file or folder'):
    jaxsr.evaluate(tiny, tmp_path / 'nothing')


def test_type_checkers_see_the_names():
  source = (ROOT / 'jaxsr' / '__init__.py').read_text()
  assert (ROOT / 'jaxsr' / 'py.typed').is_file()
  block = source.partition('if TYPE_CHECKING:')[2].partition('__version__')[0]
  assert all(name in block for name in NAMES)


def test_it_works_where_modules_of_unix_are_missing(tmp_path):
  """As on Windows: a model is loaded, upscales and is evaluated."""
  code = f"""
import sys
for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
  sys.modules[name] = None
import numpy as np
import jaxsr
jaxsr.write(r'{tmp_path / 'a.png'}', np.full((48, 48), 99, np.uint8))
model = jaxsr.load('edsr_x4_tiny')
image = jaxsr.read(r'{tmp_path / 'a.png'}')
print(model.upscale(image).shape, jaxsr.evaluate(model, r'{tmp_path / 'a.png'}')['n'])
"""
  assert python(code) == '(192, 192) 1\n'


@pytest.mark.parametrize('option', [{'bits': '12'}, {'bits': 12.0}, {'tile': 'auto'}])
def test_options_that_are_no_whole_numbers_are_named(tiny, tmp_path, option):
  image = np.zeros((16, 16), np.uint16)
  for call in (tiny.upscale, tiny.enlarge):
    with pytest.raises(jaxsr.UserError, match='is not a whole number'):
      call(image, **option)
  with pytest.raises(jaxsr.UserError, match="bits '12'"):
    jaxsr.read('film.png', bits='12')


def test_an_image_of_12_bits_keeps_its_range(tiny, tmp_path, rng):
  deep = rng.integers(0, 2**16, (24, 16), np.uint16)
  low = deep >> 4
  plain = tiny.upscale(deep).astype(float) / 65535
  assert np.abs(tiny.upscale(low, bits=12) / 4095 - plain).max() < 2e-3
  with pytest.warns(UserWarning, match='pass bits=12'):
    tiny.upscale(low)
  with pytest.raises(jaxsr.UserError, match='has values up to'):
    tiny.upscale(low, bits=8)
  tifffile.imwrite(tmp_path / 'a.tif', low, extratags=[(281, 'H', 1, 4095, False)])
  np.testing.assert_array_equal(jaxsr.read(tmp_path / 'a.tif'), low)
  stretched = jaxsr.read(tmp_path / 'a.tif', full_range=True)
  assert stretched.max() > 60_000
  sr = tiny.upscale(low, bits=12)
  jaxsr.write(tmp_path / 'b.tif', sr, like=tmp_path / 'a.tif')
  np.testing.assert_array_equal(jaxsr.read(tmp_path / 'b.tif'), sr)
  with pytest.raises(jaxsr.UserError, match='has 12 bits'):
    jaxsr.write(tmp_path / 'c.tif', tiny.upscale(deep), like=tmp_path / 'a.tif')
