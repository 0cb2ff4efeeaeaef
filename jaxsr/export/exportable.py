"""A model ready to be exported: float32, weights of a precision, and sizes that may be free."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr import ops
from jaxsr.analysis import jaxpr
from jaxsr.compression import quantize
from jaxsr.errors import UserError
from jaxsr.inference import provenance, tiling
from jaxsr.inference.model import Model

PRECISIONS = ('float32', 'float16', 'int8')
SMALLEST = 16  # pixels per side of the images that a file with free sizes takes
TOLERANCE = 1e-4  # of the largest value of the image
_IMAGE_LAYERS = ('head', 'tail')  # the names of the first and the last convolution
_FREE_SIZES = ((1, 24, 40), (2, 33, 20))  # [b, h, w] that a file is tried with


class MismatchError(Exception):
  """The exported computation differs from the model's."""


@dataclass(frozen=True)
class Exportable:
  """A model as it is exported.

  Attributes:
    model: the model, with float32 computation and rounded weights.
    precision: how kernels are stored, one of `PRECISIONS`.
    size: height and width of the images, or None if they are free.
    weights: the start of the SHA-256 of the weights before they were rounded.
  """

  model: Model
  precision: str
  size: tuple[int, int] | None
  weights: str

  @property
  def shape(self) -> tuple[Any, ...]:
    """The shape of the images [b, h, w, c], with symbols for free sizes."""
    channels = self.model.channels
    if self.size is not None:
      return (*jax.export.symbolic_shape('b'), *self.size, channels)
    limits = [f'{axis} >= {SMALLEST}' for axis in 'hw']
    return tuple(jax.export.symbolic_shape(f'b, h, w, {channels}', constraints=limits))

  def apply(self, variables: Any, lr: jax.Array) -> Any:
    """Apply the network: images [b, h, w, c] in [0, 1] to larger ones, not clipped."""
    return self.model.network.apply(variables, lr, train=False)

  def trace(self) -> jaxpr.Program:
    """Trace the network; the inputs are the leaves of the variables, then the image."""
    with ops.plain():
      lr = jax.ShapeDtypeStruct(self.shape, jnp.float32)
      return jaxpr.trace(self.apply, self.model.variables, lr)

  @functools.cached_property  # the margin takes seconds
  def facts(self) -> dict[str, str]:
    """What a user of the file must know, as pairs of text."""
    model, size = self.model, self.size
    margin = tiling.margin(model.network)
    free = f'any, at least {SMALLEST} pixels per side'
    return {
      'network': model.architecture,
      'model': model.name,
      'weights': self.weights or 'none',
      'precision': self.precision,
      'scale': str(model.scale),
      'margin': 'whole image' if margin is None else str(margin),
      'size': free if size is None else f'{size[0]}x{size[1]}',
      'range': '[0, 1], black is 0; the output is not clipped',
      'layout': 'NHWC',
      'intended use': 'for research, not for diagnosis',
    }

  def check(self, run: Callable[[np.ndarray], np.ndarray]) -> float:
    """Compare an exported computation with the model on noise of two sizes.

    Args:
      run: The exported computation, of images [b, h, w, c].

    Returns:
      The largest difference, relative to the largest value.

    Raises:
      MismatchError: The difference is above `TOLERANCE`, or not a number.
    """
    rng = np.random.default_rng(0)
    apply = jax.jit(self.apply)
    shapes = _FREE_SIZES if self.size is None else ((1, *self.size), (2, *self.size))
    worst = 0.0
    for shape in shapes:
      lr = rng.uniform(size=(*shape, self.model.channels)).astype(np.float32)
      expected = np.asarray(apply(self.model.variables, lr))
      found = run(lr)
      where = f'{self.model.name}: the exported file, for an image of {shape[1]}x{shape[2]},'
      if found.shape != expected.shape:
        raise MismatchError(f'{where} returns {list(found.shape)}, not {list(expected.shape)}')
      difference = float(np.abs(found - expected).max() / np.abs(expected).max())
      if not difference <= TOLERANCE:
        raise MismatchError(f'{where} differs from JAX by {difference:.1e}; nothing was written')
      worst = max(worst, difference)
    return worst


def prepare(
  model: Model, *, precision: str = 'float32', size: Sequence[int] | None = None
) -> Exportable:
  """Prepare a model for export.

  Args:
    model: The model.
    precision: How kernels are stored: 'float32', 'float16' or 'int8' (one step per output channel;
      the first and the last layer are float16).
      The computation is always in float32.
    size: Height and width of the images in low-resolution pixels; None leaves them free.

  Returns:
    The model with rounded weights.

  Raises:
    UserError: The network cannot be traced with free sizes, or the size is not valid.
  """
  if size is None and (model.network.tile_multiple or 1) > 1:
    raise UserError(
      f'{model.name} needs --size HxW: the attention windows of {model.architecture} are laid out '
      'for one size of image'
    )
  if size is not None and (len(size) != 2 or min(size) < 1):
    raise UserError(f'size {size}: give height and width of the image, at least 1')
  network = model.network.clone(dtype=jnp.float32)
  variables = round_weights(model.variables, precision)
  fixed = None if size is None else (size[0], size[1])
  rounded = replace(model, network=network, variables=variables)
  return Exportable(rounded, precision, fixed, provenance.of(model).weights)


def round_weights(variables: Any, precision: str) -> Any:
  """Returns variables whose kernels are rounded to what a precision stores."""
  if precision == 'float32':
    return variables
  stored = store(variables, precision)
  rounded = {name: x.astype(np.float32) for name, x in stored.items() if x.dtype == np.float16}
  rounded = {**quantize.restore(stored), **rounded}
  return unflatten_dict({name: jnp.asarray(x) for name, x in rounded.items()}, sep='/')


def store(variables: Any, precision: str) -> dict[str, np.ndarray]:
  """Returns variables by path in the types that a precision stores.

  With 'int8', kernels have their steps beside them, as `quantize.quantize` returns them, and the
  kernels of layers that read or write the image are float16.
  """
  tensors = {name: np.asarray(x) for name, x in flatten_dict(variables, sep='/').items()}
  kinds = {name: kind_of(name, precision) for name, x in tensors.items() if x.ndim > 1}
  halved = {
    name: x.astype(np.float16) for name, x in tensors.items() if kinds.get(name) == 'float16'
  }
  others = {name: x for name, x in tensors.items() if name not in halved}
  return {**(quantize.quantize(others) if precision == 'int8' else others), **halved}


def kind_of(name: str, precision: str) -> str:
  """Returns the type that a kernel is stored in, by its path.

  Rounding the first and the last layer to int8 costs most and saves little: on calibration films,
  `edsr_x4_small` then changes 8 % of the pixels instead of 2 %, by 8 gray levels instead of 3.
  """
  is_at_image = len(name.split('/')) > 1 and name.split('/')[-2] in _IMAGE_LAYERS
  return 'float16' if precision == 'int8' and is_at_image else precision
