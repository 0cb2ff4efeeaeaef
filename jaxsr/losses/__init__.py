"""Loss terms by the names that a config weighs them with.

A term is a pure function of `Outputs` and the batch. It returns one value for each element
(b h w c), which the objective averages over the batch's mask, or one for each image (b,).
"""

from collections.abc import Callable

import jax
from flax import struct
from jaxtyping import Array, Float

from jaxsr.losses import pixel

Batch = dict[str, jax.Array]


@struct.dataclass
class Outputs:
  """What the step computed for the terms."""

  sr: Float[Array, 'b h w c']


Term = Callable[[Outputs, Batch], jax.Array]

TERMS: dict[str, Term] = {
  'charbonnier': lambda outputs, batch: pixel.charbonnier(outputs.sr, batch['hr']),
  'l1': lambda outputs, batch: pixel.l1(outputs.sr, batch['hr']),
  'mse': lambda outputs, batch: pixel.mse(outputs.sr, batch['hr']),
}
