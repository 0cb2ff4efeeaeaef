"""Load a trained model from a run, a package, or by name, and upscale images with it."""

import dataclasses
import functools
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, UInt

from jaxsr import agreement, models, sharding
from jaxsr import config as configs
from jaxsr.agreement import Reduction
from jaxsr.compression import slicing, slimmable
from jaxsr.data import image_files
from jaxsr.errors import UserError
from jaxsr.inference import confidence, input_range, package, tiling
from jaxsr.inference.agreeing import Rule, Upscaled, to_levels
from jaxsr.inference.confidence import Calibration, Confidence
from jaxsr.inference.predict import make_predict
from jaxsr.inference.upscale import make_upscale
from jaxsr.models import Network

if TYPE_CHECKING:
  from jaxsr.checkpoint import Checkpoints


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
    x = jnp.asarray(x)
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
        training images or more than 5 % of its pixels would be off, is upscaled as if by False.
        None: if the network was trained for that reduction of clean images.

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
    image, white = _prepare(image, self, bits, tile)
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
      The upscaled image [scale * h, scale * w, c], also in floats before rounding, and how far its
      reduction equals `image`.

    Raises:
      UserError: as for `upscale`.
    """
    image, white = _prepare(image, self, bits, tile)
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
    return rule.leave(sr, image, white=white)

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
    image = np.asarray(image)
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
    """Returns what `confidence` does for an image that was upscaled to `sr` already."""
    white, other = 2 ** (bits or 8 * image.itemsize) - 1, None
    if calibration.second:
      second = self._second(calibration.second['name'])
      confidence.check_second(calibration, second)
      other = second.upscale(image, bits=bits, tile=tile, agree=False)
    return confidence.compute(image, sr, calibration, scale=self.scale, white=white, second=other)

  def _second(self, name: str) -> 'Model':
    """Load the network that the doubt compares with, once."""
    if name not in self._seconds:
      self._seconds[name] = load(name)
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
      self._upscalers[options] = _make_upscaler(self, *options)
    return self._upscalers[options]

  @functools.cached_property
  def _upscalers(self) -> dict[Any, Callable[..., np.ndarray]]:
    """Functions by their options, so that each is compiled once per model and image size."""
    return {}


def _prepare(image: ArrayLike, model: Model, bits: int, tile: int) -> tuple[np.ndarray, int]:
  """Check the arguments of `Model.upscale`; returns the image as an array, and its white."""
  if tile < 1:
    raise UserError(f'tile {tile} is less than 1')
  image = np.asarray(image)
  _check_image(image, model)
  image = image.astype(image.dtype.newbyteorder('='), copy=False)
  return image, _white(image, bits)


def _white(image: np.ndarray, bits: int) -> int:
  """Returns the largest value that an image of so many bits can have."""
  container, peak = 8 * image.itemsize, int(image.max(initial=0))
  if not bits:
    if image.dtype == np.uint16 and (likely := image_files.likely_bits(peak)):
      text = f'the values end at {peak} of 65535: pass bits={likely} if the image has {likely} bits'
      warnings.warn(text, stacklevel=4)
    bits = container
  if not 1 <= bits <= container or peak >= 2**bits:
    raise UserError(f'bits {bits}: the image is {image.dtype} and has values up to {peak}')
  return 2**bits - 1


def _check_image(image: np.ndarray, model: Model) -> None:
  """Raise UserError unless `Model.upscale` can take the image."""
  if np.issubdtype(image.dtype, np.floating) or image.dtype.name == 'bfloat16':
    raise UserError(
      f'image is {image.dtype}: upscale takes uint8 or uint16; for floats in [0, 1] call model(x)'
    )
  if image.dtype.newbyteorder('=') not in (np.uint8, np.uint16):
    raise UserError(
      f'image is {image.dtype}: upscale takes uint8 (0 to 255) or uint16 (0 to 65535); convert it, '
      'so that 0 is black and the largest value white'
    )
  c = model.channels
  shapes = f'[h, w, {c}] or [b, h, w, {c}]'
  shapes = f'[h, w], {shapes}' if c == 1 else shapes
  if image.ndim not in (2, 3, 4) or 0 in image.shape:
    raise UserError(f'image has the shape {list(image.shape)}: upscale takes {shapes}')
  found = 1 if image.ndim == 2 else image.shape[-1]
  if found != c:
    kind = {1: 'gray', 3: 'RGB'}[c]
    raise UserError(
      f'image has the shape {list(image.shape)}, so {found} channels: {model.name} is for {kind} '
      f'images, {shapes}'
    )


class _Saved(NamedTuple):
  """A network on disk: its config, and the function that reads its variables."""

  name: str
  config: dict[str, Any]
  network: Network
  read: Callable[..., tuple[Any, int]]
  folder: Path
  degradation: str  # what it was trained for; older runs and packages know bicubic only


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
  saved = _find(name)
  config, network = saved.config, saved.network
  if scale not in (None, config['scale']):
    raise UserError(f'scale {scale}: {name} was trained for scale {config["scale"]}')
  variables, found = saved.read(_shapes(network), step=str(step))
  if (width, depth) != (1.0, 1.0):
    network, variables = _slim(saved, variables, width, depth)
  if fold:
    network, variables = models.fold(network, variables)
  return Model(
    saved.name,
    network,
    variables,
    config['scale'],
    config['channels'],
    found,
    width=width,
    depth=depth,
    inputs=input_range.of_config(config),
    folder=saved.folder,
    degradation=saved.degradation,
  )


def list_models() -> list[str]:
  """List the names that `load` takes: the pretrained models, then the interpolations.

  Example:
    >>> import jaxsr
    >>> 'edsr_x4' in jaxsr.list_models()
    True
  """
  return [*package.names(), *models.PARAMETER_FREE]


def read_config(name_or_folder: str) -> dict[str, Any]:
  """Read the config of a run, or the part of it that a package holds; raises UserError."""
  return _find(name_or_folder).config


def is_slimmable(config: dict[str, Any]) -> bool:
  """Whether a run or package of this config was trained at several sizes."""
  loss = config.get('loss')
  return 'slimmable' in config if loss is None else bool(loss.get('slimmable'))


def load_variables(name_or_folder: str, network: Network, target: Any) -> tuple[Any, int, str]:
  """Load the averaged variables that training of a network starts from.

  They are those of a run or package of the same network, or cut from a wider or deeper one.

  Args:
    name_or_folder: a run or package.
    network: the network that is to be trained.
    target: the shapes and shardings of its variables.

  Returns:
    The variables, their step, and how they were cut ('' if they were not).

  Raises:
    UserError: the networks differ in more than width and depth.
  """
  try:
    saved = _find(name_or_folder)
    if found := slicing.differences(network, saved.network):
      rule = 'start from a run of the same network, or of a wider or deeper one'
      raise UserError(f'{found[0]}; {rule}')
    if not (cut := slicing.smaller(network, saved.network)):
      return *saved.read(target), ''
    variables, step = saved.read(_shapes(saved.network))
    variables = slicing.make_cut(network, saved.network, variables, ranked=True).take(variables)
    place = lambda x, to: jax.device_put(x, to.sharding)  # noqa: E731
    return {k: jax.tree.map(place, variables.get(k, {}), target[k]) for k in target}, step, cut
  except UserError as error:
    raise UserError(f'config.init_from={name_or_folder}: {error}') from error


def _shapes(network: Network) -> Any:
  """Returns the shapes of a network's variables, on one device."""
  here = sharding.replicated(sharding.make_mesh(1))
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)  # noqa: E731
  return jax.tree.map(placed, models.shapes(network))


def _slim(saved: _Saved, variables: Any, width: float, depth: float) -> tuple[Network, Any]:
  """Cut a slimmable network to one of the sizes that it was trained at."""
  for name, value in (('width', width), ('depth', depth)):
    known = saved.config['slimmable'][f'{name}s'] if is_slimmable(saved.config) else [1.0]
    if value not in known:
      sizes = ', '.join(map(str, known))
      raise UserError(f'{name} {value}: {saved.name} was trained at {name} {sizes} only')
  small = slimmable.shrink(saved.network, saved.config['model'], width, depth)
  cut = slicing.make_cut(small, saved.network, models.shapes(saved.network), ranked=False)
  return small, cut.take(variables)


def _find(name_or_folder: str) -> _Saved:
  """Find a package by its name or folder, or a run by its folder; raises UserError."""
  folder = Path(name_or_folder).expanduser()
  name = folder.resolve().name
  if (shipped := package.find(name_or_folder)) is not None:
    config = package.read_config(shipped).config

    def read_package(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
      if step != 'latest':
        raise UserError(f'step {step}: {name_or_folder} is a package, which has only one step')
      return package.read(shipped, target), package.read_config(shipped).origin['step']

    kind = package.read_config(shipped).origin.get('degradation', {}).get('kind', 'bicubic')
    return _Saved(name, config, _network(config), read_package, shipped, kind)
  from jaxsr.checkpoint import Checkpoints, run_dir  # here, since Orbax takes long to import

  saved = run_dir.read_config(folder) if folder.is_dir() else None
  if saved is None:
    raise UserError(
      f'checkpoint {name_or_folder!r} is neither the folder of a run or package nor one of: '
      f'{", ".join(list_models())}'
    )
  checkpoints = Checkpoints(folder / 'checkpoints')

  def read(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
    return checkpoints.restore_variables(target, step=_number(checkpoints, step))

  kind = saved['config']['data'].get('degradation', {}).get('kind', 'bicubic')
  return _Saved(name, saved['config'], _network(saved['config']), read, folder, kind)


def _network(config: dict[str, Any]) -> Any:
  """Build the network of a config, in float32 on CPUs, which only emulate bfloat16."""
  on_cpu = {'precision': 'float32'} if jax.default_backend() == 'cpu' else {}
  return configs.build_network({**config, **on_cpu})


def _number(checkpoints: 'Checkpoints', step: str) -> int | None:
  """Returns a step as a number, or None for the newest one that is valid."""
  steps = checkpoints.steps()
  if not steps or step == 'latest':
    return None
  if step == 'best':
    if (best := checkpoints.best()) is None:
      raise UserError(f'step best: none of {", ".join(map(str, steps))} was validated')
    return best
  if not step.isdigit() or int(step) not in steps:
    known = ', '.join(map(str, steps))
    raise UserError(f'step {step} is unknown: choose one of: latest, best, {known}')
  return int(step)


def _make_upscaler(
  model: Model, ensemble: bool, tile: int, reduction: Reduction | None
) -> Callable[..., np.ndarray]:
  """Build the function that upscales a uint8 or uint16 image to floats in [0, 1].

  Its arguments are the image, its white, and for agreement within noise the width of that.

  The rows of an image are divided among the devices of this process. Images with a side of more
  than `tile` low-resolution pixels are upscaled in tiles, one per device at a time, if the
  network's receptive field is bounded. Threads that call the function take turns.
  """
  network = model.network
  options: dict[str, Any] = {'ensemble': ensemble, 'reduction': reduction, 'rounded': False}
  full = make_upscale(network, devices=jax.local_devices(), **options)
  tiled = make_upscale(network, **options)
  mesh = sharding.make_mesh()
  replicated = sharding.replicated(mesh)
  variables = functools.cache(lambda: jax.device_put(model.variables, replicated))
  margin_of = functools.cache(lambda: tiling.margin(network))  # tracing takes seconds
  turn = threading.Lock()

  def compute(lr: np.ndarray, levels: np.float32, width: np.float32) -> np.ndarray:
    margin = margin_of() if max(lr.shape) > tile else None
    if margin is None:
      found = full(model.variables, lr[None], levels, width)
      return np.asarray(found)[0]  # JAX would compile `[0]`
    return tiling.upscale(
      lambda images: tiled(variables(), sharding.put({'lr': images}, mesh)['lr'], levels, width),
      lr,
      scale=model.scale,
      side=tile,
      margin=margin if reduction is None else max(margin, agreement.MARGIN),
      multiple=network.tile_multiple or 1,
      batch_size=mesh.size,
    )

  def upscale(
    image: UInt[np.ndarray, 'h w c'], white: int, width: float = 0.0
  ) -> Float[np.ndarray, 'sh sw c']:
    levels = np.float32(white)
    lr: Float[np.ndarray, 'h w c'] = image.astype(np.float32) / levels
    with turn:
      return compute(lr, levels, np.float32(width))

  return upscale
