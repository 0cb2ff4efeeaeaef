"""Networks: pure functions from low to high resolution, as linen modules.

Every network has the fields `scale`, `channels` and `dtype` (of its computation; parameters and
the image that comes out are float32) and the call `network(lr, *, train)` on NHWC images in
[0, 1]; its output is not clipped. What distillation may want to see is sown into `features`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsr.errors import UserError, nearest
from jaxsr.models.edsr import EDSR
from jaxsr.models.interpolation import Bicubic, Lanczos
from jaxsr.models.srcnn import SRCNN
from jaxsr.models.vdsr import VDSR

MODELS: dict[str, type[nn.Module]] = {
  'bicubic': Bicubic,
  'edsr': EDSR,
  'lanczos': Lanczos,
  'srcnn': SRCNN,
  'vdsr': VDSR,
}
SCALES = (2, 3, 4, 8)
PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
_COMMON = ('scale', 'channels', 'dtype', 'parent', 'name')


def fields(name: str) -> list[str]:
  """List what can be set for a network, beside scale, channels and precision."""
  return [f.name for f in dataclasses.fields(MODELS[name]) if f.name not in _COMMON]


def build(
  name: str,
  options: Mapping[str, Any] | None = None,
  *,
  scale: int,
  channels: int = 1,
  precision: str = 'float32',
) -> nn.Module:
  """Build a network by name.

  Raises UserError for an unknown name, option, scale or precision.
  """
  options = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
  if name not in MODELS:
    raise UserError(f'network {name!r} is unknown: {nearest(name, MODELS)}')
  if scale not in SCALES:
    raise UserError(f'scale {scale} is not built: choose one of {", ".join(map(str, SCALES))}')
  if precision not in PRECISIONS:
    raise UserError(f'precision {precision!r} is unknown: {nearest(precision, PRECISIONS)}')
  for option in options:
    if option not in fields(name):
      known = nearest(option, fields(name)) if fields(name) else 'it has no options'
      raise UserError(f'network {name!r} has no option {option!r}: {known}')
  dtype = PRECISIONS[precision]
  return MODELS[name](scale=scale, channels=channels, dtype=dtype, **options)


def count_parameters(variables: Any) -> int:
  """Count the trainable numbers of a network."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables.get('params', {})))
