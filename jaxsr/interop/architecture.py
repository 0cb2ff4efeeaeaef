"""The options of a network, read from the shapes of its tensors."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class Kernels:
  """The shapes of kernels, [..., in, out], by this project's module paths."""

  def __init__(self, shapes: Mapping[str, Shape]):
    self._shapes = shapes

  def __contains__(self, path: str) -> bool:
    return any(p == path or p.startswith(f'{path}/') for p in self._shapes)

  def __getitem__(self, path: str) -> Shape:
    """Returns a shape; raises KeyError if the module is absent."""
    return self._shapes[path]

  def count(self, prefix: str) -> int:
    """Returns the number of modules whose paths are a prefix and a number."""
    found = {p[len(prefix) :].split('/')[0] for p in self._shapes if p.startswith(prefix)}
    return sum(name.isdigit() for name in found)

  def width(self, path: str) -> int:
    """Returns the number of a module's output features."""
    return self._shapes[path][-1]


def _edsr(kernels: Kernels) -> dict[str, Any]:
  features, blocks = kernels.width('head'), kernels.count('block_')
  full = features >= 256  # the paper's wide network, which does not train without the scaling
  direct = 'upsampler' not in kernels
  return {
    'features': features,
    'blocks': blocks,
    'residual_scaling': 0.1 if full else 1.0,
    'upsampler': 'direct' if direct else 'shuffle',
  }


def _fsrcnn(kernels: Kernels) -> dict[str, Any]:
  return {
    'features': kernels.width('head'),
    'shrunk': kernels.width('shrink'),
    'blocks': kernels.count('block_'),
  }


def _rcan(kernels: Kernels) -> dict[str, Any]:
  features, down = kernels.width('head'), 'group_0/block_0/attention/down'
  found = {'features': features, 'groups': kernels.count('group_')}
  found |= {'blocks': kernels.count('group_0/block_'), 'attention': down in kernels}
  return found | ({'reduction': features // kernels.width(down)} if down in kernels else {})


def _rdn(kernels: Kernels) -> dict[str, Any]:
  return {
    'features': kernels.width('head_0'),
    'blocks': kernels.count('block_'),
    'layers': kernels.count('block_0/conv_'),
    'growth': kernels.width('block_0/conv_0'),
  }


def _rlfn(kernels: Kernels) -> dict[str, Any]:
  return {
    'features': kernels.width('head'),
    'middle': kernels.width('block_0/conv_0'),
    'blocks': kernels.count('block_'),
    'attention': kernels.width('block_0/attention/down'),
  }


def _rrdb(kernels: Kernels) -> dict[str, Any]:
  return {
    'features': kernels.width('head'),
    'blocks': kernels.count('block_'),
    'growth': kernels.width('block_0/dense_0/conv_0'),
    'unshuffle': 1 if kernels['head'][-2] in (1, 3) else 2,
  }


def _span(kernels: Kernels) -> dict[str, Any]:
  return {
    'features': kernels.width('join'),
    'blocks': kernels.count('block_'),
    'folded': 'head/expand' not in kernels,
  }


def _srcnn(kernels: Kernels) -> dict[str, Any]:
  layers = [kernels[f'conv_{i}'] for i in range(3)]
  return {
    'features': tuple(layer[-1] for layer in layers[:2]),
    'kernels': tuple(layer[0] for layer in layers),
    'edges': 'mirror',  # published weights were trained on MATLAB's interpolation
  }


def _srdensenet(kernels: Kernels) -> dict[str, Any]:
  growth, layers = kernels.width('block_0/conv_0'), kernels.count('block_0/conv_')
  reuses = layers > 1 and kernels['block_0/conv_1'][-2] != growth
  small = kernels['deconv_0'][0] == 2  # the variant 'prelu' or its version with ReLU
  return {
    'growth': growth,
    'blocks': kernels.count('block_'),
    'layers': layers,
    'bottleneck': kernels.width('bottleneck'),
    'variant': 'dense' if reuses else 'prelu' if small else 'all',
  }


def _srresnet(kernels: Kernels) -> dict[str, Any]:
  return {'features': kernels.width('head'), 'blocks': kernels.count('block_')}


def _swift_srgan(kernels: Kernels) -> dict[str, Any]:
  return {'features': kernels.width('head/pointwise'), 'blocks': kernels.count('block_')}


def _swinir(kernels: Kernels) -> dict[str, Any]:
  groups = range(kernels.count('group_'))
  offsets, heads = kernels['group_0/block_0/attention/position_bias']
  features = kernels.width('head')
  classical = 'before_upsampler' in kernels
  return {
    'features': features,
    'depths': tuple(kernels.count(f'group_{i}/block_') for i in groups),
    'heads': heads,
    'window': (int(np.sqrt(offsets)) + 1) // 2,
    'mlp_ratio': kernels.width('group_0/block_0/mlp_0') / features,
    'upsampler': 'nearest' if 'detail' in kernels else 'shuffle' if classical else 'direct',
  } | ({'tail_features': kernels.width('before_upsampler')} if classical else {})


def _vdsr(kernels: Kernels) -> dict[str, Any]:
  blocks = kernels.count('conv_')
  return {'features': kernels.width('conv_0'), 'blocks': blocks, 'edges': 'mirror'}  # as for SRCNN


READERS: dict[str, Callable[[Kernels], dict[str, Any]]] = {
  'edsr': _edsr,
  'fsrcnn': _fsrcnn,
  'msrresnet': _srresnet,
  'rcan': _rcan,
  'rdn': _rdn,
  'rlfn': _rlfn,
  'rrdb': _rrdb,
  'span': _span,
  'srcnn': _srcnn,
  'srdensenet': _srdensenet,
  'srresnet': _srresnet,
  'swift_srgan': _swift_srgan,
  'swinir': _swinir,
  'vdsr': _vdsr,
}


def channels(kernels: Kernels) -> int:
  """Returns the number of channels of the images."""
  if 'head/depthwise' in kernels:
    return kernels.width('head/depthwise')
  first = next(p for p in ('head/expand', 'head', 'head_0', 'conv_0') if p in kernels)
  seen = kernels[first][-2]
  folded = first == 'head' and seen in (4, 12) and kernels.width('tail') in (1, 3)
  return seen // 4 if folded else seen  # Real-ESRGAN's x2 folds 2x2 pixels into channels
