"""Networks with weights that others trained reproduce what these made."""

import re

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from PIL import Image
from small import shapes

from jaxsr import models


def test_swift_srgan_reproduces_its_authors_sample(shared):
  """Load weights that others trained; their picture is truncated to 8 bit."""
  weights = shared / 'reference' / 'swift_srgan_nih.safetensors'
  if not weights.is_file():
    pytest.skip(f'{weights} is absent')
  load = pytest.importorskip('safetensors.numpy', reason='published weights').load_file
  variables = published(load(weights))
  network = models.build('swift_srgan', scale=4, channels=3)
  samples = shared / 'reference' / 'swift_srgan_sample'
  lr = np.asarray(Image.open(samples / 'sample_lr_input.png').convert('RGB'), np.float32) / 255
  theirs = np.asarray(Image.open(samples / 'sample_sr_output.png').convert('RGB'), int)
  _, expected = shapes(network, (1, *lr.shape), train=False)
  describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert describe(variables) == describe({k: expected[k] for k in variables})
  sr = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, lr[None])
  ours = np.clip(np.asarray(sr[0]) * 255, 0, 255).astype(int)  # cuts off
  assert np.abs(ours - theirs).max() <= 1
  assert (ours == theirs).mean() > 0.999


AUTHORS = [  # their names of modules to ours
  (r'initial\.cnn', r'head'),
  (r'initial\.act', r'prelu'),
  (r'residual\.(\d+)\.block1\.act', r'block_\1.prelu'),
  (r'residual\.(\d+)\.block2\.act', r'block_\1.unused'),
  (r'residual\.(\d+)\.block1\.cnn', r'block_\1.conv_0'),
  (r'residual\.(\d+)\.block2\.cnn', r'block_\1.conv_1'),
  (r'residual\.(\d+)\.block1\.bn', r'block_\1.norm_0'),
  (r'residual\.(\d+)\.block2\.bn', r'block_\1.norm_1'),
  (r'convblock\.cnn', r'body'),
  (r'convblock\.bn', r'norm'),
  (r'convblock\.act', r'unused'),
  (r'upsampler\.(\d)\.conv', r'upsampler_\1'),
  (r'upsampler\.(\d)\.act', r'prelu_\1'),
  (r'final_conv', r'tail'),
]


def published(tensors):
  """Turn the authors' names and layouts into ours."""
  found = {'params': {}, 'batch_stats': {}}
  for name, x in tensors.items():
    for theirs, ours in AUTHORS:
      name = re.sub(f'^{theirs}', ours, name)
    *module, leaf = name.split('.')
    if x.ndim == 4:
      leaf, x = 'kernel', x.transpose(2, 3, 1, 0)
    if module[-1] == 'pointwise' and module[0].startswith('upsampler'):  # channel to space first
      x = x.reshape(*x.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(x.shape)
    if module[-1] == 'unused':
      module, leaf = module[:-1], 'unused_slope'
    if module and module[-1].startswith('prelu'):
      leaf = 'negative_slope'
    leaf = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}.get(leaf, leaf)
    if leaf != 'num_batches_tracked':
      found['batch_stats' if leaf in ('mean', 'var') else 'params'][(*module, leaf)] = x
  return {kind: unflatten_dict(flat) for kind, flat in found.items()}
