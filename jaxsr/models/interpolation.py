"""Interpolation as networks without parameters, so that every table can include it."""

from typing import ClassVar

from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.network import Network


class Bicubic(Network):
  """Bicubic interpolation (Keys, 1981; a = -0.5)."""

  trainable: ClassVar[bool] = False

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    return ops.upsample(lr, self.scale)


class Lanczos(Network):
  """Lanczos interpolation with three lobes (Duchon, 1979)."""

  trainable: ClassVar[bool] = False

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    return ops.upsample(lr, self.scale, method='lanczos3')


class BackProjection(Network):
  """Iterative back-projection (Irani & Peleg, 1991) with bicubic interpolation.

  Each of `iterations` steps downsamples the result and adds the upsampled difference from the
  input: bicubic is both the degradation and the back-projection kernel. Images are in [0, 1], not
  clipped.
  """

  trainable: ClassVar[bool] = False

  iterations: int = 3

  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    image = ops.upsample(lr, self.scale)
    for _ in range(self.iterations):
      missed = lr - ops.resize(image, lr.shape[1], lr.shape[2], method='cubic')
      image = image + ops.upsample(missed, self.scale)
    return image
