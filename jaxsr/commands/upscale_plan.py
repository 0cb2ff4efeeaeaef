"""The network, the size and the provenance of each image that `jaxsr upscale` makes."""

import threading
from pathlib import Path
from typing import NamedTuple

from jaxsr.commands.options import Upscale
from jaxsr.data import bit_depth, image_files
from jaxsr.errors import ImageError, UserError
from jaxsr.inference import confidence, package, provenance
from jaxsr.inference.confidence import Calibration
from jaxsr.inference.memory import Tiles
from jaxsr.inference.model import Model, load
from jaxsr.inference.provenance import Provenance
from jaxsr.models import PARAMETER_FREE, SCALES


def check_options(options: Upscale) -> None:
  """Raise UserError for numbers out of range, and for options that exclude each other."""
  if options.tile != 'auto' and options.tile < 1:
    raise UserError(f'--tile {options.tile} is less than 1')
  bit_depth.check(options.bits, '--bits')
  if options.size is not None and options.size < 1:
    raise UserError(f'--size {options.size} is less than 1')
  if options.scale is not None and not 1 < options.scale <= SCALES[-1]:
    raise UserError(f'--scale {options.scale:g}: choose a number above 1, up to {SCALES[-1]}')
  if options.scale is not None and options.size is not None:
    raise UserError('--size and --scale exclude each other; give one of them')
  if options.confidence and (options.ensemble or options.size):
    raise UserError('--confidence: calibrations are for images without --ensemble and --size')


class Network(NamedTuple):
  """A model, the tiles that fit into memory, and the provenance of its images."""

  model: Model
  tiles: Tiles
  made_by: Provenance
  calibration: Calibration | None = None


class Plan(NamedTuple):
  """How one image is enlarged: by which network, and its size afterward if that is reduced."""

  network: Network
  made_by: Provenance
  scale: int | float | None  # None if the result is the network's
  size: int | None

  def shape(self, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result."""
    if self.size is not None:
      longer = max(height, width)
      return max(1, round(height * self.size / longer)), max(1, round(width * self.size / longer))
    scale = self.scale or self.network.model.scale
    return max(1, round(height * scale)), max(1, round(width * scale))


class Planner:
  """Chooses for each image by the options of the command; threads call it at the same time."""

  def __init__(self, options: Upscale):
    self.options = options
    self._networks: dict[int | None, Network] = {}
    self._lock = threading.Lock()
    self.label = f'{options.size}' if options.size else ''
    if not options.size:
      scale = options.scale
      found = self._network(None if scale is None else self._network_scale(scale)).model.scale
      self._check_scale(found)
      self.label = f'x{scale or found:g}'

  def plan(self, path: Path) -> Plan:
    """Choose the network and the size for an image; raises ImageError if there is none."""
    options = self.options
    if options.size is None:
      scale = options.scale
      network = self._network(None if scale is None else self._network_scale(scale))
      if scale in (None, network.model.scale):
        return Plan(network, network.made_by, None, None)
      return Plan(network, network.made_by._replace(scale=scale, agreement=''), scale, None)
    height, width, _ = image_files.check(path, 3)
    ratio = options.size / max(height, width)
    if not 1 < ratio <= SCALES[-1]:
      limit = f'--size takes more than that, up to {SCALES[-1]} times as many'
      raise ImageError(path, f'has {width}x{height} pixels; {limit}')
    try:
      network = self._network(self._network_scale(ratio))
    except UserError as error:
      raise ImageError(path, str(error)) from error
    if ratio > network.model.scale:
      raise ImageError(
        path, f'has {width}x{height} pixels; the model enlarges {network.model.scale} times'
      )
    if ratio == network.model.scale:
      return Plan(network, network.made_by, None, None)
    made_by = network.made_by._replace(agreement='', scale=float(f'{ratio:.6g}'))
    return Plan(network, made_by, ratio, options.size)

  def agree(self, scale: int | float | None) -> bool | None:
    """Returns the option `agree` of `Model.enlarge`.

    Results of another size are not made to agree.
    """
    raw = self.options.size is not None or scale is not None
    return None if self.options.agree and not raw else False

  def _network_scale(self, ratio: float) -> int | None:
    """Returns the scale of the network for a ratio: the next larger one there is."""
    chosen = self.options.checkpoint
    if chosen is not None and chosen not in PARAMETER_FREE:
      return None  # that of the checkpoint
    known = [s for s in SCALES if chosen or package.has_default(s)]
    if not known:
      package.default(None)  # raises an error that says so
    if not (fitting := [s for s in known if s >= ratio]):
      raise UserError(
        f'scale {ratio:g}: the pretrained models enlarge up to {max(known)} times; name a '
        'checkpoint for more'
      )
    return fitting[0]

  def _check_scale(self, found: int) -> None:
    """Raise UserError if the checkpoint's scale is too small for the one that was asked for."""
    if (scale := self.options.scale) is not None and scale > found:
      name = self.options.checkpoint
      raise UserError(f'--scale {scale:g}: {name} was trained for scale {found}; choose less')

  def _network(self, scale: int | None) -> Network:
    """Load the network of a scale once."""
    options = self.options
    with self._lock:
      if scale not in self._networks:
        model = load(
          options.checkpoint,
          scale=scale,
          step=options.step,
          width=options.width,
          depth=options.depth,
        )
        agree = self.agree(None if options.scale == model.scale else options.scale)
        made_by = provenance.of(model, ensemble=options.ensemble, agree=agree)
        if options.bits:  # results that were made with another number are made again
          made_by = made_by._replace(network=f'{made_by.network}, {options.bits} bits')
        by = self._calibration(model) if options.confidence else None
        self._networks[scale] = Network(model, Tiles(model.network, options.tile), made_by, by)
      return self._networks[scale]

  def _calibration(self, model: Model) -> Calibration:
    if self.options.scale not in (None, model.scale):
      raise UserError(
        f'--confidence: the calibration is for scale {model.scale}; leave out '
        f'--scale {self.options.scale:g}'
      )
    return confidence.load(model, self.options.calibration, self.agree(None))
