"""SRCNN: Image Super-Resolution Using Deep Convolutional Networks (Dong et al., TPAMI 2016)."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr import ops
from jaxsr.models.layers import Conv
from jaxsr.models.network import Network

_PADDINGS = {'replicate': 'edge', 'zeros': 'constant'}


class SRCNN(Network):
  """Refines a bicubic upsampling by three convolutions.

  The paper's 9-1-5, 9-3-5 and 9-5-5 are choices of `kernels`. `padding` of borders is 'replicate',
  as in the authors' code, or 'zeros', as in public ports. There is no skip connection: the last
  layer has to reconstruct the image. `edges` is the `boundary` of `ops.upsample`; the authors'
  weights need 'mirror'.
  """

  width_fields: ClassVar[tuple[str, ...]] = ('features',)
  depth_fields: ClassVar[tuple[str, ...]] = ()  # no blocks to remove
  row_shardable: ClassVar[bool] = False  # XLA gathers the image to replicate its border

  features: Sequence[int] = (64, 32)
  kernels: Sequence[int] = (9, 5, 5)
  padding: str = 'replicate'
  edges: str = 'cut'

  @nn.compact
  def __call__(self, lr: Float[Array, 'b h w c'], *, train: bool) -> Float[Array, 'b sh sw c']:
    if self.padding not in _PADDINGS:
      known = ', '.join(map(repr, _PADDINGS))
      raise ValueError(f'padding {self.padding!r} is not one of {known}')
    x = ops.upsample(lr, self.scale, boundary=self.edges).astype(self.dtype)
    widths = (*self.features, self.channels)
    for i, (width, kernel) in enumerate(zip(widths, self.kernels, strict=True)):
      last = i == len(widths) - 1
      border = kernel // 2
      around = ((0, 0), (border, border), (border, border), (0, 0))
      x = jnp.pad(x, around, mode=_PADDINGS[self.padding])
      x = Conv(
        width,
        (kernel, kernel),
        padding='VALID',
        dtype=jnp.float32 if last else self.dtype,
        name=f'conv_{i}',
      )(x)
      if not last:
        x = nn.relu(x)
        self.sow('features', 'trunk', x)
    return x
