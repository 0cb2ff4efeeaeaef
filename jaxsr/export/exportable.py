"""A model ready to be exported: float32, weights of a precision, and sizes that may be free."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import ops
from jaxsr.analysis import jaxpr
from jaxsr.compression.quantize import STEP
from jaxsr.data.image_files import MAX_PIXELS
from jaxsr.errors import UserError
from jaxsr.export import drawn, rounding
from jaxsr.inference import provenance, tiling
from jaxsr.inference.agreement import MARGIN, Reduction, filters, project
from jaxsr.inference.model import Model

PRECISIONS = ('float32', 'float16', 'int8')
SMALLEST = 16  # pixels per side of the images that a file with free sizes takes
TOLERANCE = 1e-4  # of the largest value of the image
_TRIED = ((1, 8, 24), (2, 17, 4))  # [b, h, w], beyond the smallest size, of the images it is run on
_WHITE = 255  # and their largest gray level, for agreement


class MismatchError(Exception):
  """The exported computation differs from the model's."""


@dataclass(frozen=True)
class Exportable:
  """A model as it is exported.

  Attributes:
    model: the model, with float32 computation and rounded weights.
    precision: how kernels are stored, one of `PRECISIONS`.
    stored: the variables as they are stored; see `rounding.store`.
    size: height and width of the images, or None if they are free.
    weights: the start of the SHA-256 of the weights before they were rounded.
    reduction: the reduction that results are projected to agree with, if any.
  """

  model: Model
  precision: str
  stored: Mapping[str, np.ndarray]
  size: tuple[int, int] | None
  weights: str
  reduction: Reduction | None = None

  @property
  def smallest(self) -> int:
    """The pixels per side that images of free sizes have at least."""
    return SMALLEST if self.reduction is None else filters.SMALLEST

  @property
  def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """The inputs by name: the images and, if results are projected, the largest gray level."""
    found = {'lr': jax.ShapeDtypeStruct(self.shape, jnp.float32)}
    if self.reduction is not None:
      found['levels'] = jax.ShapeDtypeStruct((), jnp.float32)
    return found

  @property
  def shape(self) -> tuple[Any, ...]:
    """The shape of the images [b, h, w, c], with symbols for free sizes."""
    channels = self.model.channels
    if self.size is not None:
      return (*jax.export.symbolic_shape('b'), *self.size, channels)
    limits = [f'{axis} >= {self.smallest}' for axis in 'hw']
    return tuple(jax.export.symbolic_shape(f'b, h, w, {channels}', constraints=limits))

  def apply(self, variables: Any, lr: jax.Array, levels: Any = None) -> Any:
    """Apply the network: images [b, h, w, c] in [0, 1] to larger ones, projected or not clipped."""
    sr: Any = self.model.network.apply(variables, lr, train=False)
    return sr if self.reduction is None else project(sr, lr, levels, self.reduction)

  def trace(self) -> jaxpr.Program:
    """Trace the network; the inputs are the leaves of the variables, then `inputs`."""
    with ops.plain():
      return jaxpr.trace(self.apply, self.model.variables, *self.inputs.values())

  @functools.cached_property  # the margin takes seconds
  def facts(self) -> dict[str, str]:
    """The facts that a user of the file needs, as pairs of text."""
    model, size = self.model, self.size
    margin = tiling.margin(model.network)
    free = f'any, at least {self.smallest} pixels per side'
    agrees = self.reduction is not None
    if agrees and margin is not None:
      margin = max(margin, MARGIN)
    return {
      'network': model.architecture,
      'model': model.name,
      'weights': self.weights or 'none',
      'precision': self._precision,
      'scale': str(model.scale),
      'margin': 'whole image' if margin is None else str(margin),
      'size': free if size is None else f'{size[0]}x{size[1]}',
      'range': f'[0, 1], black is 0; the output is {"" if agrees else "not "}clipped',
      'agreement': 'with bicubic reduction, for gray levels 0 to `levels`' if agrees else 'no',
      'layout': 'NHWC',
      'intended use': 'for research, not for diagnosis',
    }

  @property
  def _precision(self) -> str:
    """The precision, with the share of int8 kernels if it is mixed."""
    kernels = [x for name, x in self.stored.items() if x.ndim > 1 and not name.endswith(STEP)]
    short = sum(x.dtype == np.int8 for x in kernels)
    rest = f' in {short} of {len(kernels)} kernels, others float16'
    return self.precision + (rest if self.precision == 'int8' else '')

  def check(self, run: Callable[..., np.ndarray]) -> float:
    """Compare an exported computation with the model on noise of two sizes.

    Args:
      run: The exported computation, a function of the `inputs`.

    Returns:
      The largest difference, relative to the largest value.

    Raises:
      MismatchError: The difference is above `TOLERANCE`, or not a number.
    """
    rng = np.random.default_rng(0)
    apply = jax.jit(self.apply)
    least = self.smallest
    shapes = [(b, least + h, least + w) for b, h, w in _TRIED]
    if self.size is not None:
      shapes = [(1, *self.size), (2, *self.size)]
    levels = [] if self.reduction is None else [np.array(_WHITE, np.float32)]
    worst = 0.0
    for shape in shapes:
      lr = rng.uniform(size=(*shape, self.model.channels)).astype(np.float32)
      expected = np.asarray(apply(self.model.variables, lr, *levels))
      found = run(lr, *levels)
      where = f'{self.model.name}: the exported file, for an image of {shape[1]}x{shape[2]},'
      if found.shape != expected.shape:
        raise MismatchError(f'{where} returns {list(found.shape)}, not {list(expected.shape)}')
      difference = float(np.abs(found - expected).max() / np.abs(expected).max())
      if not difference <= TOLERANCE:
        raise MismatchError(f'{where} differs from JAX by {difference:.1e}; nothing was written')
      worst = max(worst, difference)
    return worst


def prepare(
  model: Model,
  *,
  precision: str = 'float32',
  size: Sequence[int] | None = None,
  agree: bool = False,
) -> Exportable:
  """Prepare a model for export.

  Args:
    model: The model.
    precision: How kernels are stored: 'float32', 'float16' or 'int8' (see `rounding`). The
      computation is always in float32.
    size: Height and width of the images in low-resolution pixels; None leaves them free.
    agree: Project results, so that their bicubic reduction rounds to nearly all of the input. The
      single pixels that `Model.upscale` changes afterward are not changed.

  Returns:
    The model with rounded weights.

  Raises:
    UserError: The network cannot be traced with free sizes, the size is not valid, or the network
      was trained for noisy images and cannot agree.
  """
  if size is None and (model.network.tile_multiple or 1) > 1:
    raise UserError(
      f'{model.name} needs --size HxW: the attention windows of {model.architecture} are laid out '
      'for one size of image'
    )
  if size is not None and (len(size) != 2 or min(size) < 1):
    raise UserError(f'size {size}: give height and width of the image, at least 1')
  if size is not None and size[0] * size[1] * model.scale**2 > MAX_PIXELS:
    raise UserError(
      f'size {size[0]}x{size[1]}: its result has more than {MAX_PIXELS / 1e6:.0f} megapixels; '
      'export a smaller size and cut images into tiles'
    )
  if agree and model.degradation == 'acquisition':
    raise UserError(
      f'--agree: {model.name} was trained for noisy images, whose noise its results should not '
      'agree with; leave it out'
    )
  network = model.network.clone(dtype=jnp.float32)
  stored = drawn.store(network, model.variables, precision)
  variables = rounding.restore(stored)
  fixed = None if size is None else (size[0], size[1])
  rounded = replace(model, network=network, variables=variables)
  reduction = Reduction(model.scale) if agree else None
  return Exportable(rounded, precision, stored, fixed, provenance.of(model).weights, reduction)
