"""Networks: pure functions from low to high resolution, as linen modules.

Every network has the fields `scale`, `channels` and `dtype` (of its computation; parameters and
the output image are float32) and the call `network(lr, *, train)` on NHWC images in [0, 1]; its
output is not clipped. The features that distillation can compare are sown into `features`.

`network.Network` declares the properties of a network that other folders use.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr.errors import UserError, nearest
from jaxsr.models import span, srresnet, swift_srgan
from jaxsr.models.edsr import EDSR
from jaxsr.models.fsrcnn import FSRCNN
from jaxsr.models.interpolation import BackProjection, Bicubic, Lanczos
from jaxsr.models.msrresnet import MSRResNet
from jaxsr.models.network import Network
from jaxsr.models.rcan import RCAN
from jaxsr.models.rdn import RDN
from jaxsr.models.rlfn import RLFN
from jaxsr.models.rrdb import RRDBNet
from jaxsr.models.span import SPAN
from jaxsr.models.srcnn import SRCNN
from jaxsr.models.srdensenet import SRDenseNet
from jaxsr.models.srresnet import SRResNet
from jaxsr.models.swift_srgan import SwiftSRGAN
from jaxsr.models.swinir import SwinIR
from jaxsr.models.vdsr import VDSR
from jaxsr.ops import plain

MODELS: dict[str, type[Network]] = {
  'back_projection': BackProjection,
  'bicubic': Bicubic,
  'edsr': EDSR,
  'fsrcnn': FSRCNN,
  'lanczos': Lanczos,
  'msrresnet': MSRResNet,
  'rcan': RCAN,
  'rdn': RDN,
  'rlfn': RLFN,
  'rrdb': RRDBNet,
  'span': SPAN,
  'srcnn': SRCNN,
  'srdensenet': SRDenseNet,
  'srresnet': SRResNet,
  'swift_srgan': SwiftSRGAN,
  'swinir': SwinIR,
  'vdsr': VDSR,
}
PARAMETER_FREE = tuple(name for name, kind in MODELS.items() if not kind.trainable)
SCALES = (2, 3, 4, 8)
_POSITIVE = ('image_range', 'deviation')  # options that the network divides by
PRECISIONS = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
_MULTIPLIERS = ('width', 'depth')
_FOLDS = {SPAN: span.fold, SRResNet: srresnet.fold, SwiftSRGAN: swift_srgan.fold}
_KINDS = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'a name'}
_LARGEST = 10_000  # no network has more layers or features
_COMMON = ('scale', 'channels', 'dtype', 'parent', 'name')


def defaults(name: str) -> dict[str, Any]:
  """Returns a network's options and their defaults, without scale, channels and precision."""
  kind = MODELS[name]
  own = {f.name: f.default for f in dataclasses.fields(kind) if f.name not in _COMMON}
  return own | {'width': 1.0, 'depth': 1.0} if kind.trainable else own


def fields(name: str) -> list[str]:
  """Returns the names of a network's options."""
  return list(defaults(name))


def describe(network: Network) -> dict[str, Any]:
  """Returns the arguments of `build` for a network; `width` and `depth` are already applied."""
  name = next(name for name, kind in MODELS.items() if kind is type(network))
  return {'name': name} | {k: getattr(network, k) for k in fields(name) if k not in _MULTIPLIERS}


def build(
  name: str,
  options: Mapping[str, Any] | None = None,
  *,
  scale: int,
  channels: int = 1,
  precision: str = 'float32',
) -> Network:
  """Build a network by name.

  The options `width` and `depth`, in (0, 1], make a smaller network of the same kind. `width`
  scales the network's `width_fields`, to the nearest multiple of 4 (12 for SwinIR, whose heads must
  divide it) and at least 8 (or 12); `depth` scales its `depth_fields`, to the nearest integer and
  at least 1. Halves are rounded up, no field grows, and each entry of a tuple is scaled. 1.0 leaves
  the network as its other options describe it.

  Args:
    name: The name of the network, a key of `MODELS`.
    options: Options of the network by name, as listed by `defaults`.
    scale: The upsampling factor, one of `SCALES`.
    channels: The number of channels of the images: 1 for gray, 3 for RGB.
    precision: The type of the computation, a key of `PRECISIONS`.

  Returns:
    The network, a linen module without variables.

  Raises:
    UserError: If a name, option, scale or precision is unknown, or a multiplier is out of range.
  """
  options = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
  if name not in MODELS:
    raise UserError(f'network {name!r} is unknown: {nearest(name, MODELS)}')
  if scale not in SCALES:
    raise UserError(f'scale {scale} is not supported: choose one of {", ".join(map(str, SCALES))}')
  if precision not in PRECISIONS:
    raise UserError(f'precision {precision!r} is unknown: {nearest(precision, PRECISIONS)}')
  for option in options:
    if option not in fields(name):
      known = nearest(option, fields(name)) if fields(name) else 'it has no options'
      raise UserError(f'network {name!r} has no option {option!r}: {known}')
    _check_option(name, option, options[option])
  dtype = PRECISIONS[precision]
  options = _multiply(MODELS[name], options)
  return MODELS[name](scale=scale, channels=channels, dtype=dtype, **options)


def _check_option(name: str, option: str, value: Any) -> None:
  """Raise UserError if an option has another type than its default, or cannot be meant."""
  default = defaults(name)[option]
  if value == default:  # a default of 0 has a meaning of its own
    return
  if option in _MULTIPLIERS:
    return  # checked where they are applied
  kind = type(default[0] if isinstance(default, tuple) else default)
  if isinstance(default, tuple) and not isinstance(value, tuple):
    raise UserError(f'network {name!r}: {option} {value!r} is not a list, as {list(default)}')
  values: tuple[Any, ...] = value if isinstance(default, tuple) else (value,)
  for one in values:
    if not (type(one) is kind or (kind is float and type(one) is int)):
      raise UserError(f'network {name!r}: {option} {value!r} is not {_KINDS[kind]}')
    if kind is float and not math.isfinite(one):
      raise UserError(f'network {name!r}: {option} {value} is not finite')
    if option in _POSITIVE and one <= 0:
      raise UserError(f'network {name!r}: {option} {value} is not positive')
    if kind is int and one < 1:
      raise UserError(f'network {name!r}: {option} {value} is less than 1')
    if kind is int and one > _LARGEST:
      raise UserError(f'network {name!r}: {option} {value} is more than {_LARGEST:,}')


def _multiply(kind: type[Network], options: dict[str, Any]) -> dict[str, Any]:
  own: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(kind)}
  own |= options
  width, depth = (_multiplier(n, own.pop(n, 1.0)) for n in ('width', 'depth'))
  step = kind.width_multiple
  scaled = {k: _shrink(own[k], width, step, max(8, step)) for k in kind.width_fields if width < 1}
  scaled |= {k: _shrink(own[k], depth, 1, 1) for k in kind.depth_fields if depth < 1}
  return {k: v for k, v in options.items() if k not in _MULTIPLIERS} | scaled


def _multiplier(name: str, value: Any) -> float:
  if not isinstance(value, int | float) or not 0 < value <= 1:
    raise UserError(f'{name} {value!r} is not in (0, 1]: 1.0 is the network as published')
  return float(value)


def _shrink(value: Any, factor: float, multiple: int, least: int) -> Any:
  if isinstance(value, tuple):
    return tuple(_shrink(v, factor, multiple, least) for v in value)
  rounded = multiple * int(value * factor / multiple + 0.5)
  return min(value, max(least, rounded))


def fold(network: Network, variables: Any) -> tuple[Network, Any]:
  """Returns an equivalent network and variables that cost less in inference, if there are any."""
  fold = _FOLDS.get(type(network))
  if fold is None or network.folded:  # type: ignore[attr-defined]
    return network, variables
  return network.clone(folded=True), fold(variables)


def shapes(network: Network) -> dict[str, Any]:
  """Returns the shapes of a network's variables: `params` and, if it has any, `batch_stats`."""
  hashable: Any = network  # which Flax makes it without telling type checkers
  return jax.tree.map(lambda shape: shape, _shapes(hashable))  # new dicts


@functools.lru_cache(maxsize=64)
def _shapes(network: Network) -> dict[str, Any]:
  lr = jax.ShapeDtypeStruct((1, 16, 16, network.channels), jnp.float32)
  with plain():  # which takes half the time to trace
    found: Any = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), lr)
  return {name: found[name] for name in ('params', 'batch_stats') if name in found}


def count_parameters(variables: Any) -> int:
  """Returns the number of trainable parameters of a network."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables.get('params', {})))
