"""Feature networks: frozen ImageNet classifiers whose features images are compared by.

Each is a linen module that computes one named layer; `Variant` says what its weights expect.
`weights.py` reads them, `download.py` gets them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsr.errors import UserError, nearest
from jaxsr.perceptual import mobilenet, vgg


class Variant(NamedTuple):
  """How a network's weights want images and borders, by who trained them.

  Images are RGB in [0, 1], less `mean`, over `deviation`, with the channels turned round if `bgr`.
  """

  mean: tuple[float, ...]
  deviation: tuple[float, ...]
  bgr: bool = False
  epsilon: float = 1e-5  # of BatchNorm
  tensorflow: bool = False  # strides pad after the image only


VARIANTS = {
  'torchvision': Variant((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'caffe': Variant((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, bgr=True),
  'tf_slim': Variant((0.5,) * 3, (0.5,) * 3, epsilon=1e-3, tensorflow=True),
}

_BUILD: dict[str, Callable[..., nn.Module]] = {
  'mobilenet_v2': mobilenet.MobileNetV2,
  'vgg16': partial(vgg.VGG, vgg.DEPTHS['vgg16']),
  'vgg19': partial(vgg.VGG, vgg.DEPTHS['vgg19']),
}
LAYERS = {
  'mobilenet_v2': mobilenet.layers(),
  'vgg16': vgg.layers(vgg.DEPTHS['vgg16']),
  'vgg19': vgg.layers(vgg.DEPTHS['vgg19']),
}
NETWORKS = tuple(_BUILD)


def check(network: str, layer: str) -> None:
  """Raise UserError unless there is such a network with such a layer."""
  if network not in LAYERS:
    raise UserError(f'feature network {network!r} is unknown: {nearest(network, LAYERS)}')
  if layer not in LAYERS[network]:
    raise UserError(f'{network} has no layer {layer!r}: {nearest(layer, LAYERS[network])}')


def build(
  network: str,
  layer: str,
  *,
  activated: bool,
  variant: Variant,
  dtype: DTypeLike = jnp.float32,
) -> nn.Module:
  """Build a network up to a layer; raises UserError where there is none such."""
  check(network, layer)
  own = {'epsilon': variant.epsilon, 'tensorflow': variant.tensorflow}
  options = own if network == 'mobilenet_v2' else {}
  return _BUILD[network](layer=layer, activated=activated, dtype=dtype, **options)


def prepare(image: Float[Array, 'b h w c'], variant: Variant) -> Float[Array, 'b h w 3']:
  """Turn gray or RGB images in [0, 1] into what a network was trained on."""
  x = jnp.broadcast_to(image, (*image.shape[:3], 3))
  x = (x - jnp.asarray(variant.mean)) / jnp.asarray(variant.deviation)
  return x[..., ::-1] if variant.bgr else x


class FeatureExtractor(NamedTuple):
  """A feature network up to a layer, and how what it sees is compared; `scale` is its unit."""

  module: nn.Module
  variant: Variant
  distance: str
  scale: float = 1.0

  def extract(self, variables: Any, image: Float[Array, 'b h w c']) -> Float[Array, 'b y x f']:
    """Compute the features of gray or RGB images in [0, 1]."""
    return self.scale * jnp.asarray(self.module.apply(variables, prepare(image, self.variant)))
