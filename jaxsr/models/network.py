"""The interface of every network."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike


class Network(nn.Module):
  """The fields that every network has, and the properties that other folders use.

  A network defines `__call__(lr, *, train)`, which maps images [b, h, w, c] in [0, 1] to images
  [b, scale * h, scale * w, c], float32 and not clipped.

  Attributes:
    scale: The upsampling factor.
    channels: The number of channels of the images: 1 for gray, 3 for RGB.
    dtype: The type of the computation; parameters and output images are float32.
    trainable: Whether the network has parameters.
    width_fields: The fields that the option `width` scales; see `models.build`.
    depth_fields: The fields that the option `depth` scales.
    width_multiple: The number that scaled widths are rounded to a multiple of.
    row_shardable: Whether the rows of an image may be divided among devices. Set it to False if
      XLA gathers the full image on every device instead.
  """

  trainable: ClassVar[bool] = True
  width_fields: ClassVar[tuple[str, ...]] = ()
  depth_fields: ClassVar[tuple[str, ...]] = ()
  width_multiple: ClassVar[int] = 4
  row_shardable: ClassVar[bool] = True

  scale: int = 4
  channels: int = 1
  dtype: DTypeLike = jnp.float32

  @property
  def tile_multiple(self) -> int | None:
    """Alignment of tile origins, in low-resolution pixels.

    SwinIR's is the size of its attention windows. None if the output depends on the extent of the
    image, so that no tile equals the same part of the full image.
    """
    return 1
