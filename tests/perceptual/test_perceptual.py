"""Feature networks against PyTorch, with random and with published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsr import perceptual
from jaxsr.errors import UserError
from jaxsr.perceptual import VARIANTS, download, mobilenet, vgg, weights

COUNTS = {'vgg16': 14_714_688, 'vgg19': 20_024_384, 'mobilenet_v2': 2_223_872}  # torchvision's


@pytest.mark.parametrize('network', COUNTS)
def test_parameters_are_those_of_torchvisions_features(network):
  shapes = weights.shapes(network, perceptual.LAYERS[network][-1])['params']
  assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) == COUNTS[network]


def tensors(network, layer, naming, rng):
  """Draw random tensors under the names of an implementation."""
  found = {}
  leaves, _ = jax.tree.flatten_with_path(weights.shapes(network, layer))
  for keys, x in leaves:
    module, leaf = '/'.join(k.key for k in keys[1:-1]), keys[-1].key
    value = rng.normal(0, 0.1, x.shape).astype(np.float32) + (leaf in ('var', 'scale'))
    names_of = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    found[f'{naming.module(module)}.{names_of.get(leaf, leaf)}'] = np.ascontiguousarray(value)
  return found


def torch_vgg(torch, network):
  layers, channels = [], 3
  for block, depth in enumerate(vgg.DEPTHS[network]):
    for _ in range(depth):
      layers += [torch.nn.Conv2d(channels, vgg.WIDTHS[block], 3, padding=1), torch.nn.ReLU()]
      channels = vgg.WIDTHS[block]
    layers.append(torch.nn.MaxPool2d(2))
  model = torch.nn.Module()
  model.features = torch.nn.Sequential(*layers)
  return model, model.features


def torch_mobilenet(torch, *, epsilon=1e-5, tensorflow=False):
  nn = torch.nn

  def unit(inputs, outputs, kernel=1, stride=1, groups=1, active=True):
    pad = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
    if tensorflow and stride == 2:
      conv.padding = (0, 0)
      forward = conv.forward
      conv.forward = lambda x: forward(
        nn.functional.pad(x, [v for n in (x.shape[3], x.shape[2]) for v in (n % 2, 1)])
      )
    parts = [conv, nn.BatchNorm2d(outputs, eps=epsilon)]
    return nn.Sequential(*parts, nn.ReLU6()) if active else parts

  class Residual(nn.Module):
    def __init__(self, inputs, block):
      super().__init__()
      wide = inputs * block.expansion
      parts = [unit(inputs, wide)] if block.expansion > 1 else []
      parts += [unit(wide, wide, 3, block.stride, wide)]
      self.conv = nn.Sequential(*parts, *unit(wide, block.features, active=False))
      self.adds = block.stride == 1 and inputs == block.features

    def forward(self, x):
      return x + self.conv(x) if self.adds else self.conv(x)

  layers, channels = [unit(3, 32, 3, 2)], 32
  for block in mobilenet.blocks():
    layers.append(Residual(channels, block))
    channels = block.features
  model = nn.Module()
  model.features = nn.Sequential(*layers, unit(channels, 1280))
  return model, model.features


def torch_features(torch, model, stop, image):
  """Run the `features` of a PyTorch network up to and including number `stop`."""
  model.eval()
  with torch.no_grad():
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
    for layer in list(model.features)[: stop + 1]:
      x = layer(x)
  return x.numpy().transpose(0, 2, 3, 1)


def features_of(network, layer, loaded, image, *, activated=True):
  module = perceptual.build(network, layer, activated=activated, variant=loaded.variant)
  return np.asarray(jax.jit(module.apply)(loaded.variables, jnp.asarray(image)))


def close(found, expected, tolerance=1e-4):
  np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize('network', ['vgg16', 'vgg19'])
def test_vgg_equals_pytorch(network, tmp_path, rng):
  torch = pytest.importorskip('torch')
  layer = perceptual.LAYERS[network][-1]
  model, _ = torch_vgg(torch, network)
  file = tmp_path / 'weights.safetensors'
  save_file({k: v.numpy() for k, v in model.state_dict().items()}, file)
  loaded = weights.load(network, layer, file)
  assert 'torchvision' in loaded.described
  image = rng.random((1, 48, 64, 3), dtype=np.float32)
  last = len(model.features) - 2  # without the last pooling
  close(features_of(network, layer, loaded, image), torch_features(torch, model, last, image))
  before = torch_features(torch, model, last - 1, image)
  close(features_of(network, layer, loaded, image, activated=False), before)


def test_mobilenet_equals_pytorch(tmp_path, rng):
  torch = pytest.importorskip('torch')
  torch.manual_seed(0)
  model, _ = torch_mobilenet(torch)
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.running_mean.normal_(0, 0.1)
      module.running_var.uniform_(0.5, 1.5)
  file = tmp_path / 'weights.safetensors'
  state = {k: v.numpy() for k, v in model.state_dict().items() if 'num_batches' not in k}
  save_file(state, file)
  loaded = weights.load('mobilenet_v2', 'head', file)
  image = rng.random((1, 65, 48, 3), dtype=np.float32)
  for layer, stop in (('stem', 0), ('block_3', 4), ('head', 18)):
    close(
      features_of('mobilenet_v2', layer, loaded, image), torch_features(torch, model, stop, image)
    )


def test_published_mobilenet_equals_pytorch(shared):
  """The published TF-slim weights on a natural image, with their padding and epsilon."""
  torch = pytest.importorskip('torch')
  file = shared / 'weights' / 'mobilenet_v2_tfslim.safetensors'
  loaded = weights.load('mobilenet_v2', 'head', file)
  assert loaded.variant == VARIANTS['tf_slim']
  model, _ = torch_mobilenet(torch, epsilon=1e-3, tensorflow=True)
  fill(torch, model, loaded.variables, weights._torch_mobilenet())
  path = min((shared / 'reference' / 'set5').rglob('*.png'))
  image = np.asarray(perceptual.prepare(natural(path), loaded.variant))
  close(features_of('mobilenet_v2', 'head', loaded, image), torch_features(torch, model, 18, image))


def test_published_vgg19_equals_pytorch(shared):
  """The published weights: torchvision's names, but Caffe's preprocessing, known by their hash."""
  torch = pytest.importorskip('torch')
  file = shared / 'weights' / 'vgg19_conv3_4.safetensors'
  loaded = weights.load('vgg19', 'conv3_4', file)
  assert loaded.variant == VARIANTS['caffe']
  model, _ = torch_vgg(torch, 'vgg19')
  names = {layer: weights.NAMINGS['vgg19'][0].module(layer) for layer in LAYERS_TO_3_4}
  fill(torch, model, loaded.variables, names)
  path = min((shared / 'reference' / 'set5').rglob('*.png'))
  rgb = np.asarray(natural(path))
  bgr = rgb[..., ::-1] * 255 - np.array([103.939, 116.779, 123.68], np.float32)
  close(np.asarray(perceptual.prepare(jnp.asarray(rgb), loaded.variant)), bgr, 1e-6)
  close(features_of('vgg19', 'conv3_4', loaded, bgr), torch_features(torch, model, 17, bgr))
  with pytest.raises(UserError, match=r'lacks 2 of the 18 tensors .* up to conv4_1'):
    weights.load('vgg19', 'conv4_1', file)


LAYERS_TO_3_4 = perceptual.LAYERS['vgg19'][:8]


def natural(path):
  from jaxsr.data import image_files

  return jnp.asarray(image_files.read(path, 3)[None].astype(np.float32) / 255)


def fill(torch, model, variables, names):
  """Copy variables into a PyTorch network."""
  names_of = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  state = model.state_dict()
  for keys, x in jax.tree.flatten_with_path(variables)[0]:
    module, leaf = '/'.join(k.key for k in keys[1:-1]), keys[-1].key
    value = np.asarray(x)
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    state[f'{names[module]}.{names_of.get(leaf, leaf)}'].copy_(torch.from_numpy(value.copy()))


@pytest.mark.parametrize('network', COUNTS)
def test_every_naming_is_read(network, tmp_path, rng):
  layer = perceptual.LAYERS[network][4]
  for naming in weights.NAMINGS[network]:
    file = tmp_path / f'{naming.name}.safetensors'
    found = tensors(network, layer, naming, rng)
    save_file(found, file)
    loaded = weights.load(network, layer, file)
    assert loaded.variant == VARIANTS[naming.variant]
    np.savez(file.with_suffix('.npz'), **found)
    again = weights.load(network, layer, file.with_suffix('.npz'))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, again.variables)


def test_gray_goes_to_three_channels():
  gray = jnp.linspace(0, 1, 16).reshape(1, 4, 4, 1)
  for variant in VARIANTS.values():
    found = perceptual.prepare(gray, variant)
    np.testing.assert_allclose(found, perceptual.prepare(jnp.repeat(gray, 3, 3), variant))


def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path):
  for name, content in (
    ('a.pth', b'\x80\x02}q\x00.'),
    ('b.npz', b'PK\x03\x04'),
    ('c.safetensors', b''),
  ):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match='neither safetensors nor npz.*never loaded'):
      weights.load('vgg19', 'conv1_1', tmp_path / name)
  np.savez(tmp_path / 'objects.npz', **{'features.0.weight': np.array([None], object)})
  with pytest.raises(UserError):
    weights.load('vgg19', 'conv1_1', tmp_path / 'objects.npz')
  with pytest.raises(UserError, match='no such file'):
    weights.load('vgg19', 'conv1_1', tmp_path / 'missing.safetensors')


class TestFetch:
  @pytest.fixture
  def published(self, tmp_path, monkeypatch, rng):
    """Publish a small file; nothing leaves the machine."""
    file = tmp_path / 'published.safetensors'
    save_file(tensors('vgg16', 'conv1_1', weights.NAMINGS['vgg16'][0], rng), file)
    monkeypatch.setenv('JAXSR_CACHE', str(tmp_path / 'cache'))
    digest = download.files.sha256(file)
    monkeypatch.setitem(
      download.PUBLISHED, 'vgg16', download.Entry(file.as_uri(), digest, 'torchvision')
    )
    return file

  def test_is_done_once(self, published):
    path = download.get('vgg16', flag='--w')
    assert path.read_bytes() == published.read_bytes()
    published.unlink()
    assert download.get('vgg16', flag='--w') == path

  def test_a_damaged_cache_is_replaced(self, published):
    path = download.get('vgg16', flag='--w')
    path.write_bytes(b'x')
    assert download.get('vgg16', flag='--w').read_bytes() == published.read_bytes()

  def test_another_file_is_refused_and_not_kept(self, published):
    published.write_bytes(b'another')
    with pytest.raises(UserError, match='has SHA-256 .* not .*or set --w to a'):
      download.get('vgg16', flag='--w')
    assert not list(download.cache().iterdir())

  def test_no_network_says_what_to_do(self, published):
    published.unlink()
    with pytest.raises(UserError, match='cannot download .*or set --w to a'):
      download.get('vgg16', flag='--w')

  def test_what_has_no_known_digest_is_not_fetched(self, published):
    with pytest.raises(UserError, match='no SHA-256 .* is known'):
      download.get('vgg19', flag='--w')
