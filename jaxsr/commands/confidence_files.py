"""The by-products of `jaxsr upscale --confidence`: intervals and doubt, as images or DICOM."""

import numpy as np

from jaxsr.commands.upscale_files import Job, by_products
from jaxsr.data import dicom_maps, image_files
from jaxsr.data.decoded import Method
from jaxsr.data.dicom_maps import Shown
from jaxsr.data.image_files import ImageInfo
from jaxsr.inference import provenance
from jaxsr.inference.confidence import Calibration, Confidence
from jaxsr.inference.provenance import Provenance

# Added to the numbers of the films in their series, so that films, intervals and doubt are listed
# one after another.
_INTERVAL_PLACE, _DOUBT_PLACE = 10_000, 20_000


def notes(made_by: Provenance, calibration: Calibration) -> tuple[Provenance, Provenance]:
  """Returns the provenance of the intervals and of the doubt."""
  by = f'calibration {calibration.digest} of {calibration.patients} patients'
  interval = f'half width of {calibration.interval.coverage:.0%} intervals, {by}'
  doubt = f'tiles with an error above {calibration.doubt.bad:g} gray levels of 255, {by}'
  return made_by._replace(content=interval), made_by._replace(content=doubt)


def are_done(job: Job, made_by: Provenance, calibration: Calibration) -> bool:
  """Whether both files hold what this calibration makes of the image."""
  found = zip(by_products(job), notes(made_by, calibration), strict=True)
  return all(provenance.is_done(path, note) for path, note in found)


def summary(found: Confidence, calibration: Calibration) -> str:
  """Returns a sentence on the intervals and the doubt of an image."""
  return (
    f'{calibration.interval.coverage:.0%} intervals by calibration {calibration.digest}; doubt in '
    f'{found.doubt.mean():.1%} of the pixels.'
  )


def write(
  job: Job,
  found: Confidence,
  made_by: Provenance,
  calibration: Calibration,
  *,
  info: ImageInfo,
  scale: int,
) -> None:
  """Write the intervals, in whole gray levels of the image, and the doubt, 255 where it is.

  Half widths are rounded down: between two images of whole gray levels, a difference is within the
  half width if it is within that number.
  """
  interval, doubt = by_products(job)
  notes_of = notes(made_by, calibration)
  kind = found.image.dtype
  half = np.floor(found.half_width).clip(0, np.iinfo(kind).max).astype(kind)[..., None]
  image_files.write(interval, half, str(notes_of[0]), info=info, scale=scale)
  mask = np.where(found.doubt, 255, 0).astype(np.uint8)[..., None]
  image_files.write(doubt, mask, str(notes_of[1]), info=info._replace(bits=8), scale=scale)


def write_dicom(
  job: Job,
  found: Confidence,
  made_by: Provenance,
  calibration: Calibration,
  *,
  method: Method,
  compress: str | None,
) -> None:
  """Write the intervals and the doubt as further instances of the enlarged image's series."""
  interval, doubt = by_products(job)
  by_interval, by_doubt = map(str, notes(made_by, calibration))
  coverage, bad = calibration.interval.coverage, calibration.doubt.bad
  width = (
    f'Half the width of the {coverage:.0%} interval of each pixel, not an image of the patient.'
  )
  tiles = f'White: the error may be above {bad:g} gray levels of 255. Not an image of the patient.'
  shown = Shown('INTERVAL', by_interval, width, _INTERVAL_PLACE)
  dicom_maps.write_half_widths(
    interval, found.half_width, job.source, method, shown, compress=compress
  )
  shown = Shown('DOUBT', by_doubt, tiles, _DOUBT_PLACE)
  dicom_maps.write_mask(doubt, found.doubt, job.source, method, shown, compress=compress)
