"""Feature networks: frozen ImageNet classifiers, by whose features images are compared.

Each is a linen module that computes one named layer. `weights` loads their weights, `download`
downloads them.
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
  """The preprocessing and the padding that weights were trained with.

  Attributes:
    mean: Subtracted from RGB images in [0, 1].
    deviation: The images are divided by it afterward.
    bgr: Whether the order of the channels is reversed.
    epsilon: That of BatchNorm.
    tensorflow: Whether strided convolutions pad only at the bottom and right.
  """

  mean: tuple[float, ...]
  deviation: tuple[float, ...]
  bgr: bool = False
  epsilon: float = 1e-5
  tensorflow: bool = False


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


def check(network: str, layer: str) -> None:
  """Raise UserError if there is no such network, or if it has no such layer."""
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
  """Build a network up to a layer.

  Args:
    network: A key of `LAYERS`.
    layer: One of its layers.
    activated: Whether features are taken after the activation function of the layer.
    variant: The variant of its weights.
    dtype: Of the computation.

  Raises:
    UserError: There is no such network, or it has no such layer.
  """
  check(network, layer)
  own = {'epsilon': variant.epsilon, 'tensorflow': variant.tensorflow}
  options = own if network == 'mobilenet_v2' else {}
  return _BUILD[network](layer=layer, activated=activated, dtype=dtype, **options)


def prepare(image: Float[Array, 'b h w c'], variant: Variant) -> Float[Array, 'b h w 3']:
  """Preprocess gray or RGB images in [0, 1] as the weights expect."""
  x = jnp.broadcast_to(image, (*image.shape[:3], 3))
  mean, deviation = (jnp.asarray(v).reshape(1, 1, 1, 3) for v in (variant.mean, variant.deviation))
  x = (x - mean) / deviation
  return x[..., ::-1] if variant.bgr else x


class FeatureExtractor(NamedTuple):
  """A feature network up to a layer.

  Attributes:
    module: The network.
    variant: The variant of its weights.
    distance: One of `losses.perceptual.DISTANCES`, by which features are compared.
    scale: Multiplies the features.
  """

  module: nn.Module
  variant: Variant
  distance: str
  scale: float = 1.0

  def extract(self, variables: Any, image: Float[Array, 'b h w c']) -> Float[Array, 'b y x f']:
    """Compute the features of gray or RGB images in [0, 1]."""
    return self.scale * jnp.asarray(self.module.apply(variables, prepare(image, self.variant)))
