"""Enlarge one image of `jaxsr upscale` in the memory that there is, and write the file."""

import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

import numpy as np

from jaxsr import __version__
from jaxsr.commands import confidence_files
from jaxsr.commands.options import Upscale
from jaxsr.commands.upscale_files import Job
from jaxsr.commands.upscale_plan import Network, Plan, Planner
from jaxsr.data import dicom_derived, dicom_out, image_files, rows
from jaxsr.data.decoded import ImageInfo, Method
from jaxsr.errors import ImageError
from jaxsr.inference import confidence, provenance, streaming, tiling
from jaxsr.inference.agreeing import Upscaled
from jaxsr.inference.agreement import Agreement
from jaxsr.inference.confidence import Calibration
from jaxsr.inference.input_range import check_input
from jaxsr.inference.memory import OutOfMemory
from jaxsr.inference.model import Model
from jaxsr.inference.provenance import Provenance

Part = TypeVar('Part')

_NOT_AGREEING = 'the result was not made to agree with it'
_NO_REDUCTION = f'does not look like a bicubic reduction, so {_NOT_AGREEING}'
_LARGE = f'is enlarged in strips, so {_NOT_AGREEING}'
_CALIBRATED = '; its intervals were calibrated on results that agree'


class _Film(NamedTuple):
  """An image, its result, and the file that the result is written to."""

  job: Job
  plan: Plan
  note: Provenance
  image: np.ndarray
  info: ImageInfo
  shape: tuple[int, int]  # of the result
  bits: int  # that the user named, or 0

  @property
  def scale(self) -> float:
    return self.shape[0] / self.image.shape[0]

  def method(self, found: str = '') -> Method:
    """Returns how the result is made; `found` are sentences on it."""
    return Method(self.note.method, str(self.note), __version__, found, self.bits)


class Enlarger:
  """Enlarges images and writes them; threads call it at the same time."""

  def __init__(self, options: Upscale, planner: Planner):
    self.options, self.planner = options, planner
    self._large = threading.Lock()  # one large image at a time, since each needs much memory
    self._margins: dict[str, int | None] = {}

  def is_done(self, job: Job, plan: Plan, note: Provenance) -> bool:
    """Whether all files of an image exist already, undamaged and made in the same way."""
    by = plan.network.calibration
    done = provenance.is_done(job.target, note)
    if done and job.as_dicom and (compress := self.options.compress):
      done = dicom_out.is_compressed_by(job.target, compress)
    return done and (by is None or confidence_files.are_done(job, note, by))

  def write(
    self, job: Job, plan: Plan, note: Provenance
  ) -> tuple[tuple[str, ...], Agreement | None]:
    """Enlarge an image and write the result; raises ImageError.

    Returns remarks on the image, and the result's agreement with it, or None if not asked for.
    """
    model = plan.network.model
    image, info = image_files.load(job.source, model.channels, self.options.bits)
    check = dicom_out.check_target if job.as_dicom else image_files.check_target
    check(job.target, image)
    height, width, _ = image.shape
    shape = plan.shape(height, width)
    large = (model.scale * height) * (model.scale * width)
    if shape[0] * shape[1] > streaming.MOST:
      most = f'{streaming.MOST // 10**6} million'
      raise ImageError(job.source, f'would have {shape[1]}x{shape[0]} pixels, more than {most}')
    remarks = self._remarks(model, image)
    unlike = _CALIBRATED if plan.network.calibration else ''
    film = _Film(job, plan, note, image, info, shape, self.options.bits)
    try:
      in_rows = job.as_dicom or job.target.suffix.lower() in rows.SUFFIXES
      if large > streaming.FROM and in_rows and self._margin(plan) is not None:
        unmatched = provenance.DISAGREES if note.agreement else ''
        with self._large:
          self._write_rows(film._replace(note=note._replace(agreement=unmatched)))
        return (*remarks, _LARGE + unlike) if unmatched else remarks, None
      upscaled = self._upscale(plan.network, image, self.planner.agree(plan.scale))
      if upscaled.agreement is not None and not upscaled.settled:
        film = film._replace(note=note._replace(agreement=provenance.DISAGREES))
        remarks = (*remarks, (_NOT_AGREEING if remarks else _NO_REDUCTION) + unlike)
      self._write_whole(film, upscaled)
      return remarks, upscaled.agreement
    except (OutOfMemory, MemoryError) as error:
      size = f'{width}x{height} pixels, {shape[1]}x{shape[0]} enlarged'
      needed = error.needed if isinstance(error, OutOfMemory) else 0
      more = f': {needed:,} bytes more than there are' if needed else ''
      raise ImageError(job.source, f'does not fit into memory ({size}){more}') from error

  def _write_whole(self, film: _Film, upscaled: Upscaled) -> None:
    """Write an enlarged image, after its intervals and its doubt if there is a calibration."""
    job, image, sr, texts = film.job, film.image, upscaled.image, _text(upscaled.agreement)
    network = film.plan.network
    if by := network.calibration:
      found = network.tiles.run(
        image.shape[0] * image.shape[1],
        lambda side: network.model.confidence_of(image, sr, by, bits=_bits(image), tile=side),
      )
      with self._writing_confidence(film, by) as writer:
        writer.write(found)
      texts = f'{texts} {confidence_files.summary(writer.share, by)}'.strip()
    if film.shape != sr.shape[:2]:
      (sr,) = streaming.resize_rows(iter([sr]), sr.shape[:2], film.shape)
    if job.as_dicom:
      dicom_out.write(
        job.target, sr, job.source, film.method(texts), compress=self.options.compress
      )
    else:
      image_files.write(job.target, sr, str(film.note), info=film.info, scale=film.scale)

  def _write_rows(self, film: _Film) -> None:
    """Enlarge an image strip by strip into its file, and into those of intervals and doubt."""
    by, strips = film.plan.network.calibration, self._strips(film)
    if by is None:
      strips = _begun(strips)
      with self._writing(film, '') as writer:
        for strip in strips:
          writer.write(strip)
      return
    scale, white = film.plan.network.model.scale, 2 ** _bits(film.image) - 1
    parts = _begun(confidence.compute_rows(strips, film.image, by, scale=scale, white=white))
    text = confidence_files.summary(1.0, by)  # the longest one
    with self._writing(film, text) as writer, self._writing_confidence(film, by) as others:
      for part in parts:
        writer.write(part.image)
        others.write(part)
      if isinstance(writer, dicom_out.Writer):
        writer.describe(film.method(confidence_files.summary(others.share, by)))

  def _writing(self, film: _Film, text: str) -> AbstractContextManager[rows.Rows]:
    """Returns a context with a writer of the image's rows; DICOM holds a text on the result."""
    job = film.job
    if job.as_dicom:
      derived = dicom_derived.derive(job.source, film.shape, film.method(text))
      return dicom_out.writing(job.target, derived, self.options.compress)
    return image_files.writing(
      job.target,
      (*film.shape, film.image.shape[2]),
      film.image.dtype,
      str(film.note),
      info=film.info,
      scale=film.scale,
    )

  def _writing_confidence(
    self, film: _Film, by: Calibration
  ) -> AbstractContextManager[confidence_files.Writer]:
    """Returns a context with a writer of the intervals and the doubt."""
    args = film.job, film.shape, film.note, by
    if film.job.as_dicom:
      compress = self.options.compress
      return confidence_files.writing_dicom(*args, method=film.method(), compress=compress)
    kind, scale = film.image.dtype, film.plan.network.model.scale
    return confidence_files.writing(*args, kind=kind, info=film.info, scale=scale)

  def _strips(self, film: _Film) -> Iterator[np.ndarray]:
    """Yield the enlarged image in strips, with the channels of the second network's behind it."""
    model, margin = film.plan.network.model, self._margin(film.plan)
    second = _second(film.plan)
    assert margin is not None
    multiples = [each.network.tile_multiple or 1 for each in (model, second) if each]
    found = streaming.strips(
      lambda strip: self._strip(film.plan.network, second, strip),
      film.image,
      scale=model.scale,
      margin=margin,
      multiple=math.lcm(*multiples),
    )
    height, width, _ = film.image.shape
    large = (model.scale * height, model.scale * width)
    return found if film.shape == large else streaming.resize_rows(found, large, film.shape)

  def _strip(self, network: Network, second: Model | None, strip: np.ndarray) -> np.ndarray:
    """Enlarge a strip by the network, and by the second one if there is one."""
    sr = self._upscale(network, strip, False).image
    if second is None:
      return sr
    other = network.tiles.run(
      strip.shape[0] * strip.shape[1],
      lambda side: second.upscale(strip, bits=_bits(strip), tile=side, agree=False),
    )
    return np.concatenate([sr, other], axis=2)

  def _margin(self, plan: Plan) -> int | None:
    """Returns the rows that a strip needs around it; None if a network needs the full image."""
    second, first = _second(plan), plan.network.tiles.margin
    if second is None or first is None:
      return first
    if second.name not in self._margins:  # tracing takes seconds
      self._margins[second.name] = tiling.margin(second.network)
    other = self._margins[second.name]
    return None if other is None else max(first, other)

  @staticmethod
  def _remarks(model: Model, image: np.ndarray) -> tuple[str, ...]:
    remark = check_input(model, image, bits=_bits(image))
    return (remark,) if remark else ()

  def _upscale(self, network: Network, image: np.ndarray, agree: bool | None) -> Upscaled:
    """Enlarge an image, or a strip of one, in tiles that fit into memory."""
    return network.tiles.run(
      image.shape[0] * image.shape[1],
      lambda side: network.model.enlarge(
        image, bits=_bits(image), ensemble=self.options.ensemble, tile=side, agree=agree
      ),
    )


def _bits(image: np.ndarray) -> int:
  return 8 * image.itemsize


def _second(plan: Plan) -> Model | None:
  """Returns the network that the doubt compares with, if there is one."""
  by = plan.network.calibration
  return by and plan.network.model.second_of(by)


def _begun(parts: Iterator[Part]) -> Iterator[Part]:
  """Compute the first part, so that no file is begun if memory is short at once."""
  return itertools.chain([next(parts)], parts)


def _text(found: Agreement | None) -> str:
  """Returns a sentence on the agreement of a result with its source."""
  if found is None:
    return ''
  return f'Reduced again, it equals the source in {found.equal} of {found.pixels} pixels.'
