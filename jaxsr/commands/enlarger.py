"""The part of `jaxsr upscale` that enlarges one image: network, size, memory, and the file."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsr import __version__
from jaxsr.agreement import Agreement
from jaxsr.commands import confidence_files
from jaxsr.commands.options import Upscale
from jaxsr.commands.upscale_files import Job
from jaxsr.data import dicom_out, image_files, rows
from jaxsr.data.decoded import ImageInfo, Method
from jaxsr.errors import ImageError, UserError
from jaxsr.inference import confidence, package, provenance, streaming
from jaxsr.inference.agreeing import Upscaled
from jaxsr.inference.confidence import Calibration
from jaxsr.inference.input_range import check_input
from jaxsr.inference.memory import OutOfMemory, Tiles
from jaxsr.inference.model import Model, load
from jaxsr.inference.provenance import Provenance
from jaxsr.models import PARAMETER_FREE

_SCALES = (2, 3, 4, 8)
_NOT_AGREEING = 'the result was not made to agree with it'
_NO_REDUCTION = f'does not look like a bicubic reduction, so {_NOT_AGREEING}'
_LARGE = f'is enlarged in strips, so {_NOT_AGREEING}'


def check_options(options: Upscale) -> None:
  """Raise UserError for numbers out of range, and for options that exclude each other."""
  if options.tile != 'auto' and options.tile < 1:
    raise UserError(f'--tile {options.tile} is less than 1')
  if options.size is not None and options.size < 1:
    raise UserError(f'--size {options.size} is less than 1')
  if options.scale is not None and not 1 < options.scale <= _SCALES[-1]:
    raise UserError(f'--scale {options.scale:g}: choose a number above 1, up to {_SCALES[-1]}')
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
  """How one image is enlarged: by which network, and its size afterwards if that is reduced."""

  network: Network
  made_by: Provenance
  scale: int | float | None  # None if the result is the network's
  size: int | None


class Enlarger:
  """Enlarges images by the options of the command; threads call it at the same time."""

  def __init__(self, options: Upscale):
    self.options = options
    self._networks: dict[int | None, Network] = {}
    self._lock = threading.Lock()
    self._large = threading.Lock()  # one large image at a time, since each needs much memory
    self.label = f'{options.size}' if options.size else ''
    if not options.size:
      scale = options.scale
      found = self._network(None if scale is None else self._network_scale(scale)).model.scale
      self._check_scale(found)
      self.label = f'x{scale or found:g}'

  def plan(self, path: Path) -> Plan:
    """Choose the network and the size for an image; raises ImageError if it has that size."""
    options = self.options
    if options.size is None:
      scale = options.scale
      network = self._network(None if scale is None else self._network_scale(scale))
      if scale in (None, network.model.scale):
        return Plan(network, network.made_by, None, None)
      return Plan(network, network.made_by._replace(scale=scale, agreement=''), scale, None)
    height, width, _ = image_files.check(path, 3)
    ratio = options.size / max(height, width)
    if not 1 < ratio <= _SCALES[-1]:
      limit = f'--size takes more than that, up to {_SCALES[-1]} times as many'
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

  def is_done(self, job: Job, plan: Plan, note: Provenance) -> bool:
    """Whether all files of an image exist already, undamaged and made in the same way."""
    by = plan.network.calibration
    done = provenance.is_done(job.target, note)
    return done and (by is None or confidence_files.are_done(job, note, by))

  def write(
    self, job: Job, plan: Plan, note: Provenance
  ) -> tuple[tuple[str, ...], Agreement | None]:
    """Enlarge an image and write the result; raises ImageError.

    Returns remarks on the image, and how far the result agrees with it, if it was to.
    """
    model = plan.network.model
    image, info = image_files.load(job.source, model.channels, self.options.bits)
    check = dicom_out.check_target if job.as_dicom else image_files.check_target
    check(job.target, image)
    height, width, _ = image.shape
    shape = self._shape(plan, height, width)
    large = (model.scale * height) * (model.scale * width)
    if shape[0] * shape[1] > streaming.MOST:
      most = f'{streaming.MOST // 10**6} million'
      raise ImageError(job.source, f'would have {shape[1]}x{shape[0]} pixels, more than {most}')
    remarks = self._remarks(model, image)
    try:
      in_rows = job.as_dicom or job.target.suffix.lower() in rows.SUFFIXES
      in_rows = in_rows and plan.network.calibration is None  # which needs the whole image
      if large > streaming.FROM and in_rows and plan.network.tiles.margin is not None:
        with self._large:
          unmatched = provenance.DISAGREES if note.agreement else ''
          self._write_rows(job, plan, note._replace(agreement=unmatched), image, info, shape)
        return (*remarks, _LARGE) if unmatched else remarks, None
      upscaled = self._upscale(plan.network, image, self._agree(plan.scale))
      if upscaled.agreement is not None and not upscaled.settled:
        note = note._replace(agreement=provenance.DISAGREES)
        remarks = (*remarks, _NOT_AGREEING if remarks else _NO_REDUCTION)
      self._write_whole(job, plan, note, image, info, upscaled, shape)
      return remarks, upscaled.agreement
    except (OutOfMemory, MemoryError) as error:
      size = f'{width}x{height} pixels, {shape[1]}x{shape[0]} enlarged'
      needed = error.needed if isinstance(error, OutOfMemory) else 0
      more = f': {needed:,} bytes more than there are' if needed else ''
      raise ImageError(job.source, f'does not fit into memory ({size}){more}') from error

  def _write_whole(
    self,
    job: Job,
    plan: Plan,
    note: Provenance,
    image: np.ndarray,
    info: ImageInfo,
    upscaled: Upscaled,
    shape: tuple[int, int],
  ) -> None:
    """Write an enlarged image, after its intervals and its doubt if there is a calibration."""
    model, sr, compress = plan.network.model, upscaled.image, self.options.compress
    method = Method(note.method, str(note), __version__, _text(upscaled.agreement))
    if by := plan.network.calibration:
      found = plan.network.tiles.run(
        image.shape[0] * image.shape[1],
        lambda side: model.confidence_of(image, sr, by, bits=8 * image.itemsize, tile=side),
      )
      if job.as_dicom:
        confidence_files.write_dicom(job, found, note, by, method=method, compress=compress)
      else:
        confidence_files.write(job, found, note, by, info=info, scale=model.scale)
      summary = confidence_files.summary(found, by)
      method = method._replace(found=f'{method.found} {summary}'.strip())
    if shape != sr.shape[:2]:
      (sr,) = streaming.resize_rows(iter([sr]), sr.shape[:2], shape)
    if job.as_dicom:
      dicom_out.write(job.target, sr, job.source, method, compress=compress)
    else:
      scale = shape[0] / image.shape[0]
      image_files.write(job.target, sr, str(note), info=info, scale=scale)

  def _write_rows(
    self,
    job: Job,
    plan: Plan,
    note: Provenance,
    image: np.ndarray,
    info: ImageInfo,
    shape: tuple[int, int],
  ) -> None:
    """Enlarge an image strip by strip into the file."""
    strips = self._strips(plan, image, shape)
    first = next(strips)  # so that no file is begun if memory is short at once
    if job.as_dicom:
      method = Method(note.method, str(note), __version__)
      derived = dicom_out.derive(job.source, shape, method)
      with dicom_out.writing(job.target, derived, self.options.compress) as writer:
        writer.write(first[..., 0])
        for strip in strips:
          writer.write(strip[..., 0])
      return
    scale, full = shape[0] / image.shape[0], (*shape, image.shape[2])
    with image_files.writing(
      job.target, full, image.dtype, str(note), info=info, scale=scale
    ) as writer:
      writer.write(first)
      for strip in strips:
        writer.write(strip)

  def _strips(self, plan: Plan, image: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    model, margin = plan.network.model, plan.network.tiles.margin
    assert margin is not None
    found = streaming.strips(
      lambda strip: self._upscale(plan.network, strip, False).image,
      image,
      scale=model.scale,
      margin=margin,
      multiple=model.network.tile_multiple or 1,
    )
    large = (model.scale * image.shape[0], model.scale * image.shape[1])
    return found if shape == large else streaming.resize_rows(found, large, shape)

  def _agree(self, scale: int | float | None) -> bool | None:
    """Returns the option `agree` of `Model.enlarge`.

    Results of another size are not made to agree.
    """
    raw = self.options.size is not None or scale is not None
    return None if self.options.agree and not raw else False

  @staticmethod
  def _remarks(model: Model, image: np.ndarray) -> tuple[str, ...]:
    remark = check_input(model, image)
    return (remark,) if remark else ()

  def _upscale(self, network: Network, image: np.ndarray, agree: bool | None) -> Upscaled:
    """Enlarge an image, or a strip of one, in tiles that fit into memory."""
    return network.tiles.run(
      image.shape[0] * image.shape[1],
      lambda side: network.model.enlarge(
        image, bits=8 * image.itemsize, ensemble=self.options.ensemble, tile=side, agree=agree
      ),
    )

  def _shape(self, plan: Plan, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result."""
    if plan.size is not None:
      longer = max(height, width)
      return max(1, round(height * plan.size / longer)), max(1, round(width * plan.size / longer))
    scale = plan.scale or plan.network.model.scale
    return max(1, round(height * scale)), max(1, round(width * scale))

  def _network_scale(self, ratio: float) -> int | None:
    """Returns the scale of the network for a ratio: the next larger one there is."""
    chosen = self.options.checkpoint
    if chosen is not None and chosen not in PARAMETER_FREE:
      return None  # that of the checkpoint
    known = [s for s in _SCALES if chosen or package.has_default(s)]
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
        agree = self._agree(None if options.scale == model.scale else options.scale)
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
    return confidence.load(model, self.options.calibration, self._agree(None))


def _text(found: Agreement | None) -> str:
  """Returns a sentence on the agreement of a result with its source."""
  if found is None:
    return ''
  return f'Reduced again, it equals the source in {found.equal} of {found.pixels} pixels.'
