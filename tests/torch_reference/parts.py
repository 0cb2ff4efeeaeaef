"""Building blocks of the replicas of public PyTorch networks."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='public networks in PyTorch (pip install torch)')
tn, F = torch.nn, torch.nn.functional
torch.set_num_threads(1)  # threads do not help with small networks

DIV2K = (0.4488, 0.4371, 0.4040)
FLICKR2K = (0.4690, 0.4490, 0.4036)  # of RCAN, if trained on it
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
seq = tn.Sequential


class Net(tn.Module):
  """A module of named parts; `forward` is called with the module and its input."""

  def __init__(self, forward, **parts):
    super().__init__()
    self.call = forward
    for name, part in parts.items():
      self.add_module(name, part)

  def forward(self, x):
    return self.call(self, x)


def conv(inputs, outputs, size=3, **options):
  return tn.Conv2d(inputs, outputs, size, **({'padding': size // 2} | options))


def each(count, make):
  return [make() for _ in range(count)]


def stages(scale):
  return {2: (2,), 3: (3,), 4: (2, 2)}[scale]


def shuffles(scale, features):
  """Returns alternating convolutions and pixel shuffles."""
  pairs = [(conv(features, features * r * r), tn.PixelShuffle(r)) for r in stages(scale)]
  return [layer for pair in pairs for layer in pair]


def image_mean(*values):
  return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


def mean_shift(sign, mean, image_range=255):
  """EDSR-PyTorch's mean, stored as a 1x1 convolution of images in [0, image_range]."""
  layer = tn.Conv2d(3, 3, 1).requires_grad_(False)
  layer.weight.data = torch.eye(3).view(3, 3, 1, 1)
  layer.bias.data = sign * image_range * torch.tensor(mean)
  return layer


def fill(net, seed=0, *, bias=0.2):
  """Draw all weights and statistics at random, so that each tensor affects the output."""
  generator = torch.Generator().manual_seed(seed)
  normal = lambda x: torch.randn(x.shape, generator=generator)
  for layer in net.modules():
    for name, x in layer.named_parameters(recurse=False):
      if not x.requires_grad:
        continue
      slope, norm = isinstance(layer, tn.PReLU), isinstance(layer, tn.BatchNorm2d | tn.LayerNorm)
      if name == 'bias':
        x.data = bias * normal(x)
      elif slope or norm:
        x.data = (0.25 if slope else 1.0) + 0.2 * normal(x)
      else:
        x.data = normal(x) / np.sqrt(np.prod(x.shape[1:]))
    if isinstance(layer, tn.BatchNorm2d):
      layer.running_mean.copy_(0.3 * normal(layer.running_mean))
      layer.running_var.copy_(0.5 + normal(layer.running_var).abs())
  return net.eval()
