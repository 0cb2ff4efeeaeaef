"""Load a trained model from a run, a package, or by name, and upscale images with it."""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import UInt

from jaxsr import models
from jaxsr.errors import UserError
from jaxsr.inference import confidence, input_range, package, stored, tiling
from jaxsr.inference.agreeing import Rule, Upscaled, to_levels
from jaxsr.inference.agreement import Reduction
from jaxsr.inference.arguments import as_array, prepare
from jaxsr.inference.confidence import Calibration, Confidence
from jaxsr.inference.predict import make_predict
from jaxsr.inference.upscaler import make_upscaler
from jaxsr.models import Network


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A super-resolution network with its variables.

  `model.upscale(image)` upscales integer images; `model(x)` is the network itself, for use in JAX.

  Attributes:
    name: the name of the package, of the run's folder, or of the interpolation.
    network: the Flax module.
    variables: `params` and, if the network has them, `batch_stats`.
    scale: the upscaling factor: 2, 3, 4 or 8.
    channels: 1 for gray images, 3 for RGB.
    step: the training step of the variables; None if nothing was trained.
    width, depth: the size of a slimmable network, relative to the full one.
    inputs: the noise and compression of the images it was trained on; None if not known.
    folder: the folder of the package or run; None if there is none.
    degradation: the low resolution that it was trained for: 'bicubic' (Pillow's reduction), or
      'acquisition' (a detector's, with noise); 'none' for interpolations.

  Example:
    >>> import jaxsr
    >>> jaxsr.load('edsr_x4_tiny')
    Model('edsr_x4_tiny', network=edsr, scale=4, channels=1, step=6000, parameters=41920)
  """

  name: str
  network: Network
  variables: Any
  scale: int
  channels: int
  step: int | None = None
  width: float = 1.0
  depth: float = 1.0
  inputs: input_range.InputRange | None = None
  folder: Path | None = None
  degradation: str = 'none'

  def __repr__(self) -> str:
    return (
      f'Model({self.name!r}, network={self.architecture}, scale={self.scale}, '
      f'channels={self.channels}, step={self.step}, parameters={self.parameters})'
    )

  @property
  def architecture(self) -> str:
    """The network's name in `jaxsr.models`, such as 'edsr'."""
    return models.describe(self.network)['name']

  @property
  def parameters(self) -> int:
    """The number of trainable parameters."""
    return models.count_parameters(self.variables)

  def __call__(self, x: ArrayLike) -> jax.Array:
    """Apply the network. Pure: it can be used inside `jax.jit`, `jax.grad` and `jax.vmap`.

    Args:
      x: low-resolution images, float [b, h, w, c] in [0, 1], with c = `channels`.

    Returns:
      The upscaled images, float32 [b, scale * h, scale * w, c]. They are not clipped to [0, 1].

    Raises:
      UserError: `x` does not hold floats, or has another rank or number of channels.

    Example:
      >>> import jax, jaxsr
      >>> import jax.numpy as jnp
      >>> model = jaxsr.load('edsr_x4_tiny')
      >>> loss = jax.jit(lambda x: jnp.mean(model(x) ** 2))
      >>> jax.grad(loss)(jnp.full((1, 16, 16, 1), 0.5)).shape
      (1, 16, 16, 1)
    """
    x = jnp.asarray(as_array(x) if isinstance(x, np.ndarray) else x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise UserError(
        f'x is {x.dtype}: model(x) takes floats in [0, 1]; for uint8 and uint16 images call '
        'model.upscale(image)'
      )
    if x.ndim != 4 or x.shape[3] != self.channels:
      raise UserError(
        f'x has the shape {list(x.shape)}: {self.name} takes [b, h, w, {self.channels}]'
      )
    return self._apply(self.variables, x.astype(jnp.float32))

  def upscale(
    self,
    image: np.ndarray,
    *,
    bits: int = 0,
    ensemble: bool = False,
    tile: int = tiling.SIDE,
    agree: bool | None = None,
  ) -> np.ndarray:
    """Upscale one or several uint8 or uint16 images.

    The rows of an image are divided among the devices of this process. Threads that upscale with
    the same model take turns.

    Args:
      image: the image [h, w] or [h, w, c], or a batch [b, h, w, c], with c = `channels`. 0 is
        black.
      bits: the number of bits that the values have, 12 if white is 4095 for example; 0 is all of
        the dtype. The result keeps to the same range.
      ensemble: average over the eight flips and quarter turns of the image, at eight times the
        cost.
      tile: images with a longer side, in low-resolution pixels, are upscaled in overlapping tiles
        of about this size, one per device at a time. This takes less memory and gives the same
        result up to rounding. Networks that need the full image ignore it.
      agree: make the result agree with the image: reduced again by Pillow's bicubic filter, it is
        the image, or within its noise if the network was trained for noisy images. An image that
        does not look like such a reduction, since it is noisier or more compressed than the
        training images or more than 5 % of its pixels (x2: 12 %) would be off, falls back to
        `agree=False`. Default: True for networks trained on clean bicubic reductions.

    Returns:
      The upscaled image, of the rank and dtype of `image`.

    Raises:
      UserError: the image has another dtype, rank, number of channels or more bits, or `tile` is
        less than 1.

    Example:
      >>> import jaxsr
      >>> import numpy as np
      >>> model = jaxsr.load('edsr_x4_tiny')
      >>> sr = model.upscale(np.full((16, 24), 40_000, np.uint16))
      >>> sr.shape, sr.dtype
      ((64, 96), dtype('uint16'))
    """
    image, white = prepare(image, self, bits, tile)
    enlarge = functools.partial(self._enlarge, white=white, options=(ensemble, tile), agree=agree)
    if image.ndim == 4:
      return np.stack([enlarge(one).image for one in image])
    return enlarge(image).image if image.ndim == 3 else enlarge(image[..., None]).image[..., 0]

  def enlarge(
    self,
    image: np.ndarray,
    *,
    bits: int = 0,
    ensemble: bool = False,
    tile: int = tiling.SIDE,
    agree: bool | None = None,
  ) -> Upscaled:
    """Upscale one image, and count the pixels in which the result agrees with it.

    Args:
      image: the image [h, w] or [h, w, c], uint8 or uint16.
      bits, ensemble, tile, agree: as for `upscale`.

    Returns:
      The upscaled image [scale * h, scale * w, c], also in floats before rounding, and in how many
      pixels its reduction equals `image`.

    Raises:
      UserError: as for `upscale`.
    """
    image, white = prepare(image, self, bits, tile)
    image = image if image.ndim == 3 else image[..., None]
    return self._enlarge(image, white=white, options=(ensemble, tile), agree=agree)

  def _enlarge(
    self,
    image: UInt[np.ndarray, 'h w c'],
    *,
    white: int,
    options: tuple[bool, int],
    agree: bool | None,
  ) -> Upscaled:
    rule = self.agreement_rule(agree)
    width = None if rule is None else rule.width(image, white)
    if rule is not None and width is not None:
      sr = self._upscaler(*options, reduction=rule.reduction)(image, white, width)
      result = rule.finish(sr, image, white=white, width=width)
      if result.settled:
        return result
    sr = self._upscaler(*options, reduction=None)(image, white)
    if rule is None:
      return Upscaled(to_levels(sr, white, image.dtype), sr, None, settled=False)
    return rule.round_only(sr, image, white=white)

  def agreement_rule(self, agree: bool | None = None) -> Rule | None:
    """Returns how results agree with their input for this option of `upscale`, if they do."""
    wanted = self.degradation == 'bicubic' if agree is None else agree
    if not wanted:
      return None
    return Rule(Reduction(self.scale), self.degradation == 'acquisition', self.inputs)

  def confidence(
    self,
    image: np.ndarray,
    *,
    calibration: str | os.PathLike[str] | None = None,
    bits: int = 0,
    tile: int = tiling.SIDE,
    agree: bool | None = None,
  ) -> Confidence:
    """Upscale an image, with the interval of each pixel and the tiles that may be wrong.

    Args:
      image: the image [h, w] or [h, w, c], as for `upscale`.
      calibration: a file or folder that `jaxsr calibrate` wrote; None takes that of the package.
      bits: as for `upscale`.
      tile: as for `upscale`.
      agree: as for `upscale`, and as the calibration was made.

    Returns:
      The upscaled image, half the width of each pixel's interval in its gray levels (float32), and
      whether a pixel lies in a doubtful tile (bool). Of images in color, intervals and doubt are
      those of the mean of the channels.

    Raises:
      UserError: there is no calibration, it is for another network or other weights, or the image
        does not fit.

    Example:
      >>> import jaxsr
      >>> import numpy as np
      >>> model = jaxsr.load('edsr_x4')
      >>> found = model.confidence(np.full((16, 24), 128, np.uint8))
      >>> found.image.shape, found.half_width.shape, bool(found.doubt.any())
      ((64, 96), (64, 96), False)
    """
    image = as_array(image)
    if image.ndim == 4:
      raise UserError('image is a batch: confidence takes one image, [h, w] or [h, w, c]')
    path = None if calibration is None else Path(calibration).expanduser()
    found = confidence.load(self, path, agree)
    sr = self.upscale(image, bits=bits, tile=tile, agree=agree)
    return self.confidence_of(image, sr, found, bits=bits, tile=tile)

  def confidence_of(
    self,
    image: np.ndarray,
    sr: np.ndarray,
    calibration: Calibration,
    *,
    bits: int = 0,
    tile: int = tiling.SIDE,
  ) -> Confidence:
    """Compute the result of `confidence` for an image that was upscaled already.

    Args:
      image: the low-resolution image [h, w] or [h, w, c], uint8 or uint16.
      sr: what `upscale` returned for it, [scale * h, scale * w] or with c, of the same dtype.
      calibration: the calibration of this model, as `jaxsr.inference.confidence.load` returns it.
      bits, tile: as for `upscale`, and as `sr` was made.

    Returns:
      `sr`, half the width of each pixel's interval in its gray levels (float32 [sh, sw]), and
      whether a pixel lies in a doubtful tile (bool [sh, sw]).

    Raises:
      UserError: the calibration compares with another network, which has other weights by now or
        cannot be loaded.
    """
    white, other = 2 ** (bits or 8 * image.itemsize) - 1, None
    if second := self.second_of(calibration):
      other = second.upscale(image, bits=bits, tile=tile, agree=False)
    return confidence.compute(image, sr, calibration, scale=self.scale, white=white, second=other)

  def second_of(self, calibration: Calibration) -> 'Model | None':
    """Load the network that the doubt of a calibration compares with, once; None without one.

    Raises UserError if it has other weights than when the calibration was made.
    """
    if calibration.second is None:
      return None
    name = calibration.second['name']
    if name not in self._seconds:
      self._seconds[name] = load(name)
    confidence.check_second(calibration, self._seconds[name])
    return self._seconds[name]

  @functools.cached_property
  def _seconds(self) -> dict[str, 'Model']:
    return {}

  @functools.cached_property
  def _apply(self) -> Callable[[Any, jax.Array], jax.Array]:
    return jax.jit(make_predict(self.network))

  def _upscaler(
    self, ensemble: bool, tile: int, reduction: Reduction | None
  ) -> Callable[..., np.ndarray]:
    options = ensemble, tile, reduction
    if options not in self._upscalers:
      self._upscalers[options] = make_upscaler(self, *options)
    return self._upscalers[options]

  @functools.cached_property
  def _upscalers(self) -> dict[Any, Callable[..., np.ndarray]]:
    """Functions by their options, so that each is compiled once per model and image size."""
    return {}


def load(
  name_or_folder: str | os.PathLike[str] | None = None,
  *,
  scale: int | None = None,
  step: str | int = 'latest',
  width: float = 1.0,
  depth: float = 1.0,
  fold: bool = True,
) -> Model:
  """Load the averaged parameters of a run or package, or an interpolation by its name.

  Args:
    name_or_folder: the name of a pretrained model (`jaxsr.list_models()`), the folder of a run or
      package, or 'bicubic', 'lanczos' or 'back_projection'. None: the pretrained model for `scale`.
    scale: the upscaling factor of an interpolation, 2, 3, 4 (the default) or 8. Of a run or
      package, which have their own, it is only checked.
    step: the checkpoint of a run: 'latest', 'best' (by its validation PSNR) or a step.
    width: a width that a slimmable network was trained at, in (0, 1].
    depth: a depth that a slimmable network was trained at, in (0, 1].
    fold: merge parallel branches, which only training needs, into single convolutions. The result
      is the same up to rounding.

  Returns:
    The model. Its variables are on the first device.

  Raises:
    UserError: there is no such model, its files are damaged, or it does not have this scale, step
      or size.

  Example:
    >>> import jaxsr
    >>> jaxsr.load('bicubic', scale=2)
    Model('bicubic', network=bicubic, scale=2, channels=1, step=None, parameters=0)
  """
  name = package.default(scale) if name_or_folder is None else os.fspath(name_or_folder)
  if name in models.PARAMETER_FREE:
    if (width, depth) != (1.0, 1.0):
      raise UserError(f'{name} has neither width nor depth')
    chosen = package.DEFAULT_SCALE if scale is None else scale
    return Model(name, models.build(name, scale=chosen), {}, chosen, 1, None)
  found = stored.find(name)
  config, network = found.config, found.network
  if scale not in (None, config['scale']):
    raise UserError(f'scale {scale}: {name} was trained for scale {config["scale"]}')
  variables, number = found.read(found.shapes(), step=str(step))
  if (width, depth) != (1.0, 1.0):
    network, variables = stored.slim(found, variables, width, depth)
  if fold:
    network, variables = models.fold(network, variables)
  return Model(
    found.name,
    network,
    variables,
    config['scale'],
    config['channels'],
    number,
    width=width,
    depth=depth,
    inputs=input_range.of_config(config),
    folder=found.folder,
    degradation=found.degradation,
  )


def list_models() -> list[str]:
  """List the names that `load` takes: the pretrained models, then the interpolations.

  Example:
    >>> import jaxsr
    >>> 'edsr_x4' in jaxsr.list_models()
    True
  """
  return stored.names()
