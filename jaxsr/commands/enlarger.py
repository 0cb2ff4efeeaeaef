"""Enlarge one image of `jaxsr upscale` in the memory that there is, and write the file."""

import threading
from collections.abc import Iterator

import numpy as np

from jaxsr import __version__
from jaxsr.agreement import Agreement
from jaxsr.commands import confidence_files
from jaxsr.commands.options import Upscale
from jaxsr.commands.upscale_files import Job
from jaxsr.commands.upscale_plan import Network, Plan, Planner
from jaxsr.data import dicom_out, image_files, rows
from jaxsr.data.decoded import ImageInfo, Method
from jaxsr.errors import ImageError
from jaxsr.inference import provenance, streaming
from jaxsr.inference.agreeing import Upscaled
from jaxsr.inference.input_range import check_input
from jaxsr.inference.memory import OutOfMemory
from jaxsr.inference.model import Model
from jaxsr.inference.provenance import Provenance

_NOT_AGREEING = 'the result was not made to agree with it'
_NO_REDUCTION = f'does not look like a bicubic reduction, so {_NOT_AGREEING}'
_LARGE = f'is enlarged in strips, so {_NOT_AGREEING}'


class Enlarger:
  """Enlarges images and writes them; threads call it at the same time."""

  def __init__(self, options: Upscale, planner: Planner):
    self.options, self.planner = options, planner
    self._large = threading.Lock()  # one large image at a time, since each needs much memory

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
    shape = plan.shape(height, width)
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
      upscaled = self._upscale(plan.network, image, self.planner.agree(plan.scale))
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


def _text(found: Agreement | None) -> str:
  """Returns a sentence on the agreement of a result with its source."""
  if found is None:
    return ''
  return f'Reduced again, it equals the source in {found.equal} of {found.pixels} pixels.'
